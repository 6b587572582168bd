"""Bags predicted piece by piece, and a folder of slides that can be interrupted, damaged and changed."""

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kd_mil.callbacks.predictions import instance_frame
from kd_mil.core.errors import UserError
from kd_mil.core.shards import EVERYTHING, Shard
from kd_mil.methods.base.bag_method import BagMethod
from kd_mil.methods.baselines.mil import MIL
from kd_mil.methods.baselines.supervised import Supervised
from kd_mil.methods.weno.weno import WENO
from kd_mil.models.aggregators.transmil import TransMIL
from kd_mil.prediction.behind import Behind
from kd_mil.prediction.inputs import SlideInstances
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.outputs import Model, OutputSettings, instance_table, write_table
from kd_mil.prediction.pipeline import Predictor
from tests.support.slides_in_memory import Bag
from tests.support.tiny import TinyData, fit, no_mining, tiny_abmil, tiny_head, tiny_parts, tiny_splits

TRANSMIL = partial(TransMIL, width=16, heads=2, landmarks=4)
METHODS: dict[str, Callable[[], BagMethod]] = {
    "weno": lambda: WENO(**tiny_parts(), aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining()),
    "weno, two encoders": lambda: WENO(
        **tiny_parts(), aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining(), shared_encoder=False
    ),
    "weno, range of a bag": lambda: WENO(
        **tiny_parts(), aggregator=tiny_abmil(), student_head=tiny_head(), hpm=no_mining(), normalisation="bag"
    ),
    "mil, attention over the bag": lambda: MIL(**tiny_parts(), aggregator=TRANSMIL),
    "supervised": lambda: Supervised(**tiny_parts(), student_head=tiny_head()),
}


@pytest.mark.parametrize("name", METHODS)
def test_pieces_say_what_the_whole_bag_says(name: str) -> None:
    """The test step's own `predict_bags` is the oracle; the cuts do not show."""
    splits = tiny_splits(largest=40)
    method = METHODS[name]()
    fit(method, TinyData(splits))
    method.eval()
    bag = splits.bags.batch(torch.tensor([3]))
    with torch.no_grad():
        whole = method.predict_bags(bag)
    for size in (1, 7, 100):
        pieces = method.predict_pieces(bag.instances.split(size))
        assert pieces.keys() == whole.keys()
        for role, prediction in whole.items():
            assert pieces[role].reading == prediction.reading
            for here, there in zip(pieces[role][:5], prediction[:5], strict=True):
                torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["weno", "mil, attention over the bag", "supervised"])
def test_readings_are_the_columns_of_the_test_step(name: str) -> None:
    """`instances.parquet` of a run is the oracle for the table of the same bag; without the setting there are none."""
    splits = tiny_splits()
    method = METHODS[name]()
    trainer = fit(method, TinyData(splits))
    trainer.test(method, datamodule=TinyData(splits), verbose=False)
    tested = instance_frame(method.tables["test"], splits.bags)
    bag = int(splits.test[0])
    expected = tested[tested.bag_id == splits.bags.bag_ids[bag]].reset_index(drop=True)
    instances = splits.bags.instances[splits.bags.instances_of(splits.test[:1])]
    plain, full = (
        instance_table(method.eval().predict_pieces(instances.split(3), readings), None, len(instances), ["a", "b"])
        for readings in (False, True)
    )
    positions = ["bag_id", "label", "instance_id", "x", "y"]
    assert set(full) - {"tile_size_level0"} == set(expected) - {"bag_id", "label"}
    assert (len(full.columns) > len(plain.columns)) is (name != "supervised")
    for column in set(expected) - set(positions):
        np.testing.assert_allclose(full[column], expected[column], rtol=1e-5, atol=1e-6, err_msg=column)


