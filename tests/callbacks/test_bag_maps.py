"""Maps of bags that are images: which bags, which panels, which colours."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.collections import PatchCollection
from PIL import Image

from kd_mil.callbacks.bag_maps import BagMaps, map_figure
from kd_mil.data.bags import Bags
from kd_mil.evaluation.tables import PredictionTables

CORNERS = torch.tensor([[0, 0], [4, 0], [8, 4]])


def bags_and_tables(count=4, labels=(0, 1, -1)):
    """Images of 12x8 pixels with three patches of 4x4 each."""
    bags = Bags(
        instances=torch.zeros(3 * count, 3, 4, 4, dtype=torch.uint8),
        sizes=torch.full((count,), 3),
        labels=torch.arange(count) % 2,
        bag_ids=[f"img{index}" for index in range(count)],
        instance_labels=torch.tensor(labels).repeat(count),
        coords=CORNERS.repeat(count, 1),
    )
    probs = torch.linspace(0, 1, 3 * count).double()
    instances = {"bag": bags.bag_of_instance, "instance": torch.arange(3 * count), "label": bags.instance_labels}
    instances |= {"x": bags.coords[:, 0], "y": bags.coords[:, 1]}
    rows = {"bag": torch.arange(count), "label": bags.labels}
    for role in ("teacher", "student"):
        rows[f"{role}/probs"] = torch.tensor([[0.25, 0.75]]).repeat(count, 1)
        instances[f"{role}/probs"] = probs
    return bags, PredictionTables(rows, instances)


def drawn(axes):
    [collection] = [one for one in axes.collections if isinstance(one, PatchCollection)]
    return collection


def test_panels_are_image_truth_and_roles():
    bags, tables = bags_and_tables()
    figure = map_figure(np.zeros((8, 12, 3), dtype=np.uint8), tables, bags, bag=1)
    panels = figure.axes[:4]
    assert [axes.get_title() for axes in panels] == [
        "img1: positive",
        "truth",
        "teacher: bag 0.75",
        "student: bag 0.75",
    ]
    assert drawn(panels[1]).get_array().tolist() == [0, 1]  # the third label is unknown
    assert drawn(panels[3]).get_array().tolist() == tables.instances["student/probs"][3:6].tolist()
    assert drawn(panels[3]).get_clim() == (0, 1)


def test_patches_of_a_grid_are_squares_in_their_place_and_others_discs():
    bags, tables = bags_and_tables()
    figure = map_figure(np.zeros((8, 12, 3), dtype=np.uint8), tables, bags, bag=0)
    boxes = [path.get_extents().bounds for path in drawn(figure.axes[2]).get_paths()]
    assert boxes == [(-0.5, -0.5, 4, 4), (3.5, -0.5, 4, 4), (7.5, 3.5, 4, 4)]
    tables.instances["x"] = tables.instances["x"] + 1
    figure = map_figure(np.zeros((8, 12, 3), dtype=np.uint8), tables, bags, bag=0)
    centres = [path.get_extents().get_points().mean(0).tolist() for path in drawn(figure.axes[2]).get_paths()]
    assert centres == [pytest.approx([x + 3, y + 2]) for x, y in CORNERS.tolist()]


def test_without_labels_there_is_no_truth():
    bags, tables = bags_and_tables(labels=(-1, -1, -1))
    figure = map_figure(np.zeros((8, 12, 3), dtype=np.uint8), tables, bags, bag=0)
    assert not [axes for axes in figure.axes if axes.get_title() == "truth"]


def test_files_of_the_first_bags_of_each_class(tmp_path):
    bags, tables = bags_and_tables(count=8)
    paths = {}
    for name in bags.bag_ids:
        paths[name] = tmp_path / f"{name}.png"
        Image.fromarray(np.full((8, 12, 3), 200, dtype=np.uint8)).save(paths[name])
    method = SimpleNamespace(tables={"test": tables})
    for found in (None, paths):
        data = SimpleNamespace(bags=bags) if found is None else SimpleNamespace(bags=bags, image_paths=found)
        trainer = SimpleNamespace(datamodule=data, is_global_zero=True, loggers=[], current_epoch=0)
        BagMaps(str(tmp_path / "figures"), per_class=2).on_test_end(trainer, method)
        written = sorted(path.name for path in tmp_path.glob("figures/maps/*"))
        assert written == ([] if found is None else ["img0.png", "img1.png", "img2.png", "img3.png"])
