"""Drawn tissue."""

from kd_mil.data.masks.synthetic_glands import draw_tissue


def test_drawn_tissue_is_a_function_of_seed_and_number():
    image, mask = draw_tissue(48, True, 0, 5)
    again, _ = draw_tissue(48, True, 0, 5)
    other, _ = draw_tissue(48, True, 1, 5)
    assert (image == again).all()
    assert (image != other).any()
    assert 0.02 < mask.mean() < 0.7
    darkness = 255 - image.mean(0)
    assert darkness[mask == 1].mean() > darkness[mask == 0].mean() + 10
    assert not draw_tissue(48, False, 0, 5)[1].any()
