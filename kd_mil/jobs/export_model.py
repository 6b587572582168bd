"""A trained model as a folder for other programs, or for the hub."""

import os
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save

from kd_mil.cards.loading import checkpoint_path, load
from kd_mil.core.atomic import require_writable
from kd_mil.core.errors import UserError
from kd_mil.core.exported import CONFIG, README, WEIGHTS
from kd_mil.core.hashing import file_digest
from kd_mil.core.run_files import read_metrics, write_json
from kd_mil.prediction.exporting.facts import facts_of, signatures
from kd_mil.prediction.exporting.files import require_libraries, write_graph
from kd_mil.prediction.exporting.graphs import graphs_of
from kd_mil.prediction.exporting.readme import readme


def main(config: DictConfig) -> None:
    """Write the model of a run in the format asked for, with its card."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    path, out, format = checkpoint_path(plain["ckpt"]), Path(plain["out"]).absolute(), plain["format"]
    require_writable(out)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"out={plain['out']}: is not empty; choose another folder")
    if format != "safetensors":
        require_libraries(format)
    scores = scores_beside(path)
    method = load(path, trust=plain["trust"])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".", suffix=".part") as made:
        folder = Path(made)
        write_model(method, file_digest(path), folder, format, scores, plain["license"])
        for file in sorted(folder.iterdir(), key=lambda file: file.name == CONFIG):  # the one that says what is there
            os.replace(file, out / file.name)
    print(f"{format} in {out}: {', '.join(sorted(file.name for file in out.iterdir()))}")


def write_model(
    method: Any, checkpoint: str, folder: Path, format: str, scores: dict[str, float | None], license: str | None
) -> None:
    """Write weights or graphs, `config.json` and `README.md`."""
    facts = facts_of(method, checkpoint, format)
    if format == "safetensors":
        (folder / WEIGHTS).write_bytes(save({name: value.contiguous() for name, value in method.state_dict().items()}))
    else:
        graphs = graphs_of(method)
        for graph in graphs:
            write_graph(graph, folder, format)
        facts = facts | {"graphs": signatures(graphs)}
    write_json(folder / CONFIG, facts)
    (folder / README).write_text(readme(facts, scores, license))


def scores_beside(path: Path) -> dict[str, float | None]:
    """Scores of the run that a checkpoint lies in; empty for a checkpoint alone."""
    metrics = path.parent.parent / "metrics.json"
    return read_metrics(metrics) if path.parent.name == "checkpoints" and metrics.is_file() else {}
