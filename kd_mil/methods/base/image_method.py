"""What every classifier of images has in common, for prediction and cost: a network for each role."""

from kd_mil.methods.base.method import Method
from kd_mil.models.image_classifier import ImageClassifier


class ImageMethod(Method):
    """Base of the methods whose roles classify single images, each at a resolution of its own."""

    trains_on, units = "pairs of images", "images"

    def classifiers(self) -> dict[str, tuple[ImageClassifier, str]]:
        """Network of each role, and its resolution: `teacher` or `student`."""
        raise NotImplementedError

    def has_learned(self, role: str) -> bool:
        """Whether a role's network has been trained at all."""
        raise NotImplementedError
