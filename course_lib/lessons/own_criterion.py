"""Notebook 05, second half: scores that can be compared between layers, and a criterion of one's
own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.lessons.compare import tensors
from course_lib.lessons.exercise import Exercise, Mistake
from course_lib.pruning import Group, find_groups
from course_lib.resnet import ResNet, resnet_config

Scores = dict[str, Tensor]
Groups = Mapping[str, Group]


def relative(scores: Scores) -> Scores:
    """Each group's scores divided by their own mean."""
    return {name: score / score.mean() for name, score in scores.items()}


def folded_l1(
    network: nn.Module,
    groups: Groups,
    batches: Iterable[Any] | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Scores:
    """The L1 norm of each index's filters as they are once batch norm is folded into them: times
    |γ| ÷ √(running variance + eps). Summed over the producers; norm i belongs to producer i."""
    scores = {}
    for name, group in groups.items():
        parts = []
        for producer, norm in zip(group.producers, group.norms, strict=True):
            parts.append(_size(network, producer) * _factor(network, norm))
        scores[name] = torch.stack(parts).sum(dim=0)
    return scores


def _size(network: nn.Module, producer: str) -> Tensor:
    layer: Any = network.get_submodule(producer)
    return layer.weight.detach().abs().sum(dim=(1, 2, 3))


def _factor(
    network: nn.Module,
    norm: str,
    root: bool = True,
    absolute: bool = True,
    eps: bool = True,
    eps_outside: bool = False,
) -> Tensor:
    layer: Any = network.get_submodule(norm)
    gamma = layer.weight.detach()
    gamma = gamma.abs() if absolute else gamma
    if eps_outside:
        return gamma / (layer.running_var.sqrt() + layer.eps)
    variance = layer.running_var + (layer.eps if eps else 0)
    return gamma / (variance.sqrt() if root else variance)


def _variant(network: nn.Module, groups: Groups, **how: bool) -> Scores:
    """The same with one thing done otherwise: for the mistakes."""
    scores = {}
    for name, group in groups.items():
        parts = [
            _size(network, producer)
            * (1 if how.get("no_factor") else _factor(network, norm, **_only(how)))
            for producer, norm in zip(group.producers, group.norms, strict=True)
        ]
        only = parts[0] if how.get("first") else parts[-1] if how.get("last") else None
        scores[name] = torch.stack(parts).sum(dim=0) if only is None else only
    return scores


def _only(how: Mapping[str, bool]) -> dict[str, bool]:
    return {name: how[name] for name in ("root", "absolute", "eps", "eps_outside") if name in how}


def _small_network() -> list[tuple[ResNet, Groups]]:
    """A ResNet-18 of two filters' width whose batch norms have seen something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = ResNet(resnet_config(18, 3, base_width=2, small_images=True)).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight)
                nn.init.uniform_(module.running_var, 0.2, 3.0)  # type: ignore[arg-type]
                module.eps = 0.1  # so large that its place shows
    found = find_groups(network, torch.zeros(1, 3, 16, 16))
    # Few groups, so that all of them can be shown; the second has two producers.
    parts = [("conv1",), ("layer1.0.conv2", "layer1.0.conv1")]
    return [(network, {name: found[name] for name in names}) for names in parts]


def _together(scores: Scores) -> Scores:
    mean = torch.cat(list(scores.values())).mean()
    return {name: score / mean for name, score in scores.items()}


OWN = (
    Exercise(
        id="05.7",
        title="scores that can be compared",
        solution=relative,
        cases=lambda: [
            ({"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([10.0, 30.0])},),
            ({"a": torch.tensor([4.0]), "b": torch.tensor([0.5, 1.5, 1.0, 3.0])},),
        ],
        compare=tensors,
        praise="A score of 0.5 now means the same in every layer: half of what is usual there.",
        mistakes=(
            Mistake(
                lambda scores: {name: score / score.sum() for name, score in scores.items()},
                "Divided by the sum, scores of a layer with many filters are all small, and it"
                " would be emptied first: divide by the mean.",
            ),
            Mistake(
                lambda scores: {name: score / score.max() for name, score in scores.items()},
                "You divided by the largest score, so one outlier makes the rest of its layer look"
                " unimportant: divide by the mean.",
            ),
            Mistake(
                _together,
                "You divided by the mean over all layers: that is one factor for all, and the"
                " order across the network stays as it was.",
            ),
            Mistake(
                lambda scores: {name: score - score.mean() for name, score in scores.items()},
                "You took the mean away: the spread of a layer with large weights is still larger"
                " than another's. Divide.",
            ),
        ),
    ),
    Exercise(
        id="05.8",
        title="your own criterion",
        solution=folded_l1,
        cases=_small_network,
        compare=tensors,
        praise="One function with this signature is all that the library needs.",
        mistakes=(
            Mistake(
                lambda network, groups: _variant(network, groups, no_factor=True),
                "These are the plain L1 norms: batch norm's factor |γ| ÷ √(variance + eps) is"
                " missing.",
            ),
            Mistake(
                lambda network, groups: _variant(network, groups, absolute=False),
                "γ came in with its sign, so filters with a negative γ score below zero: take its"
                " absolute value.",
            ),
            Mistake(
                lambda network, groups: _variant(network, groups, root=False),
                "You divided by the variance: batch norm divides by its square root.",
            ),
            Mistake(
                lambda network, groups: _variant(network, groups, eps=False),
                "eps is missing: batch norm adds it to the running variance, under the root.",
            ),
            Mistake(
                lambda network, groups: _variant(network, groups, eps_outside=True),
                "You added eps to the root: batch norm adds it to the running variance, under the"
                " root.",
            ),
            Mistake(
                lambda network, groups: _variant(network, groups, last=True),
                "Only the last producer was counted: each one overwrote the one before. Add them"
                " up.",
            ),
            Mistake(
                lambda network, groups: _variant(network, groups, first=True),
                "Only the first producer was counted: where a projection makes the same channels,"
                " its filters are removed too.",
            ),
        ),
    ),
)
