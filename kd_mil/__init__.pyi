"""What the library offers, for type checkers and editors; `__init__.py` reads its names here."""

from typing import NoReturn

from kd_mil import plot as plot
from kd_mil.cards.loading import load as load
from kd_mil.cli.from_python import CallableCommand
from kd_mil.core.errors import UserError as UserError
from kd_mil.core.version import __version__ as __version__
from kd_mil.data.bags import Bags as Bags
from kd_mil.data.features.feature_bags import FeatureBags as FeatureBags
from kd_mil.data.in_memory import InMemoryBags as InMemoryBags
from kd_mil.data.loading import Loading as Loading
from kd_mil.data.masks.patch_masks import PatchMasks as PatchMasks
from kd_mil.data.pairs.paired_images import ImageFolders as ImageFolders
from kd_mil.data.single_bags import Bag as Bag
from kd_mil.data.tiles.slides import SlideBags as SlideBags
from kd_mil.evaluation.map_reading import MapReading as MapReading
from kd_mil.methods.baselines.cam import CAM as CAM
from kd_mil.methods.baselines.mhim import MHIM as MHIM
from kd_mil.methods.baselines.mil import MIL as MIL
from kd_mil.methods.baselines.rnn_mil import RNNMIL as RNNMIL
from kd_mil.methods.baselines.supervised import Supervised as Supervised
from kd_mil.methods.distill_to_label.distill_to_label import DistillToLabel as DistillToLabel
from kd_mil.methods.distill_to_label.vat import VAT as VAT
from kd_mil.methods.distill_to_label.weights import Distillation as Distillation
from kd_mil.methods.ifkd.ifkd import IFKD as IFKD
from kd_mil.methods.ifkd.role_switch import RoleSwitch as RoleSwitch
from kd_mil.methods.ifkd.stage_two import PixelCrossEntropy as PixelCrossEntropy
from kd_mil.methods.ins.ins import INS as INS
from kd_mil.methods.resolution.pair_augment import PairAugment as PairAugment
from kd_mil.methods.resolution.pair_loss import PairLoss as PairLoss
from kd_mil.methods.resolution.resolution import ResolutionDistillation as ResolutionDistillation
from kd_mil.methods.sela_mil.sela_mil import SeLaMIL as SeLaMIL
from kd_mil.methods.weno.correction import LabelCorrection as LabelCorrection
from kd_mil.methods.weno.feedback import StudentFeedback as StudentFeedback
from kd_mil.methods.weno.mining import HardPositiveMining as HardPositiveMining
from kd_mil.methods.weno.multiclass import MultiClassWENO as MultiClassWENO
from kd_mil.methods.weno.transport_labels import TransportLabels as TransportLabels
from kd_mil.methods.weno.weno import WENO as WENO
from kd_mil.models.aggregators.abmil import ABMIL as ABMIL
from kd_mil.models.aggregators.acmil import ACMIL as ACMIL
from kd_mil.models.aggregators.chi_mil import ChiMIL as ChiMIL
from kd_mil.models.aggregators.clam import CLAM as CLAM
from kd_mil.models.aggregators.dsmil import DSMIL as DSMIL
from kd_mil.models.aggregators.dtfd import DTFD as DTFD
from kd_mil.models.aggregators.loss_abmil import LossABMIL as LossABMIL
from kd_mil.models.aggregators.pooling import Max as Max
from kd_mil.models.aggregators.pooling import Mean as Mean
from kd_mil.models.aggregators.torchmil_adapter import TorchMIL as TorchMIL
from kd_mil.models.aggregators.transmil import TransMIL as TransMIL
from kd_mil.models.encoders.conv_stack import ConvStack as ConvStack
from kd_mil.models.encoders.small import AlexNetCifar as AlexNetCifar
from kd_mil.models.encoders.small import FeatureProjector as FeatureProjector
from kd_mil.models.encoders.small import Identity as Identity
from kd_mil.models.encoders.small import LeNet5 as LeNet5
from kd_mil.models.encoders.small import SmallCNN as SmallCNN
from kd_mil.models.encoders.timm_encoder import TimmEncoder as TimmEncoder
from kd_mil.models.heads import InstanceHead as InstanceHead
from kd_mil.models.outputs import Prediction as Prediction
from kd_mil.models.preprocess import Preprocess as Preprocess
from kd_mil.models.resnet_gn import ResNetGN as ResNetGN
from kd_mil.models.segmenters.cam import CamClassifier as CamClassifier
from kd_mil.models.segmenters.timm_backbone import TimmSegmenter as TimmSegmenter
from kd_mil.models.segmenters.vgg import VggMIL as VggMIL
from kd_mil.prediction.folder import Predictions as Predictions
from kd_mil.slides.annotations.annotations import AnnotationSettings as AnnotationSettings
from kd_mil.slides.tiles.outlines import OutlineSettings as OutlineSettings
from kd_mil.slides.tiles.tiling import TilingSettings as TilingSettings
from kd_mil.slides.tiles.tissue import TissueSettings as TissueSettings

evaluate: CallableCommand
extract: CallableCommand
predict: CallableCommand

def _leave(signum: int, frame: object) -> NoReturn: ...
