"""A Lightning module whose checkpoints say how to build it again."""

import warnings
from functools import partial
from typing import Any

import lightning as L

from kd_mil.cards.card import own_card
from kd_mil.cards.loading import load
from kd_mil.core.errors import UserError


class CardedModule(L.LightningModule):
    """A module that keeps a model card in its checkpoints, whether a command or Python code built it.

    Python code builds it from classes and `functools.partial` of them, `encoder=partial(FeatureProjector,
    out_features=128)`, and from objects that keep the arguments of their constructor; of anything else, such as a
    lambda, the card cannot say how it was made: a warning, and the checkpoint can be resumed but not loaded elsewhere.
    """

    model_card: dict[str, Any]

    def __new__(cls, *args: Any, **keywords: Any) -> Any:
        """Remember the call, for the card."""
        module = super().__new__(cls)
        module.__dict__.update(call=partial(cls, *args, **keywords), model_card={})
        return module

    def setup(self, stage: str) -> None:
        """Write the card, unless a command has."""
        if stage == "fit" and not self.model_card:
            try:
                self.model_card = own_card(self.__dict__["call"], self.trainer.datamodule)  # type: ignore[attr-defined]
            except ValueError as error:
                warnings.warn(
                    f"kd_mil.load will not read checkpoints of this {type(self).__name__}: {error}", stacklevel=2
                )

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, the negative one first; of a module that was loaded, or has trained."""
        return list(self.model_card["class_names"])

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: Any, map_location: Any = None, **settings: Any
    ) -> Any:
        """A module of this class with the weights of a checkpoint, in eval mode; `kd_mil.load` finds the class itself.

        Args:
            checkpoint_path: a .ckpt file, or a run's directory.
            map_location: the device; None = CPU.
            **settings: none, as the checkpoint has them all; `weights_only=True` is always so.

        Raises:
            UserError: as `kd_mil.load`, other settings, or a checkpoint of another class.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        if given not in ({}, {"weights_only": True}):
            raise UserError(f"{', '.join(given)}: a checkpoint is loaded with the settings that it was trained with")
        module = load(checkpoint_path)
        if not isinstance(module, cls):
            raise UserError(f"checkpoint {checkpoint_path} holds {type(module).__name__}, not {cls.__name__}")
        return module.to(map_location or "cpu")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model_card"] = self.model_card
