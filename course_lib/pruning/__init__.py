"""Structured pruning of any network made of plain convolutions: groups → scores → selection →
surgery.

Imports torch and nothing else, so this folder can be copied into another project:

    groups = find_groups(network, example)
    keep = select(l1(network, groups), fraction=0.05)
    narrow = prune(network, groups, keep)
"""

from .ablation import ablate, critical, critical_approximate, overlap, ranks
from .criteria import CRITERIA, bn_scale, l1, l2, linf, random
from .groups import Group, PruningError, find_groups
from .select import select
from .surgery import carry_optimizer, masked, prune

__all__ = [
    "CRITERIA",
    "Group",
    "PruningError",
    "ablate",
    "bn_scale",
    "carry_optimizer",
    "critical",
    "critical_approximate",
    "find_groups",
    "l1",
    "l2",
    "linf",
    "masked",
    "overlap",
    "prune",
    "random",
    "ranks",
    "select",
]