@pytest.fixture
def predict(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    method = METHODS["weno"]().eval()
    model = Model(
        ["normal", "tumour"], {"teacher": 0.5, "student": 0.5}, {"teacher": 0.5, "student": 0.5}, "weno", "abc"
    )

    def run(
        bags: list[Bag],
        on_error: Any = "skip",
        settings: int = 0,
        overwrite: bool = False,
        shard: Shard = EVERYTHING,
    ) -> list[dict[str, Any]]:
        ledger = Ledger(tmp_path / ".finished", ["abc", settings], overwrite)
        return Predictor(method, model, tmp_path, OutputSettings(), ledger, on_error, shard).run(bags)

    return run


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_every_slide_gets_its_files_and_its_row(predict: Callable, tmp_path: Path) -> None:
    rows = predict([Bag("a", 5), Bag("b", None), Bag("c", 0)])
    assert [row["note"] for row in rows] == ["", "slide 'b' is damaged", "no tissue"]
    table = pd.read_csv(tmp_path / "slides.csv", index_col="slide_id")
    assert table.index.tolist() == ["a", "b", "c"]
    assert table.student_prob.isna().tolist() == [False, True, True]
    assert table.tiles.tolist()[::2] == [5, 0]
    made = {
        "instances/a.parquet",
        "panels/a.js",
        "heatmaps/a_teacher.png",
        "heatmaps/a_student.png",
        "geojson/a.geojson",
    }
    assert names(tmp_path) == made | {"slides.csv", ".finished/a.json", ".finished/c.json"}
    student = pd.read_parquet(tmp_path / "instances" / "a.parquet").student_prob
    assert student.max() == pytest.approx(table.student_prob["a"])


def test_shards_predict_their_parts_and_the_table_is_of_all(predict: Callable, tmp_path: Path) -> None:
    bags = [Bag(f"s{number}", 3) for number in range(8)]
    for index in range(3):
        rows = predict(bags, shard=Shard(index, 3))
        assert [row["slide_id"] for row in rows] == [
            bag.slide_id for bag in bags if Shard(index, 3).holds(bag.slide_id)
        ]
        table = pd.read_csv(tmp_path / "slides.csv")
        assert table.slide_id.tolist() == [bag.slide_id for bag in bags]
        waiting = table.note.astype(str).str.startswith("not predicted yet")
        assert waiting.tolist() == [not any(Shard(i, 3).holds(b.slide_id) for i in range(index + 1)) for b in bags]
    assert [bag.opened for bag in bags] == [1] * 8
    assert table.student_prob.notna().all()


def test_a_rerun_does_only_what_is_missing(predict: Callable, tmp_path: Path) -> None:
    bags = [Bag("a", 5), Bag("b", None), Bag("c", 0)]
    first = predict(bags)
    bags[1].size = 3  # mended
    second = predict([*bags, Bag("d", 2)])
    assert [bag.opened for bag in bags] == [1, 2, 1]
    assert second[0] == json.loads(json.dumps(first[0]))
    assert len(pd.read_csv(tmp_path / "slides.csv").dropna(subset="student_prob")) == 3


@pytest.mark.parametrize("change", ["settings", "input", "overwrite", "lost file"])
def test_what_changed_is_predicted_again(change: str, predict: Callable, tmp_path: Path) -> None:
    bag = Bag("a", 5)
    predict([bag])
    if change == "input":
        bag.version = 1
    if change == "lost file":
        (tmp_path / "geojson" / "a.geojson").unlink()
    predict([bag], settings=int(change == "settings"), overwrite=change == "overwrite")
    assert bag.opened == 2
    assert (tmp_path / "geojson" / "a.geojson").is_file()


def test_stopping_at_an_error_keeps_what_is_done(predict: Callable, tmp_path: Path) -> None:
    last = Bag("c", 5)
    with pytest.raises(UserError, match=r"slide 'b' is damaged \(on_error=skip"):
        predict([Bag("a", 5), Bag("b", None), last], on_error="stop")
    assert pd.read_csv(tmp_path / "slides.csv").slide_id.tolist() == ["a"]
    assert last.opened == 0
    with pytest.raises(UserError, match="on_error=continue: choose skip or stop"):
        predict([last], on_error="continue")


def test_a_probability_that_is_none_is_no_decision(predict: Callable, tmp_path: Path) -> None:
    bag = Bag("a", 5)
    instances = bag.open()
    bag.open = lambda: instances._replace(batches=[torch.full((5, 6), torch.inf)])  # type: ignore[method-assign]
    [row] = predict([bag])
    assert row == {"slide_id": "a", "tiles": None, "note": "a: probabilities of teacher are not finite: no decision"}


def test_what_killed_processes_left_is_removed(predict: Callable, tmp_path: Path) -> None:
    bag = Bag("a", 5)
    predict([bag])
    whole = names(tmp_path)
    for name in ("heatmaps/.a_teacher.png.01234567.part", "instances/.a.parquet.01234567.part", ".slides.csv.0.part"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))  # nobody writes to it any more
    (tmp_path / ".finished" / "a.json").write_text('{"key": "1')  # damaged: the slide is predicted again
    predict([bag])
    assert bag.opened == 2
    assert names(tmp_path) == whole


