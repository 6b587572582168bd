"""What every classifier of images has in common, for prediction and cost: a network for each role."""

import numpy as np
import torch
from torch import Tensor

from kd_mil.methods.base.method import Method
from kd_mil.methods.base.weight_average import evaluating
from kd_mil.models.image_classifier import ImageClassifier
from kd_mil.models.outputs import Prediction


class ImageMethod(Method):
    """Base of the methods whose roles classify single images, each at a resolution of its own."""

    trains_on, units = "pairs of images", "images"

    def classifiers(self) -> dict[str, tuple[ImageClassifier, str]]:
        """Network of each role, and its resolution: `teacher` or `student`."""
        raise NotImplementedError

    def has_learned(self, role: str) -> bool:
        """Whether a role's network has been trained at all."""
        raise NotImplementedError

    @torch.inference_mode()
    def predict(self, images: Tensor | np.ndarray) -> dict[str, Prediction]:
        """What each role that has learned says of images (B, 3, H, W), uint8 or float in [0, 1]; on the CPU.

        `predict(images)["student"].bag_probs` is (B, C): each image is a bag of one. Images go through the networks as
        they are: give them at the resolution of the role that is asked.
        """
        given, said = torch.as_tensor(images, device=self.device), {}
        with evaluating(self):
            for role, (network, _) in self.classifiers().items():
                if self.has_learned(role):
                    probs = network(given).logits.double().softmax(1).cpu()
                    positive = probs[:, 1:].sum(1)
                    by_class = probs if probs.shape[1] > 2 else None
                    said[role] = Prediction(probs, positive, positive, None, by_class)
        return said

    @property
    def thresholds(self) -> dict[str, float]:
        """Probability of the second of two classes from which on each role decides for it."""
        return dict.fromkeys(self.classifiers(), 0.5)
