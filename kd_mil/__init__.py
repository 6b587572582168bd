"""Weakly supervised knowledge distillation for computational pathology."""

import signal
import sys
from importlib import import_module
from typing import Any, NoReturn


def _leave(signum: int, frame: object) -> NoReturn:
    print("stopped by Ctrl-C: nothing lost, the same command resumes", file=sys.stderr)
    raise SystemExit(128 + signum)


# `python -m kd_mil.COMMAND` imports this first, then libraries for seconds; `command` takes over from there.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)


# What a library user needs, by the module that has it.
EXPORTS = {
    "cards.loading": ["load"],
    "core.version": ["__version__"],
    "data.bags": ["Bags"],
    "data.datamodules": ["Loading"],
    "data.features.feature_bags": ["FeatureBags"],
    "data.in_memory": ["InMemoryBags"],
    "data.single_bags": ["Bag"],
    "data.tiles.slides": ["SlideBags"],
    "methods.baselines.cam": ["CAM"],
    "methods.baselines.mhim": ["MHIM"],
    "methods.baselines.mil": ["MIL"],
    "methods.baselines.rnn_mil": ["RNNMIL"],
    "methods.baselines.supervised": ["Supervised"],
    "methods.distill_to_label.distill_to_label": ["DistillToLabel"],
    "methods.ifkd.ifkd": ["IFKD"],
    "methods.resolution.resolution": ["ResolutionDistillation"],
    "methods.sela_mil.sela_mil": ["SeLaMIL"],
    "methods.weno.mining": ["HardPositiveMining"],
    "methods.weno.weno": ["WENO"],
    "models.aggregators.abmil": ["ABMIL"],
    "models.aggregators.acmil": ["ACMIL"],
    "models.aggregators.chi_mil": ["ChiMIL"],
    "models.aggregators.clam": ["CLAM"],
    "models.aggregators.dsmil": ["DSMIL"],
    "models.aggregators.dtfd": ["DTFD"],
    "models.aggregators.loss_abmil": ["LossABMIL"],
    "models.aggregators.transmil": ["TransMIL"],
    "models.encoders.small": ["FeatureProjector", "Identity"],
    "models.heads": ["InstanceHead"],
    "models.outputs": ["Prediction"],
    "models.preprocess": ["Preprocess"],
    "prediction.folder": ["Predictions"],
}
MODULES = ("evaluate", "extract", "plot", "predict")
"""Imported when asked for; the commands among them may be called: `kd_mil.predict(ckpt=RUN, slides=DIR, out=DIR)`."""
HOMES = {name: f"kd_mil.{module}" for module, names in EXPORTS.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for; `import kd_mil` alone imports none of it."""
    if name in MODULES:
        return import_module(f"kd_mil.{name}")
    if name not in HOMES:
        raise AttributeError(f"module 'kd_mil' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*HOMES, *MODULES])