def test_whatever_one_slide_raises_the_others_are_predicted(predict: Callable) -> None:
    bag = Bag("a", 5)
    bag.open = lambda: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    rows = predict([bag, Bag("b", 5)])
    assert [row["note"] for row in rows] == ["ZeroDivisionError: division by zero", ""]


class Inline(Behind):
    """Writes a slide before the next one is opened."""

    def hold(self, work: Callable[[], None]) -> None:
        work()


def test_files_written_behind_are_those_of_slides_written_one_by_one(
    predict: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bags = [Bag("a", 5), Bag("b", None), Bag("c", 0), Bag("d", 9, seed=1), Bag("e", 4, seed=2)]
    contents = []
    for kind in (Behind, Inline):
        monkeypatch.setattr("kd_mil.prediction.pipeline.Behind", kind)
        rows = predict(bags, overwrite=True)
        contents.append({name: (tmp_path / name).read_bytes() for name in names(tmp_path)} | {"rows": rows})
    assert contents[0] == contents[1]
    assert len(contents[0]) > 15
    assert [row["slide_id"] for row in contents[0]["rows"]] == ["a", "b", "c", "d", "e"]


def test_a_slide_is_written_while_the_next_one_is_computed(predict: Callable, tmp_path: Path) -> None:
    """Never while one is opened, where processes are forked."""
    bags = [Bag("a", 5), Bag("b", 8), Bag("c", 5)]
    written = [tmp_path / ".finished" / f"{bag.slide_id}.json" for bag in bags]
    plain = [bag.open for bag in bags]

    def batches(instances: SlideInstances) -> Iterator[torch.Tensor]:
        one, *others = instances.batches
        assert not written[0].exists()
        yield one
        for _ in range(2000):
            if written[0].exists():
                break
            time.sleep(0.01)
        assert written[0].exists()
        assert not written[1].exists()
        yield from others

    def open_second() -> SlideInstances:
        assert not written[0].exists()
        instances = plain[1]()
        return instances._replace(batches=batches(instances))

    def open_third() -> SlideInstances:
        assert written[0].exists()
        assert not written[1].exists()
        return plain[2]()

    bags[1].open, bags[2].open = open_second, open_third  # type: ignore[method-assign]
    assert [row["note"] for row in predict(bags)] == [""] * 3
    assert written[2].exists()


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_what_cannot_be_written_is_said_as_what_cannot_be_read(
    on_error: str, predict: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(folder: Path, slide_id: str, *rest: Any) -> Path:
        if slide_id == "a":
            raise OSError(28, "No space left on device")
        return write_table(folder, slide_id, *rest)

    monkeypatch.setattr("kd_mil.prediction.pipeline.write_table", full_disk)
    bags = [Bag(name, 5) for name in "abc"]
    if on_error == "stop":
        with pytest.raises(UserError, match=r"No space left on device.* \(on_error=skip leaves it out\)"):
            predict(bags, on_error="stop")
        assert bags[2].opened == 0
        return
    rows = predict(bags)
    assert "No space left" in rows[0]["note"]
    assert [row["note"] for row in rows[1:]] == ["", ""]
    assert not (tmp_path / ".finished" / "a.json").exists()


def test_an_interruption_keeps_what_was_computed(predict: Callable, tmp_path: Path) -> None:
    last = Bag("b", 5)

    def interrupted() -> SlideInstances:
        raise KeyboardInterrupt

    last.open = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        predict([Bag("a", 5), last])
    assert pd.read_csv(tmp_path / "slides.csv").slide_id.tolist() == ["a"]
