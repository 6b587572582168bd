"""What the campaign of killed training runs kills: every method, two ranks, a sweep; each a few seconds long."""

from collections.abc import Sequence
from dataclasses import dataclass

DIGITS = ("data=digits_mil", "data.max_train_bags=20", "data.max_test_bags=10", "encoder=tiny_cnn")
SHORT = ("trainer.max_epochs=5", "instances_per_step=64")
GLANDS = (
    *("data.image_size=32", "data.train_images=12", "data.val_images=6", "data.test_images=6"),
    *("instances_per_step=3", "segmenter.widths=[4,6,8]"),
)
PICTURES = (
    *("data=paired_images", "data.root=../pictures", "data.images_per_step=8", "method.network.stem=small"),
    *("method.network.width=8", "method.network.groups=4"),
)
TAUGHT = (
    *("data.slides=../slides/slides.csv", "data.classes=[normal,tumour]", "data.teacher=../slides/weno.ckpt"),
    *("tiling.magnification=null", "tiling.mpp=4", "tiling.tile_size=16", "tissue.mpp=4", "tissue.min_area_um2=0"),
    *("paths.cache_dir=../slides/cache", "encoder=tiny_cnn", "method.aggregator=${aggregator}", "cost_of=0"),
)
SWITCHES = (
    *("method.teacher_epochs=2", "method.switch.rule=periodic", "method.switch.student_reinit=fresh"),
    *("method.switch.first=2", "method.switch.period=2", "trainer.max_epochs=6"),
)
SWEPT = ("trainer=cpu", "sweep.parallel=2", "sweep.attempts=4")
TWO_RANKS = ("trainer=ddp_cpu",)


@dataclass(frozen=True)
class Job:
    """A command that is killed."""

    settings: Sequence[str]
    processes: bool = False
    """Whether it starts others, for which it must be a command of its own and no fork of the campaign."""


def _bags(experiment: str, *more: str) -> Job:
    return Job((f"experiment={experiment}", *DIGITS, *SHORT, *more, "hydra.run.dir=out"))


def _phases(experiment: str, *settings: str) -> Job:
    return Job((f"experiment={experiment}", *settings, "hydra.run.dir=out"))


def _sweep(experiment: str, *swept: str) -> Job:
    return Job(("-m", f"experiment={experiment}", *DIGITS, *SHORT, *SWEPT, *swept), processes=True)


D2L = _phases(
    "d2l_mnist", *DIGITS, "method.teacher_epochs=2", "method.student_epochs=2", "method.rounds=2", "trainer=cpu"
)
RESOLUTION = _phases(
    *("resolution_kd", *PICTURES, "method.teacher_epochs=2", "method.student_epochs=2", "cost_of=0"),
    *("method.finetune_epochs=2", "method.finetune=on", "trainer=cpu"),
)
JOBS: dict[str, Job] = {
    "weno": _bags("weno_dsmil", "hpm.start_epoch=2", "trainer=cpu"),
    "weno_multiclass": _phases("weno_multiclass", "loading.limit_bags=20", "trainer.max_epochs=4", "trainer=cpu"),
    "weno_transport": _bags("weno_transport", "aggregator=abmil", "trainer=cpu"),
    "dmkd_style": _bags("dmkd_style", "method.feedback.low=0.5", "method.feedback.high=0.51", "trainer=cpu"),
    "sela_mil": _bags("sela_mil", "method.mass=mixture", "trainer=cpu"),
    "mil": _bags("mil_gated_abmil", "preprocess=tissue", "aggregator.dropout=0.3", "trainer=cpu"),
    "mhim": _bags("mhim_abmil", "trainer=cpu"),
    "rnn_mil": _phases("rnn_mil", *DIGITS, "instances_per_step=64", "phase_epochs=2", "trainer=cpu"),
    "supervised": _bags("supervised", "trainer=cpu"),
    "ins": _bags("ins", "method.queue=100", "method.warm_up=1", "trainer=cpu"),
    "distill_to_label": D2L,
    "ifkd": _phases("ifkd_vgg", *GLANDS, *SWITCHES, "trainer=cpu"),
    "cam": _phases("cam_baseline", *GLANDS, "trainer.max_epochs=4", "trainer=cpu"),
    "oeem_style": _phases("oeem_style", *GLANDS, "phase_epochs=2", "trainer=cpu"),
    "oaa_style": _phases("oaa_style", *GLANDS, "phase_epochs=2", "trainer=cpu"),
    "unet": _phases("unet_supervised", *GLANDS[:-1], "segmenter.stages=[0,1]", "trainer.max_epochs=4", "trainer=cpu"),
    "resolution": RESOLUTION,
    "low_magnification": _phases("resolution_weno", *TAUGHT, "trainer.max_epochs=5", "trainer=cpu"),
    "weno_two_ranks": Job(_bags("weno_abmil", "hpm.start_epoch=2", *TWO_RANKS).settings, processes=True),
    "ifkd_two_ranks": Job(_phases("ifkd_vgg", *GLANDS, *SWITCHES, *TWO_RANKS).settings, processes=True),
    "sweep": _sweep("mil_max", "seed=0,1,2,3"),
}
"""By name; a new method adds a line."""
