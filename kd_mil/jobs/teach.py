"""A model of slides predicts the training slides of a run that learns from it, once for all such runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from kd_mil.cards.loading import checkpoint_path
from kd_mil.core.checks import one_of
from kd_mil.core.errors import UserError
from kd_mil.core.machine.devices import usable_device
from kd_mil.core.machine.gpus import cuda_available
from kd_mil.core.tables import read_table
from kd_mil.prediction.decisions import Model
from kd_mil.prediction.inputs import listed_inputs
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.loading import load_method
from kd_mil.prediction.outputs import OutputSettings
from kd_mil.prediction.pipeline import Predictor

AS_TRAINED = dict.fromkeys(("mpp", "mpp_override", "backend", "outlines", "instances_per_step"))
"""Settings of `kd_mil.predict` that say nothing: the teacher cuts slides as in its training."""


def teach(data: Any, plain: Mapping[str, Any]) -> None:
    """Predict the training slides with `data.teacher`, and hand the tables to the data.

    Slides that stand there from an earlier run are not predicted again; processes of one machine take turns.

    Args:
        data: a data module with `teacher`, `to_teach`, `role`, `cache_dir` and `teach`.
        plain: the configuration of the run.

    Raises:
        UserError: no such checkpoint, one of another kind of method or trained on features, one that was trained on
            slides that are held out here, or a slide that cannot be predicted: what a student is taught must be whole.
    """
    path = checkpoint_path(data.teacher)
    method, card = load_method(path)
    workers = plain["loading"]["num_workers"]
    inputs = listed_inputs(data.to_teach, AS_TRAINED | {"picture_side": 64, "num_workers": workers}, card)
    out = Path(data.cache_dir) / "teachers" / card.checkpoint
    out.mkdir(parents=True, exist_ok=True)
    thresholds = method.thresholds, method.thresholds_of_instances
    model = Model(card.class_names, *thresholds, card.experiment, card.checkpoint)
    one_of("data.role", data.role, method.roles)
    if list(card.class_names) != list(data.class_names):
        raise UserError(f"data.teacher={path} tells {card.class_names} apart, these data {list(data.class_names)}")
    held_out = torch.cat([data.splits.val, data.splits.test]).tolist()
    cases = data.bags.case_ids or data.bags.bag_ids
    refuse_seen(path, {data.bags.bag_ids[bag]: cases[bag] for bag in held_out})
    on_gpu = plain["trainer"]["accelerator"] in ("auto", "gpu", "cuda") and cuda_available()
    method.to(usable_device("cuda" if on_gpu else "cpu"))
    with FileLock(out / ".lock"):
        ledger = Ledger(out / ".finished", [card.checkpoint, "tables"])
        Predictor(method, model, out, OutputSettings(), ledger, "stop", pictures=False).run(inputs)
    data.teach(out)


def refuse_seen(checkpoint: Path, held_out: Mapping[str, str]) -> None:
    """Refuse a teacher whose run trained on cases that validate or test here; a lone checkpoint says nothing of them.

    Args:
        checkpoint: of the teacher.
        held_out: case of each slide, by its id.

    Raises:
        UserError: naming the first slide.
    """
    splits = checkpoint.parent.parent / "splits.csv"
    if not splits.is_file():
        return
    table = read_table(splits, ("bag_id", "split"), ("case_id",))
    table = table[table["split"] == "train"]
    slides, cases = set(table["bag_id"]), set(table["case_id" if "case_id" in table else "bag_id"])
    for name, case in held_out.items():
        if name in slides or case in cases:
            seen = f"slide {name!r}, which" if name in slides else f"case {case!r}, of which slide {name!r}"
            raise UserError(
                f"data.teacher={checkpoint} was trained on {seen} is held out here: give both runs one "
                f"split, data.split_file={splits}"
            )
