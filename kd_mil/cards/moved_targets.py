"""Where classes that old checkpoints name live today, so that a checkpoint outlives a move of the code."""

from collections.abc import Mapping
from typing import Any

MOVED = {
    "kd_mil.methods.cam.CAM": "kd_mil.methods.baselines.cam.CAM",
    "kd_mil.methods.distill_to_label.DistillToLabel": "kd_mil.methods.distill_to_label.distill_to_label.DistillToLabel",
    "kd_mil.methods.ifkd.IFKD": "kd_mil.methods.ifkd.ifkd.IFKD",
    "kd_mil.methods.ifkd.PixelCrossEntropy": "kd_mil.methods.ifkd.stage_two.PixelCrossEntropy",
    "kd_mil.methods.mhim.MHIM": "kd_mil.methods.baselines.mhim.MHIM",
    "kd_mil.methods.mil.MIL": "kd_mil.methods.baselines.mil.MIL",
    "kd_mil.methods.resolution.PairLoss": "kd_mil.methods.resolution.pair_loss.PairLoss",
    "kd_mil.methods.resolution.Resolution": "kd_mil.methods.resolution.resolution.ResolutionDistillation",
    "kd_mil.methods.resolution.resolution.Resolution": "kd_mil.methods.resolution.resolution.ResolutionDistillation",
    "kd_mil.methods.rnn_mil.RNNMIL": "kd_mil.methods.baselines.rnn_mil.RNNMIL",
    "kd_mil.methods.supervised.Supervised": "kd_mil.methods.baselines.supervised.Supervised",
    "kd_mil.methods.unet_supervised.UNetSupervised": "kd_mil.methods.baselines.unet_supervised.UNetSupervised",
    "kd_mil.methods.weno.WENO": "kd_mil.methods.weno.weno.WENO",
    "kd_mil.methods.weno_multiclass.MultiClassWENO": "kd_mil.methods.weno.multiclass.MultiClassWENO",
    "kd_mil.models.distillation.Distillation": "kd_mil.methods.distill_to_label.weights.Distillation",
    "kd_mil.models.encoders.AlexNetCifar": "kd_mil.models.encoders.small.AlexNetCifar",
    "kd_mil.models.encoders.FeatureProjector": "kd_mil.models.encoders.small.FeatureProjector",
    "kd_mil.models.encoders.Identity": "kd_mil.models.encoders.small.Identity",
    "kd_mil.models.encoders.LeNet5": "kd_mil.models.encoders.small.LeNet5",
    "kd_mil.models.encoders.SmallCNN": "kd_mil.models.encoders.small.SmallCNN",
    "kd_mil.models.map_reading.MapReading": "kd_mil.evaluation.map_reading.MapReading",
    "kd_mil.models.mining.HardPositiveMining": "kd_mil.methods.weno.mining.HardPositiveMining",
    "kd_mil.models.pair_augment.PairAugment": "kd_mil.methods.resolution.pair_augment.PairAugment",
    "kd_mil.models.paper_encoders.ConvStack": "kd_mil.models.encoders.conv_stack.ConvStack",
    "kd_mil.models.roles.RoleSwitch": "kd_mil.methods.ifkd.role_switch.RoleSwitch",
    "kd_mil.models.timm_encoder.TimmEncoder": "kd_mil.models.encoders.timm_encoder.TimmEncoder",
    "kd_mil.models.vat.VAT": "kd_mil.methods.distill_to_label.vat.VAT",
}
"""Dotted path of earlier versions -> dotted path of today, for whatever the configuration of a method may name."""


def with_targets_of_today(config: Any) -> Any:
    """The configuration of a method with every moved `_target_` under its present name; the rest is unchanged."""
    if isinstance(config, Mapping):
        present = {key: with_targets_of_today(value) for key, value in config.items()}
        target = present.get("_target_")
        if present.get("pseudo_labels") in ("bank", "recompute"):  # of WENO, until it learned to make others
            present = {"attention_from" if key == "pseudo_labels" else key: value for key, value in present.items()}
        return present | {"_target_": MOVED.get(target, target)} if isinstance(target, str) else present
    return [with_targets_of_today(value) for value in config] if isinstance(config, list | tuple) else config
