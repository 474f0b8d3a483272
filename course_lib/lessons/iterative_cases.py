"""Notebook 06: what the exercises' answers are tried on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.lessons.exercise import Case
from course_lib.pruning import find_groups


def stand_ins(good_after: int, most: int = 2) -> Case:
    """A round whose networks are texts that say what was done to them; it has `most` tries."""
    asked = 0

    def judge(candidate: str, tried: int) -> str:
        nonlocal asked
        asked += 1  # a loop that never ends would hang the notebook
        if asked > 50:
            raise RuntimeError(
                "`judge` was asked 50 times: does `tried` grow, and is what `tune` returns kept?"
            )
        if candidate.count("tuned") >= good_after:
            return "go on"
        return "fine-tune again" if tried < most else "roll back"

    def cut(network: str) -> str:
        return f"{network}, cut"

    def tune(candidate: str) -> str:
        return f"{candidate}, tuned"

    # What a message says of it: the learner can't look into it.
    times = "1 fine-tuning" if good_after == 1 else f"{good_after} fine-tunings"
    judge.__name__ = f"judge (satisfied after {times}, allows {most})"
    return "full", cut, tune, judge


def _curve(*rows: tuple[int, str, float]) -> list[dict[str, Any]]:
    return [{"batches": b, "phase": phase, "accuracy": a} for b, phase, a in rows]


def curves() -> list[Case]:
    """Learning curves, a phase and a level: reached at once, late, twice, or never."""
    curve = _curve(
        *((80, "base", 0.75), (100, "base", 0.96875)),
        *((100, "round 1", 0.5), (110, "round 1", 0.875), (120, "round 1", 0.9375)),
        *((120, "round 2", 0.25), (130, "round 2", 0.75), (140, "round 2", 0.875)),
    )
    cases = [(curve, "round 1", 0.875), (curve, "round 2", 0.9), (curve, "round 1", 0.5)]
    twice = _curve(*((10 * i, "round 1", a) for i, a in enumerate((0.5, 0.9375, 0.75, 0.9375))))
    later = _curve((40, "round 10", 0.5), (50, "round 10", 0.9375))
    return [
        (curve[2:5], "round 1", 0.9),
        *cases,
        (twice, "round 1", 0.875),
        (twice[:1] + later, "round 1", 0.875),
    ]


def _trained_once() -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor, torch.Tensor]:
    """A small chain with an optimiser that has momentum."""
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    images = torch.linspace(-1, 1, 15).reshape(5, 3)
    labels = torch.tensor([0, 1, 0, 1, 1])
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network, optimizer, images, labels


def hunts() -> list[Case]:
    """A trained chain with its optimiser, and what is kept of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, optimizer, images, labels = _trained_once()
    groups = find_groups(network, images[:1])
    keeps = [{"0": torch.tensor([0, 2, 3])}, {"0": torch.tensor([1, 3])}]
    # Each case has a network and an optimiser of its own, since a step changes them.
    pairs = [copy.deepcopy((network, optimizer)) for _ in keeps]
    return [(*pair, groups, keep, images, labels) for pair, keep in zip(pairs, keeps, strict=True)]


def bias_after(answer: Callable[..., Any], case: Case) -> Any:
    """The biases of the network that an answer returns."""
    result = answer(*case)
    if not isinstance(result, nn.Module):
        return result
    return {name: p.detach() for name, p in result.named_parameters() if p.dim() == 1}


def reports() -> list[Case]:
    """Rounds of which the best on the test set isn't the one to report."""

    def line(round: int, val: float, test: float, passed: bool = True) -> dict[str, Any]:
        return {"round": round, "val_accuracy": val, "test_accuracy": test, "passed": passed}

    first = [line(1, 0.97, 0.96), line(2, 0.96, 0.98), line(3, 0.96, 0.95)]
    rising = [line(1, 0.97, 0.94), line(2, 0.96, 0.95)]
    return [(first,), (rising,), ([*first, line(4, 0.90, 0.99, passed=False)],)]
