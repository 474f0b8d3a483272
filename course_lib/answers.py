"""What a network answered, class by class: confusion matrix, balanced accuracy, changed answers."""

from __future__ import annotations

import torch
from torch import Tensor

RIGHT_WRONG = "right, then wrong"
WRONG_RIGHT = "wrong, then right"
WRONG_WRONG = "wrong, then wrong in another way"


def confusion(labels: Tensor, answers: Tensor, classes: int) -> Tensor:
    """How often images of each class (row) were given each answer (column).

    `labels`, `answers`: int64 [N]. Returns int64 [classes, classes].
    """
    return torch.bincount(labels * classes + answers, minlength=classes**2).view(classes, classes)


def share_right(labels: Tensor, answers: Tensor) -> float:
    """Accuracy: the share of images that were given their class. Both int64 [N]."""
    return (labels == answers).double().mean().item()


def accuracy_by_class(matrix: Tensor) -> list[float | None]:
    """The share of each class's images that were answered rightly; None for a class without any."""
    right, images = matrix.diagonal().tolist(), matrix.sum(1).tolist()
    return [r / n if n else None for r, n in zip(right, images, strict=True)]


def balanced_accuracy(matrix: Tensor) -> float:
    """The mean of the accuracies of the classes that have images, each counting the same.

    Where classes are of unequal size, answering always the largest one gives a high accuracy, but a
    balanced accuracy of 1 / classes.
    """
    shares = [share for share in accuracy_by_class(matrix) if share is not None]
    return sum(shares) / len(shares)


def changed(labels: Tensor, before: Tensor, after: Tensor) -> dict[str, list[int]]:
    """The positions of the images whose answer changed, by how; each changed image is in one list.

    `labels`, `before`, `after`: int64 [N].
    """
    differs = before != after
    kinds = {
        RIGHT_WRONG: differs & (before == labels),
        WRONG_RIGHT: differs & (after == labels),
        WRONG_WRONG: differs & (before != labels) & (after != labels),
    }
    return {kind: torch.nonzero(chosen).flatten().tolist() for kind, chosen in kinds.items()}
