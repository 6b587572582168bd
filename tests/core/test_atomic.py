"""Where results may go, found out before work begins."""

import pytest

from kd_mil.core.atomic import require_writable
from kd_mil.core.errors import UserError


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["file", "file/below/it", "dangling"])
def test_what_cannot_be_a_folder_is_named(tmp_path, out):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=rf"out=.*{out}: '.*{out.split('/')[0]}' is no folder"):
        require_writable(tmp_path / out)
