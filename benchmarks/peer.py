"""Torch-Pruning's side of the comparisons: its pruners as its documentation sets them up.

Fang et al. 2023, "DepGraph", arXiv 2301.12900; https://github.com/VainF/Torch-Pruning. It isn't
among the course's dependencies: pip install -r benchmarks/requirements.txt
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.measure import count_macs

try:
    import torch_pruning as tp
except ImportError as error:
    raise SystemExit(
        "This benchmark needs Torch-Pruning: pip install -r benchmarks/requirements.txt"
    ) from error

Batch = tuple[Tensor, Tensor]
STEPS = 400  # as in Torch-Pruning's own scripts for CIFAR: small steps until the target is reached
magnitude = tp.importance.GroupMagnitudeImportance
PRUNERS: dict[str, Callable[..., Any]] = {
    # The readme's example: the same share of every layer.
    "magnitude": partial(tp.pruner.BasePruner, importance=magnitude(p=2)),
    # Those of its scripts for CIFAR: reproduce/main.py with --global-pruning.
    "L1": partial(tp.pruner.MagnitudePruner, importance=magnitude(p=1), global_pruning=True),
    "group norm": partial(
        tp.pruner.GroupNormPruner, importance=magnitude(p=2), global_pruning=True
    ),
    "batch-norm scale": partial(
        tp.pruner.BNScalePruner, importance=tp.importance.BNScaleImportance(), global_pruning=True
    ),
    "Taylor": partial(
        tp.pruner.BasePruner,
        importance=tp.importance.GroupTaylorImportance(),
        global_pruning=True,
    ),
    # Its best on CIFAR: group norms after training with a penalty that grows as they shrink.
    "group sparsity": partial(
        tp.pruner.GroupNormPruner,
        importance=magnitude(p=2, normalizer="max"),
        global_pruning=True,
        reg=5e-4,
    ),
}


def make_pruner(name: str, network: nn.Module, example: Tensor) -> Any:
    """A pruner of `network`, which it changes in place; the classifier keeps its outputs."""
    options = {"iterative_steps": STEPS, "pruning_ratio": 1.0}
    return PRUNERS[name](network, example, ignored_layers=classifiers(network), **options)


def classifiers(network: nn.Module) -> list[nn.Module]:
    """The layers that its documentation says not to prune."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def prune_to(
    name: str, network: nn.Module, macs: float, example: Tensor, batches: Iterable[Batch]
) -> nn.Module:
    """A copy with at most `macs` multiply-accumulates; `batches`: what Taylor's gradients see."""
    network = copy.deepcopy(network).eval()
    pruner = make_pruner(name, network, example)
    if name == "Taylor":
        for images, labels in batches:
            F.cross_entropy(network(images), labels).backward()
    shape = (example.shape[1], example.shape[2], example.shape[3])
    for _ in range(STEPS):
        if count_macs(network, shape) <= macs:
            break
        pruner.step()
    else:
        raise RuntimeError(f"Torch-Pruning's {name} doesn't come down to {macs:,.0f} MACs.")
    network.zero_grad(set_to_none=True)
    return network


def penalty(network: nn.Module, example: Tensor) -> Callable[[nn.Module], None]:
    """What adds the gradient of Torch-Pruning's group penalty, to be called after `backward`."""
    pruner = make_pruner("group sparsity", network, example)
    return torch.no_grad()(pruner.regularize)
