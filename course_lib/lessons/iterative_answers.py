"""Notebook 06: what its exercises ask for, and the typical wrong answers."""

# ruff: noqa: D103 — what is wrong with a wrong answer is said where it is a Mistake.

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.pruning import carry_optimizer, prune

Widths = Mapping[str, int]


def rounds_needed(fraction: float, share: float) -> int:
    """The fewest rounds after which at most `share` of the parameters are left."""
    return math.ceil(math.log(share) / (2 * math.log(1 - fraction)))


def widths_after(start: Widths, fraction: float, round: int, floor: int = 2) -> dict[str, int]:
    """What each layer keeps after so many rounds, counted from the widths it began with."""
    left = (1 - fraction) ** round
    return {name: max(floor, int(left * width + 0.5)) for name, width in start.items()}


def verdict(reached: float, full: float, tolerance: float, tried: int, retries: int) -> str:
    """What follows a fine-tuning: "go on", "fine-tune again" or "roll back"."""
    if reached >= full - tolerance:
        return "go on"
    return "fine-tune again" if tried <= retries else "roll back"


def one_round(
    network: Any,
    cut: Callable[[Any], Any],
    tune: Callable[[Any], Any],
    judge: Callable[[Any, int], str],
) -> tuple[Any, bool]:
    """One round: the network to go on with, and whether the round passed."""
    candidate, tried = cut(network), 0
    while True:
        candidate, tried = tune(candidate), tried + 1
        decision = judge(candidate, tried)
        if decision == "go on":
            return candidate, True
        if decision == "roll back":
            return network, False


def recovery_batches(curve: Sequence[Mapping[str, Any]], phase: str, level: float) -> int | None:
    """Batches from the surgery that opens a phase to the first point that reaches `level`."""
    points = [point for point in curve if point["phase"] == phase]
    for point in points:
        if point["accuracy"] >= level:
            return point["batches"] - points[0]["batches"]
    return None


