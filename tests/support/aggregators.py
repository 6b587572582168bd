"""Every aggregator, small; in evaluation where its training is random."""

from functools import partial

from kd_mil.models.aggregators.abmil import ABMIL
from kd_mil.models.aggregators.acmil import ACMIL
from kd_mil.models.aggregators.chi_mil import ChiMIL
from kd_mil.models.aggregators.clam import CLAM
from kd_mil.models.aggregators.dsmil import DSMIL
from kd_mil.models.aggregators.dtfd import DTFD
from kd_mil.models.aggregators.loss_abmil import LossABMIL
from kd_mil.models.aggregators.pooling import Max, Mean
from kd_mil.models.aggregators.transmil import TransMIL

WIDTH = 6
PLAIN_CLAM = {"hidden": (8,), "attention_dim": 5, "dropout": 0.0, "clustered": 3}
SMALL = {"width": 16, "heads": 4, "landmarks": 9, "dropout": 0.0}
UNORDERED = {
    "mean": Mean,
    "max": Max,
    "abmil": partial(ABMIL, hidden=(8,), attention_dim=5),
    "abmil of the features": partial(ABMIL, hidden=(), attention_dim=5),
    "gated abmil": partial(ABMIL, hidden=(8, 7), attention_dim=5, gated=True),
    "dsmil": partial(DSMIL, attention_dim=5),
    "dsmil, linear": partial(DSMIL, hidden=(8, 7), attention_dim=5, query="linear", value="linear"),
    "dsmil, relu values": partial(DSMIL, attention_dim=5, value="relu"),
    "clam-sb": partial(CLAM, **PLAIN_CLAM),
    "clam-mb": partial(CLAM, branches="multi", subtyping=True, **PLAIN_CLAM),
    "loss abmil": partial(LossABMIL, hidden=(8,)),
    "acmil": partial(ACMIL, hidden=(8,), attention_dim=5, branches=3, mask_share=0.0),
    "chi-mil": partial(ChiMIL, width=8, top=4),
}


def evaluated(factory):
    """In evaluation: DTFD's pseudo-bags are random in training, and made by position in evaluation."""
    return lambda **settings: factory(**settings).eval()


SMALL_DTFD = partial(DTFD, hidden=(8,), attention_dim=5, pseudo_bags=3)


AGGREGATORS = UNORDERED | {
    "transmil": partial(TransMIL, **SMALL),
    "transmil, padded": partial(TransMIL, exact_small_bags=False, **SMALL),
    "dtfd": evaluated(SMALL_DTFD),
    "dtfd, instances": evaluated(partial(SMALL_DTFD, distil="maxmins", instances_per_bag=2)),
}
