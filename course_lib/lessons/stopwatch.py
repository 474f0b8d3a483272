"""Exercise 08.1: a stopwatch for networks, and a pretended machine that shows if it is fair."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.lessons.exercise import Exercise, Mistake

Answer = Callable[..., Any]


class SlowMachine:
    """A machine that only pretends to compute, so that what a stopwatch should read is known.

    Like a GPU it takes orders at once and works them off later: `wait` lets it finish. A pass takes
    `each` seconds, the first one `first` more (memory is fetched, code is chosen), the one with the
    number `disturbed` ten seconds more; half as much again in training mode, and a second more when
    gradients are prepared.
    """

    def __init__(self, each: float, first: float, disturbed: int) -> None:
        self.each, self.first, self.disturbed = each, first, disturbed
        self.now = self.ordered = 0.0
        self.passes = 0

    def clock(self) -> float:
        """The time in seconds."""
        return self.now

    def wait(self) -> None:
        """Until all that was ordered is done."""
        self.now, self.ordered = self.now + self.ordered, 0.0

    def order(self, training: bool) -> None:
        """One pass through a network."""
        self.now += 0.01  # to give the order
        seconds = self.each * (1.5 if training else 1)
        seconds += torch.is_grad_enabled() + self.first * (self.passes == 0)
        self.ordered += seconds + 10.0 * (self.passes == self.disturbed)
        self.passes += 1


class _Timed(nn.Module):
    def __init__(self, machine: SlowMachine) -> None:
        super().__init__()
        self.machine = machine

    def forward(self, images: Tensor) -> Tensor:
        self.machine.order(self.training)
        return images


def seconds_per_pass(
    network: nn.Module,
    images: Tensor,
    clock: Callable[[], float],
    wait: Callable[[], None],
    repeats: int = 5,
) -> float:
    """The median of `repeats` readings of one inference pass in seconds, after a warm-up."""
    network.eval()
    readings = []
    with torch.inference_mode():
        network(images)
        wait()
        for _ in range(repeats):
            started = clock()
            network(images)
            wait()
            readings.append(clock() - started)
    return statistics.median(readings)


def _stopwatch(
    *,
    evaluates: bool = True,
    gradients: bool = False,
    warms_up: bool = True,
    settles: bool = True,
    waits: bool = True,
    middle: Callable[[list[float]], float] = statistics.median,
) -> Answer:
    """A stopwatch with some of its parts missing."""

    def timed(network: Any, images: Any, clock: Any, wait: Any, repeats: int = 5) -> float:
        network.train(not evaluates)
        readings = []
        with torch.inference_mode(not gradients):
            if warms_up:
                network(images)
                if settles:
                    wait()
            for _ in range(repeats):
                started = clock()
                network(images)
                if waits:
                    wait()
                readings.append(clock() - started)
        return middle(readings)

    return timed


# What is wrong with a stopwatch, for each part that `_stopwatch` can lack.
_FAULTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"evaluates": False}, "the network is in training mode"),
    ({"gradients": True}, "PyTorch keeps what a backward pass would need"),
    ({"warms_up": False}, "the first pass is among your readings"),
    ({"settles": False}, "the clock starts before the warm-up is done"),
    ({"middle": statistics.mean}, "one disturbed reading moves the mean"),
)


# Two that have sentences of their own.
_TOLD_APART: tuple[dict[str, Any], ...] = (
    {"warms_up": False, "middle": statistics.mean},
    {"evaluates": False, "gradients": True, "warms_up": False, "middle": statistics.mean},
)


def _half_mended() -> tuple[Mistake, ...]:
    """Every stopwatch with two faults or more: four are to be found, and few find all at once."""
    found = []
    for chosen in product((True, False), repeat=len(_FAULTS)):
        faults = [fault for fault, there in zip(_FAULTS, chosen, strict=True) if there]
        missing = {name: value for parts, _ in faults for name, value in parts.items()}
        no_wait = {"warms_up", "settles"} <= set(missing)  # without a warm-up, none is possible
        if len(faults) > 1 and not no_wait and missing not in _TOLD_APART:
            clauses = "; ".join(clause for _, clause in faults)
            found.append(Mistake(_stopwatch(**missing), f"Still wrong: {clauses}."))
    return tuple(found)


def _use_stopwatch(answer: Answer, case: tuple[Any, ...]) -> Any:
    settings = dict(case[0])
    repeats = settings.pop("repeats", 5)
    machine = SlowMachine(**settings)
    network = _Timed(machine).train()
    return answer(network, torch.zeros(1), machine.clock, machine.wait, repeats)


STOPWATCH = Exercise(
    id="08.1",
    title="a stopwatch that lies",
    solution=seconds_per_pass,
    cases=lambda: [
        ({"each": 2.0, "first": 0.0, "disturbed": 3},),
        ({"each": 1.0, "first": 60.0, "disturbed": 2},),
        ({"each": 4.0, "first": 6.0, "disturbed": 99},),
        # A median of five isn't moved by one slow first pass; a single reading is.
        ({"each": 1.0, "first": 60.0, "disturbed": 99, "repeats": 1},),
    ],
    use=_use_stopwatch,
    mistakes=(
        Mistake(
            _stopwatch(**_TOLD_APART[1]),
            "It waits now, and so it times the passes. But which passes: in which mode, with or"
            " without what a backward pass needs, and is the first one among them?",
        ),
        Mistake(
            _stopwatch(evaluates=False),
            "You time the network in training mode, in which nobody will use it: batch norm then"
            " computes statistics of each batch.",
        ),
        Mistake(
            _stopwatch(gradients=True),
            "PyTorch keeps all that a backward pass would need while you time: tell it that this is"
            " inference.",
        ),
        Mistake(
            _stopwatch(**_TOLD_APART[0]),
            "The first pass, which fetches memory and chooses code, is among your readings: make"
            " one pass before you start the clock, and take the middle reading.",
        ),
        Mistake(
            _stopwatch(warms_up=False),
            "The first pass, which fetches memory and chooses code, is among your readings: make"
            " one untimed pass first.",
        ),
        Mistake(
            _stopwatch(settles=False),
            "You start the clock while the machine is still busy with the warm-up: wait for that"
            " pass, too.",
        ),
        Mistake(
            _stopwatch(middle=statistics.mean),
            "One reading that something else disturbed decides your result, since you take the"
            " mean: the middle reading wouldn't move.",
        ),
        *_half_mended(),
    ),
    praise="It warms up, waits, infers, and isn't moved by one disturbed reading.",
    handed_out=Mistake(
        _stopwatch(evaluates=False, gradients=True, warms_up=False, waits=False, middle=min),
        "It says 0.01 s, however long the passes take: that is the time it takes to order the work."
        " When is the work done?",
    ),
)
