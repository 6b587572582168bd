"""Checks of settings, each one line that names the setting."""

from kd_mil.core.errors import UserError


def check_share(name: str, value: float) -> None:
    """Refuse a share outside [0, 1].

    Raises:
        UserError: naming the setting.
    """
    if not 0 <= value <= 1:
        raise UserError(f"{name}={value}: a share, it must lie in [0, 1]")
