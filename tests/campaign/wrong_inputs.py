"""The campaign of wrong settings: `python -m tests.campaign.wrong_inputs [work=DIR] [only=WORD] [record=FOLDER]`.

Each is what somebody may type; each must end with exit code 2 and one line that names what is wrong, within seconds,
and leave nothing behind but an empty folder. Verdicts are written down one by one: an interrupted campaign resumes.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from tests.campaign import models, runner
from tests.campaign.cases import Result
from tests.campaign.faults import Verdict, general
from tests.campaign.inputs.features import hdf5
from tests.campaign.inputs.pictures import good
from tests.campaign.record import write_record
from tests.support.tiny_images import write_image

LIMIT = 60.0
"""Seconds."""
DIGITS = ("data=digits_mil", "data.max_train_bags=20", "data.max_test_bags=10", "trainer=cpu", "trainer.max_epochs=1")
BAGS = ("experiment=mil_abmil", *DIGITS, "hydra.run.dir=out")
FEATURES = ("experiment=mil_abmil", "data=feature_bags", "encoder=features", "preprocess=features", *DIGITS[-2:])


class Mistake(NamedTuple):
    """Something typed wrong."""

    command: str
    typed: tuple[str, ...]
    """The settings that are wrong; what is right beside them is added by `settings`."""
    words: str
    """What the line must hold."""
    alone: bool = False
    """Whether nothing is added."""

    @property
    def settings(self) -> tuple[str, ...]:
        if self.alone:
            return (*self.typed, "hydra.run.dir=out")
        before = {"run": BAGS, "predict": ("out=out",), "segment": ("out=out",), "extract": ("out=out",)}
        return (*before.get(self.command, ()), *self.typed)


ANYWHERE = (
    ("--slides", "y"),
    ("--seed=1",),
    ("-o", "out"),
    ("+shade=x",),
    ("nonsense=3",),
    ("seed",),
    ("hydra.nonsense=1",),
)
"""Refused by every command."""
RUN = {
    "epochs=3": "trainer.max_epochs",
    "lr=0.1": "optimizer.lr",
    "treshold=0.5": "threshold",
    "num_workers=2": "loading.num_workers",
    "experiment=weno_dmsil": "weno_dsmil",
    "--experiment=weno_dsmil": "experiment=weno_dsmil",
    "aggregator=gated": "gated_abmil",
    "data=digit_mil": "digits_mil",
    "trainer=gpus": "gpu",
    "optimizer=sdg": "sgd",
    "+sweep.trails=3": "sweep.trials",
    "++extra=1": "extra",
    "seed=-1": "seed=-1",
    "seed=1.5": "seed",
    "seed=one": "seed",
    "seed=null": "seed",
    "trainer.max_epochs=0": "trainer.max_epochs=0",
    "trainer.max_epochs=-5": "max_epochs",
    "trainer.max_epochs=many": "trainer.max_epochs=many",
    "trainer.threads=0": "trainer.threads=0",
    "trainer.threads=two": "trainer.threads=two",
    "trainer.devices=0": "devices",
    "trainer.precision=33": "precision",
    "trainer.accelerator=gpu": "GPU",
    "trainer.accelerator=tpux": "tpux",
    "optimizer.lr=fast": "optimizer.lr=fast",
    "optimizer.lr=-1": "learning rate",
    "optimizer.lr=null": "optimizer.lr=null",
    "optimizer.weight_decay=-1": "weight_decay",
    "lr_decay=cosin": "cosine",
    "select=first": "select=first",
    "monitor=val/model/bag_los": "bag_los",
    "monitor=test/model/bag_loss": "test",
    "monitor=val/model/instance_auroc": "instance",
    "monitor_mode=up": "up",
    "loading.num_workers=-1": "loading.num_workers=-1",
    "bags_per_step=0": "bags_per_step",
    "bags_per_step=two": "bags_per_step=two",
    "instances_per_step=-3": "instances_per_step",
    "max_instances_per_step=0": "max_instances_per_step",
    "loading.resident_gib=much": "resident_gib",
    "data.positive_ratio=2": "positive_ratio",
    "data.max_train_bags=0": "limit of 0 bags",
    "data.bag_length=-1": "bag_length",
    "data.positive_classes=9": "positive_classes",
    "data.positive_classes=[99]": "99",
    "method.gradient_clip=high": "gradient_clip",
    "aggregator.dropout=3": "dropout",
    "aggregator.hidden=wide": "hidden",
    "encoder._target_=no.such.Thing": "no.such",
    "ckpt_path=missing.ckpt": "missing.ckpt",
    "hydra.run.dir=/proc/nowhere": "hydra.run.dir",
    "hydra.run.dir=in/empty.csv": "in/empty.csv",
    "aggregator=3": "aggregator=3",
    "paths.data_dir=3": "",
    "callbacks.decay.shape=round": "round",
    "debug=one_bach": "one_batch",
    "ckpt_path=3": "ckpt_path=3",
    "overwrite=perhaps": "overwrite=perhaps",
    "monitor=3": "monitor=3",
    "phase_epochs=few": "phase_epochs=few",
}
"""Of training; the value is what the line must name (nothing: either way is right)."""
OTHERS: dict[str, dict[str, str]] = {
    "predict": {
        "out=out": "ckpt",
        "ckpt=missing.ckpt": "missing.ckpt",
        "ckpt=@features": "features",
        "ckpt=@masks features=in/features": "kd_mil.segment",
        "ckpt=@features features=nowhere": "nowhere",
        "ckpt=@features features=in/features num_workers=-1": "num_workers",
        "ckpt=@features features=in/features device=cudo": "device",
        "ckpt=@features features=in/features table=xlsx": "table",
        "ckpt=@features features=in/features region_threshold=5": "region_threshold",
        "ckpt=@features features=in/features picture_side=0": "picture_side",
        "ckpt=@features features=in/features on_error=ignore": "on_error",
        "ckpt=in features=in/features": "in",
        "ckpt=@features features=in/features trust=perhaps": "trust=perhaps",
        "ckpt=@features features=in/features mpp=fine": "mpp=fine",
    },
    "segment": {
        "images=in/images": "ckpt",
        "ckpt=@masks": "images",
        "ckpt=@masks images=nowhere": "nowhere",
        "ckpt=@features images=in/images": "kd_mil.predict",
        "ckpt=@masks images=in/images threshold=2": "threshold",
        "ckpt=@masks images=in/images overlap=1": "overlap",
        "ckpt=@masks images=in/images role=pupil": "role",
        "ckpt=@masks images=in/images batch_size=0": "batch_size",
        "ckpt=@masks images=in/images reduce=0": "reduce",
        "ckpt=@masks images=in/images scale=big": "scale=big",
        "ckpt=@masks images=in/images tolerance=fine": "tolerance=fine",
    },
    "extract": {
        "out=x": "slides",
        "slides=nowhere": "nowhere",
        "slides=in/slides tiling=20": "tiling",
        "slides=in/slides tiling.mpp=-1": "mpp",
        "slides=in/slides batch_size=0": "batch_size",
        "slides=in/slides num_workers=few": "num_workers",
        "slides=in/slides backend=openslid": "openslide",
        "slides=in/slides precision=half": "precision",
        "slides=in/slides negatives_known=maybe": "negatives_known=maybe",
        "slides=in/slides mpp_override=fine": "mpp_override=fine",
        "slides=in/slides seed=one": "seed=one",
        "slides=in/slides encoder=timm encoder.name=resnet81": "resnet",
    },
    "export": {
        "out=out": "features",
        "features=in/features format=clam": "out",
        "features=in/features format=csv out=out": "format",
        "features=nowhere format=clam out=out": "nowhere",
        "features=in/features format=torchmil out=out tumour_threshold=7": "tumour_threshold",
        "features=in/features format=torchmil out=out classes=tumour": "classes=tumour",
    },
    "report": {
        "seed=1": "folder",
        "nowhere": "nowhere",
        "in": "run.json",
        "in resamples=0": "resamples",
        "in seed=one": "seed",
        "in metrics=3": "metrics",
    },
    "frontier": {
        "runs=nowhere/*": "nowhere",
        "metric=acuracy": "accuracy",
        "within=200": "within",
        "cost=money": "cost",
        "within=much": "within=much",
    },
    "doctor": {"smoke=maybe": "smoke=maybe", "smoke_seconds=long": "smoke_seconds=long"},
}


def mistakes() -> Iterator[Mistake]:
    """All of them."""
    for command in runner.COMMANDS:
        for typed in ANYWHERE:
            yield Mistake(command, typed, "" if command == "report" else typed[0].lstrip("-+").partition("=")[0])
    for typed, words in RUN.items():
        yield Mistake("run", (typed,), words)
    for command, cases in OTHERS.items():
        for typed, words in cases.items():
            yield Mistake(command, tuple(typed.split()), words)
    for name, _, words in BROKEN_MANIFESTS:
        yield Mistake(
            "run", (*FEATURES, "data.classes=[normal,tumour]", f"data.manifest=in/{name}.csv"), words, alone=True
        )


BROKEN_MANIFESTS = (
    ("one_label", "slide_id,label,feature_path\n" + "".join(f"s{i},tumour,s.h5\n" for i in range(9)), "label"),
    ("no_label", "slide_id,label,feature_path\ns0,,s.h5\ns1,tumour,s.h5\n", "label"),
    ("no_column", "slide_id,feature_path\ns0,s.h5\n", "label"),
    ("no_rows", "slide_id,label,feature_path\n", "no_rows"),
    ("empty", "", "empty"),
    ("missing_features", "slide_id,label,feature_path\ns0,normal,gone.h5\ns1,tumour,gone.h5\n", "gone.h5"),
    ("missing", "", "missing"),
)
"""Name, text (nothing: no such file, or an empty one) and what the line must name."""


def write_inputs(folder: Path) -> None:
    """Broken manifests, and a good slide, image and feature file: what is wrong is the setting."""
    for name in ("slides", "images", "features"):
        (folder / name).mkdir(parents=True)
    good(folder / "slides" / "good.svs")
    write_image(folder / "images" / "good.png", size=(32, 32))
    hdf5()(folder / "features" / "good.h5")
    for name, text, _ in BROKEN_MANIFESTS:
        if name != "missing":
            (folder / f"{name}.csv").write_text(text)


def judged(mistake: Mistake, result: Result) -> list[str]:
    """Complaints; none where one line names the mistake and nothing was written."""
    complaints = general(result)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    if not complaints and mistake.words and (result.code != 2 or len(lines) != 1):
        complaints.append(f"exit code {result.code} with {len(lines)} lines of error: {result.last_line}")
    if lines and mistake.words.lower() not in lines[0].lower():
        complaints.append(f"does not name {mistake.words}: {lines[0][:200]}")
    left = [path for path in result.out.rglob("*") if path.is_file() and path.name != ".lock"]
    if left and result.code == 2:
        complaints.append(f"left {left[0].name} behind")
    return complaints


class Campaign:
    """Runs mistakes in `work`; `verdicts.jsonl` there remembers those that are over."""

    def __init__(self, work: Path, only: str = "") -> None:
        self.work, self.only, self.memory = work, only, work / "verdicts.jsonl"
        work.mkdir(parents=True, exist_ok=True)
        runner.load_commands()
        self.checkpoints = models.train_all(work.with_name("faults_models"))
        lines = self.memory.read_text().splitlines() if self.memory.is_file() else []
        self.verdicts = [Verdict(**json.loads(line)) for line in lines]

    def run(self) -> list[Verdict]:
        known = {verdict.name for verdict in self.verdicts}
        for mistake in mistakes():
            name = f"{mistake.command} {' '.join(mistake.typed)}"
            if name in known or self.only not in name:
                continue
            folder = self.work / "case"
            shutil.rmtree(folder, ignore_errors=True)
            write_inputs(folder / "in")
            result = runner.run(mistake.command, folder, self._filled(mistake.settings), folder, LIMIT)
            verdict = Verdict(name, "wrong settings", mistake.command, judged(mistake, result), result.seconds)
            self.verdicts.append(verdict)
            with self.memory.open("a") as file:
                file.write(json.dumps(asdict(verdict)) + "\n")
            if verdict.complaints:
                print(f"{name}: {'; '.join(verdict.complaints)}", flush=True)
        return self.verdicts

    def _filled(self, settings: Sequence[str]) -> list[str]:
        return [
            f"ckpt={self.checkpoints[text.removeprefix('ckpt=@')]}" if text.startswith("ckpt=@") else text
            for text in settings
        ]


def main(arguments: Sequence[str]) -> int:
    settings = dict(text.split("=", 1) for text in arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(settings.get("work", temporary)).absolute() / "wrong_inputs"
        verdicts = Campaign(work, settings.get("only", "")).run()
        if "record" in settings:
            write_record(Path(settings["record"]) / "wrong_inputs.json", verdicts, work)
    wrong = [verdict for verdict in verdicts if verdict.complaints]
    print(f"{len(verdicts) - len(wrong)} of {len(verdicts)} wrong settings answered with one line")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
