"""Distillation: a network learns from the answers of another, its teacher.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def soft_targets(teacher: nn.Module, images: Tensor) -> Tensor:
    """The logits to imitate [N, classes]; the teacher is put into evaluation mode."""
    return teacher.eval()(images)


def distance(logits: Tensor, targets: Tensor, temperature: float = 4.0) -> Tensor:
    """How far answers are from a teacher's: the Kullback–Leibler divergence, classes softened.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531: both
    logits [N, classes] are divided by the temperature, and the square of it gives the gradients
    back their size.
    """
    log_p, log_q = (F.log_softmax(x / temperature, 1) for x in (logits, targets))
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
