"""Structured pruning of any network made of plain convolutions: groups → scores → selection →
surgery.

Imports torch and nothing else, so this folder can be copied into another project:

    groups = find_groups(network, example)
    keep = select(l1(network, groups), fraction=0.05)
    narrow = prune(network, groups, keep)
"""

from .ablation import ablate, critical_approximate, overlap, ranks
from .budget import prune_until
from .criteria import (
    CRITERIA,
    apoz,
    bn_scale,
    cosine,
    cosine_outputs,
    critical,
    fisher,
    l1,
    l2,
    linf,
    obd,
    obd_exact,
    random,
    taylor,
)
from .groups import Group, PruningError, find_groups
from .select import select
from .surgery import carry_optimizer, masked, prune

__all__ = [
    "CRITERIA",
    "Group",
    "PruningError",
    "ablate",
    "apoz",
    "bn_scale",
    "carry_optimizer",
    "cosine",
    "cosine_outputs",
    "critical",
    "critical_approximate",
    "find_groups",
    "fisher",
    "l1",
    "l2",
    "linf",
    "masked",
    "obd",
    "obd_exact",
    "overlap",
    "prune",
    "prune_until",
    "random",
    "ranks",
    "select",
    "taylor",
]
