"""A trained method on slides never seen."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_mil.core.atomic import require_writable
from kd_mil.core.checkpoints import read_with_card
from kd_mil.core.errors import UserError
from kd_mil.core.machine.devices import usable_device
from kd_mil.core.machine.processes import reading_processes
from kd_mil.core.shards import Shard, shard_of
from kd_mil.core.tables import require_columns
from kd_mil.jobs.evaluate import Evaluation, evaluate
from kd_mil.methods.base.image_method import ImageMethod
from kd_mil.prediction.case_bags import CasePredictor
from kd_mil.prediction.cases import write_cases
from kd_mil.prediction.console import one_line_warnings, print_results
from kd_mil.prediction.decisions import Model
from kd_mil.prediction.feature_inputs import feature_inputs
from kd_mil.prediction.image_inputs import image_files, slides_of_pieces
from kd_mil.prediction.image_model import image_model, write_image_model
from kd_mil.prediction.inputs import slide_inputs
from kd_mil.prediction.ledger import Ledger
from kd_mil.prediction.loading import is_made_by
from kd_mil.prediction.members import checkpoints_of, loaded, model_of, write_model
from kd_mil.prediction.outputs import OutputSettings
from kd_mil.prediction.pipeline import Predictor
from kd_mil.reporting.cohort.scores import require_groups
from kd_mil.reporting.cohort.table import label_index
from kd_mil.reporting.prediction_page import write_prediction_page
from kd_mil.slides.formats.reader import reader_class
from kd_mil.slides.overlays.score_grid import shades
from kd_mil.slides.slide_labels import read_labels

OF_IMAGES = ("images", "role", "read_from", "pooling")
"""Settings for checkpoints of methods on images alone."""
OF_BAGS = ("features", "outlines", "tile_size_level0", "operating_point", "calibrated", "bag_by")
"""Settings for checkpoints of methods on bags alone."""
UNUSED = (None, False, "slide")
"""Their values where they ask for nothing."""


def main(config: DictConfig) -> None:
    """Predict every slide asked for, and end with a table of them."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    out, shard = Path(plain["out"]), shard_of(plain["shard"], plain["shards"])
    if plain["backend"] is not None:
        reader_class(plain["backend"])  # refuses an unknown one
    require_writable(out)
    if plain["num_workers"] is None:
        plain["num_workers"] = reading_processes(usable_device(plain["device"]).type)
    with one_line_warnings():
        path = image_checkpoint(plain)
        prepare = prepared(plain, out, shard) if path is None else prepared_images(plain, path, out, shard)
        with prepare as (predictor, inputs):
            try:
                rows = predictor.run(inputs)
            finally:  # an interrupted prediction has its page over what there is
                page = write_page(out)
                if path is not None:
                    write_cases(predictor, inputs)
            said = f"decided by the {predictor.model.decides} at operating_point={predictor.model.operating_point}"
        print_results(rows, out)
        print(said)
        if page is not None:
            print(f"to look at them: {page}, or python -m kd_mil.view predictions={out}")
    if plain["labels"] is not None and any(row["tiles"] for row in rows):
        asked = ("labels", "report_by", "case_pooling", "subgroups")
        evaluate(out, out / "evaluation", Evaluation(**{name: plain[name] for name in asked}))
    if rows and all(row["tiles"] is None for row in rows):
        more = f" ({len(rows) - 1} more failed, too)" if len(rows) > 1 else ""
        raise UserError(f"no slide could be read: {rows[0]['note']}{more}")


def write_page(out: Path) -> Path | None:
    """The page over all slides that `slides.csv` lists; None where there is no such table yet."""
    if not (out / "slides.csv").is_file():
        return None
    return write_prediction_page(out, "slides.csv", "slide_id", f"Predictions: {out.absolute().name}", shades())


def image_checkpoint(plain: Mapping[str, Any]) -> Path | None:
    """The checkpoint, if it is one of a method on images; None of methods on bags, and of ensembles, which are.

    Raises:
        UserError: no checkpoint, or settings that it has no use for.
    """
    paths = checkpoints_of(plain["ckpt"])
    on_images = len(paths) == 1 and is_made_by(read_with_card(paths[0])["model_card"], ImageMethod)
    for name in OF_BAGS if on_images else OF_IMAGES:
        if plain[name] not in UNUSED:
            kind = "bags" if on_images else "images"
            raise UserError(f"{name}={plain[name]}: only for checkpoints of methods on {kind}; leave it out")
    return paths[0] if on_images else None


