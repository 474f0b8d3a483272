"""A score for every index of every group: small means remove first.

Every criterion has the same call: criterion(network, groups, batches=None, *, generator=None) →
{group name: 1-D float tensor of the group's size, on the CPU}. `batches` is for criteria that look
at data: pairs of images [N, C, H, W] and labels [N]. `generator` is for those that draw.
"""

from ..ablation import critical
from .activations import apoz
from .cosine import cosine, cosine_outputs
from .curvature import obd, obd_exact
from .gradients import fisher, taylor
from .weights import Batches, Criterion, Scores, bn_scale, l1, l2, linf, random

# obd_exact isn't among them: it is for networks that are too small to be worth a run.
CRITERIA: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "linf": linf,
    "bn_scale": bn_scale,
    "random": random,
    "cosine": cosine,
    "cosine_outputs": cosine_outputs,
    "apoz": apoz,
    "taylor": taylor,
    "fisher": fisher,
    "obd": obd,
    "critical": critical,
}

__all__ = [
    "CRITERIA",
    "Batches",
    "Criterion",
    "Scores",
    "apoz",
    "bn_scale",
    "cosine",
    "cosine_outputs",
    "critical",
    "fisher",
    "l1",
    "l2",
    "linf",
    "obd",
    "obd_exact",
    "random",
    "taylor",
]
