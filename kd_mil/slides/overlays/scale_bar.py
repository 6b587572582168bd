"""Lengths of scale bars: round, and at most a share of the picture."""

BAR_SHARE = 0.25
"""Largest share of the picture's width that a scale bar takes."""
ROUND_LENGTHS = [step * 10**power for power in range(6) for step in (1, 2, 5)]
"""Lengths of a scale bar, µm."""


def bar_length(width: int, um_per_pixel: float) -> int:
    """Length in µm of the scale bar of a picture `width` pixels wide; 0 where none of the round ones fits."""
    longest = BAR_SHARE * width * um_per_pixel
    return max((candidate for candidate in ROUND_LENGTHS if candidate <= longest), default=0)


def length_text(um: int) -> str:
    """A length as people write it: 500 µm, 2 mm."""
    return f"{um / 1000:g} mm" if um >= 1000 else f"{um:g} µm"