@contextmanager
def prepared(plain: Mapping[str, Any], out: Path, shard: Shard) -> Iterator[tuple[Predictor, Any]]:
    """The trained method, ready to write its predictions, and what there is to predict."""
    settings = output_settings(plain)
    method, card = loaded(plain["ckpt"], plain["trust"])
    opened = feature_inputs(plain, card) if plain["features"] is not None else nullcontext(slide_inputs(plain, card))
    model = model_of(method, card, plain["operating_point"], plain["calibrated"])
    how = [card.checkpoint, repr(settings), plain["picture_side"], plain["operating_point"], plain["calibrated"]]
    if plain["bag_by"] == "case" and plain["labels"] is not None and plain["report_by"] != "case":
        raise UserError("bag_by=case: what is said is said of cases, so labels are compared by case: report_by=case")
    ledger = Ledger(out / ".finished", how, plain["overwrite"])
    method.to(usable_device(plain["device"]))
    with opened as inputs:
        labels = labels_of(plain, [item.slide_id for item in inputs], model.class_names)
        write_model(out, method, model)
        kind = CasePredictor if plain["bag_by"] == "case" else Predictor
        yield kind(method, model, out, settings, ledger, plain["on_error"], shard, labels), inputs


@contextmanager
def prepared_images(plain: Mapping[str, Any], path: Path, out: Path, shard: Shard) -> Iterator[tuple[Predictor, Any]]:
    """As `prepared`, of a method on images, which is asked about the pieces of slides, or about image files."""
    if (plain["slides"] is None) == (plain["images"] is None):
        raise UserError("give slides=FOLDER (or a CSV) or images=FOLDER, one of them")
    unit = "slide" if plain["images"] is None else "image"
    if plain["labels"] is not None and unit == "image":
        raise UserError("labels= are those of slides: leave it out with images=")
    found = image_model(path, role=plain["role"], pooling=plain["pooling"], trust=plain["trust"])
    inputs: Any = slides_of_pieces(plain, found) if unit == "slide" else image_files(plain, found)
    labels = labels_of(plain, [item.slide_id for item in inputs], found.class_names)
    thresholds, settings = found.thresholds, output_settings(plain)
    model = Model(found.class_names, thresholds, thresholds, found.experiment, found.checkpoint, found.role, "0.5")
    facts = [found.checkpoint, repr(settings), plain["picture_side"], found.role, found.pooling]
    ledger = Ledger(out / ".finished", facts, plain["overwrite"])
    found.method.to(usable_device(plain["device"]))
    write_image_model(out, found)
    yield Predictor(found, model, out, settings, ledger, plain["on_error"], shard, labels, unit), inputs


def output_settings(plain: Mapping[str, Any]) -> OutputSettings:
    """How predictions are written."""
    return OutputSettings(**{field.name: plain[field.name] for field in fields(OutputSettings)})


def labels_of(plain: Mapping[str, Any], slide_ids: Sequence[str], class_names: Sequence[str]) -> dict[str, str]:
    """Labels by slide id from the table of `labels`, which must serve the evaluation that follows.

    Raises:
        UserError: as `read_labels`; a label that is no class of the model, none at all, or no column for a subgroup.
    """
    path = plain["labels"]
    if path is None:
        return {}
    table = read_labels(path, list(slide_ids), "slides")
    require_columns(table, ("label",), path)
    require_groups(plain["subgroups"], table.columns.drop(["slide_id", "label", "case_id"], errors="ignore"))
    rows = zip(table.index, table["slide_id"], table["label"], strict=True)
    labels = {slide_id: (label, f"{path}, line {line}") for line, slide_id, label in rows if label}
    if not labels:
        raise UserError(f"{path}: no slide has a label")
    for label, where in labels.values():
        label_index(label, class_names, where)
    return {slide_id: label for slide_id, (label, _) in labels.items()}
