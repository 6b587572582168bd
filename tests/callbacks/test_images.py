"""The report of a run on images: numbers that would fail after training are refused before it."""

import pytest

from kd_mil.callbacks.images import ImageReport
from kd_mil.core.errors import UserError


@pytest.mark.parametrize("setting", [{"resamples": 0}, {"latency_repeats": -1}, {"pairs": 0}])
def test_numbers_out_of_range_are_refused(setting):
    [(name, value)] = setting.items()
    with pytest.raises(UserError, match=f"callbacks.images.{name}={value}: must be at least"):
        ImageReport("run", **setting)