def cut_and_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    groups: Any,
    keep: Any,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> nn.Module:
    """Remove the filters, then take one step of training; the narrower network."""
    narrow = prune(network, groups, keep)
    optimizer = carry_optimizer(optimizer, network, narrow, groups, keep)
    loss = F.cross_entropy(narrow(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return narrow


def chosen_and_reported(rounds: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """The round that is kept, and the test accuracy to report for it."""
    last = [line for line in rounds if line["passed"]][-1]
    return last["round"], last["test_accuracy"]


# From here on: the typical wrong answers, in the order of the exercises.
def rounds_of_filters(fraction: float, share: float) -> int:
    return math.ceil(math.log(share) / math.log(1 - fraction))


def rounds_without_compounding(fraction: float, share: float) -> int:
    return math.ceil((1 - share) / fraction)


def rounds_floor(fraction: float, share: float) -> int:
    return math.floor(math.log(share) / (2 * math.log(1 - fraction)))


def rounds_until_below(fraction: float, share: float) -> int:
    return rounds_floor(fraction, share) + 1


def widths_no_floor(start: Widths, fraction: float, round: int, floor: int = 2) -> dict[str, int]:
    return widths_after(start, fraction, round, 0)


def widths_truncated(start: Widths, fraction: float, round: int, floor: int = 2) -> dict[str, int]:
    left = (1 - fraction) ** round
    return {name: max(floor, int(left * width)) for name, width in start.items()}


def widths_linear(start: Widths, fraction: float, round: int, floor: int = 2) -> dict[str, int]:
    left = 1 - fraction * round
    return {name: max(floor, int(left * width + 0.5)) for name, width in start.items()}


def widths_drifting(start: Widths, fraction: float, round: int, floor: int = 2) -> dict[str, int]:
    widths = dict(start)
    for _ in range(round):
        widths = widths_after(widths, fraction, 1, floor)
    return widths


def absolute(reached: float, full: float, tolerance: float, tried: int, retries: int) -> str:
    return verdict(reached, 0.95, 0.0, tried, retries)


def raised(reached: float, full: float, tolerance: float, tried: int, retries: int) -> str:
    return verdict(reached, full, -tolerance, tried, retries)


def no_tolerance(reached: float, full: float, tolerance: float, tried: int, retries: int) -> str:
    return verdict(reached, full, 0.0, tried, retries)


def strictly_within(reached: float, full: float, tolerance: float, tried: int, retries: int) -> str:
    return verdict(reached - 1e-9, full, tolerance, tried, retries)


def share_of_full(reached: float, full: float, tolerance: float, tried: int, retries: int) -> str:
    return verdict(reached, full, full * tolerance, tried, retries)


def never_again(reached: float, full: float, tolerance: float, tried: int, retries: int) -> str:
    return verdict(reached, full, tolerance, tried, 0)


def for_ever(reached: float, full: float, tolerance: float, tried: int, retries: int) -> str:
    return "go on" if reached >= full - tolerance else "fine-tune again"


def one_try_less(reached: float, full: float, tolerance: float, tried: int, retries: int) -> str:
    return verdict(reached, full, tolerance, tried + 1, retries)


def judged_untuned(network: Any, cut: Any, tune: Any, judge: Any) -> tuple[Any, bool]:
    candidate, tried = cut(network), 0
    while (decision := judge(candidate, tried + 1)) == "fine-tune again":
        candidate, tried = tune(candidate), tried + 1
    return (candidate, True) if decision == "go on" else (network, False)


def not_rolled_back(network: Any, cut: Any, tune: Any, judge: Any) -> tuple[Any, bool]:
    candidate, tried = tune(cut(network)), 1
    while (decision := judge(candidate, tried)) == "fine-tune again":
        candidate, tried = tune(candidate), tried + 1
    return candidate, decision == "go on"


def cut_again(network: Any, cut: Any, tune: Any, judge: Any) -> tuple[Any, bool]:
    candidate, tried = tune(cut(network)), 1
    while (decision := judge(candidate, tried)) == "fine-tune again":
        candidate, tried = tune(cut(candidate)), tried + 1
    return (candidate, True) if decision == "go on" else (network, False)


def one_try(network: Any, cut: Any, tune: Any, judge: Any) -> tuple[Any, bool]:
    candidate = tune(cut(network))
    return (candidate, True) if judge(candidate, 1) == "go on" else (network, False)


def since_the_beginning(curve: Any, phase: str, level: float) -> int | None:
    reached = (p["batches"] for p in curve if p["phase"] == phase and p["accuracy"] >= level)
    return next(reached, None)


def points_counted(curve: Any, phase: str, level: float) -> int | None:
    points = [p["accuracy"] >= level for p in curve if p["phase"] == phase]
    return points.index(True) if any(points) else None


def any_phase(curve: Any, phase: str, level: float) -> int | None:
    first = next(p["batches"] for p in curve if p["phase"] == phase)
    reached = (p["batches"] - first for p in curve if p["accuracy"] >= level)
    return next(reached, None)


def after_the_surgery(curve: Any, phase: str, level: float) -> int | None:
    first, *later = [p for p in curve if p["phase"] == phase]
    reached = (p["batches"] - first["batches"] for p in later if p["accuracy"] >= level)
    return next(reached, None)


def stays_above(curve: Any, phase: str, level: float) -> int | None:
    points = [p for p in curve if p["phase"] == phase]
    below = [i for i, p in enumerate(points) if p["accuracy"] < level]
    after = points[below[-1] + 1 if below else 0 :]
    return after[0]["batches"] - points[0]["batches"] if after else None


def phases_that_begin_so(curve: Any, phase: str, level: float) -> int | None:
    points = [{**p, "phase": phase} for p in curve if p["phase"].startswith(phase)]
    return recovery_batches(points, phase, level)


def above_only(curve: Any, phase: str, level: float) -> int | None:
    return recovery_batches(curve, phase, level + 1e-9)


def old_parameters(
    network: Any, optimizer: Any, groups: Any, keep: Any, images: Any, labels: Any
) -> nn.Module:
    narrow = prune(network, groups, keep)
    loss = F.cross_entropy(narrow(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return narrow


def fresh_momentum(
    network: Any, optimizer: Any, groups: Any, keep: Any, images: Any, labels: Any
) -> nn.Module:
    narrow = prune(network, groups, keep)
    fresh = torch.optim.SGD(narrow.parameters(), lr=0.1, momentum=0.9)
    F.cross_entropy(narrow(images), labels).backward()
    fresh.step()
    return narrow


def wide_network_stepped(
    network: Any, optimizer: Any, groups: Any, keep: Any, images: Any, labels: Any
) -> nn.Module:
    loss = F.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return prune(network, groups, keep)


def best_on_test(rounds: Any) -> tuple[int, float]:
    best = max(rounds, key=lambda line: line["test_accuracy"])
    return best["round"], best["test_accuracy"]


def best_on_test_that_passed(rounds: Any) -> tuple[int, float]:
    return best_on_test([line for line in rounds if line["passed"]])


def best_on_validation(rounds: Any) -> tuple[int, float]:
    best = max(rounds, key=lambda line: line["val_accuracy"])
    return best["round"], best["test_accuracy"]


def validation_reported(rounds: Any) -> tuple[int, float]:
    last = [line for line in rounds if line["passed"]][-1]
    return last["round"], last["val_accuracy"]


def last_of_all(rounds: Any) -> tuple[int, float]:
    return rounds[-1]["round"], rounds[-1]["test_accuracy"]
