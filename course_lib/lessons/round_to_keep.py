"""Notebook 09's exercise on the round to keep: a budget, a gate, and then accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from course_lib.lessons.exercise import Exercise, Mistake

Round = Mapping[str, Any]
History = Sequence[Round]


def choose_round(history: History, budget: int, tolerance: float) -> int | None:
    """The most accurate round, on validation images, that fits the budget and has recovered."""
    return _best(_recovered(_affordable(history, budget), history[0]["val"] - tolerance))


def _affordable(history: History, budget: int) -> list[Round]:
    return [line for line in history if line["macs"] <= budget]


def _recovered(history: History, level: float) -> list[Round]:
    return [line for line in history if line["val"] >= level]


def _best(fits: History, key: str = "val") -> int | None:
    return max(fits, key=lambda line: line[key])["round"] if fits else None


def _peeks(history: History, budget: int, tolerance: float) -> int | None:
    level = history[0]["val"] - tolerance
    return _best(_recovered(_affordable(history, budget), level), key="test")


def _no_budget(history: History, budget: int, tolerance: float) -> int | None:
    return _best(_recovered(history, history[0]["val"] - tolerance))


def _no_gate(history: History, budget: int, tolerance: float) -> int | None:
    return _best(_affordable(history, budget))


def _smallest(history: History, budget: int, tolerance: float) -> int | None:
    fits = _recovered(_affordable(history, budget), history[0]["val"] - tolerance)
    return min(fits, key=lambda line: line["macs"])["round"] if fits else None


def _below_budget(history: History, budget: int, tolerance: float) -> int | None:
    fits = [line for line in history if line["macs"] < budget]
    return _best(_recovered(fits, history[0]["val"] - tolerance))


def _above_gate(history: History, budget: int, tolerance: float) -> int | None:
    level = history[0]["val"] - tolerance
    return _best([line for line in _affordable(history, budget) if line["val"] > level])


def _within(history: History, budget: int, tolerance: float) -> int | None:
    level = history[0]["val"] - tolerance
    return _best([line for line in history if line["macs"] < budget and line["val"] > level])


def _from_the_best(history: History, budget: int, tolerance: float) -> int | None:
    level = max(line["val"] for line in history) - tolerance
    return _best(_recovered(_affordable(history, budget), level))


def _relative(history: History, budget: int, tolerance: float) -> int | None:
    return _best(_recovered(_affordable(history, budget), history[0]["val"] * (1 - tolerance)))


def _history(*rows: tuple[int, float, float]) -> list[dict[str, Any]]:
    return [
        {"round": number, "macs": macs, "val": val, "test": test}
        for number, (macs, val, test) in enumerate(rows)
    ]


def _round_cases() -> list[tuple[Any, ...]]:
    run = _history(
        (100, 0.95, 0.94), (80, 0.96, 0.93), (60, 0.94, 0.95), (40, 0.935, 0.92), (20, 0.90, 0.96)
    )
    # Eighths are exact in binary: a round can lie exactly at the gate.
    edge = _history((100, 0.75, 0.7), (80, 0.875, 0.6), (60, 0.625, 0.8), (40, 0.5, 0.9))
    limits = [(60, 0.125), (60, 0.14), (60, 0.2), (80, 0.125), (80, 0.0625)]
    whole = _history((100, 0.75, 0.7), (80, 0.625, 0.8))  # round 0 is the best
    return [
        *((run, 70, 0.02), (run, 100, 0.02), (run, 30, 0.02), (run, 50, 0.10)),
        *((edge, budget, tolerance) for budget, tolerance in limits),
        (whole, 100, 0.25),
    ]


ROUND_TO_KEEP = Exercise(
    id="09.4",
    title="The round to keep",
    solution=choose_round,
    cases=_round_cases,
    mistakes=(
        Mistake(
            _peeks,
            "You chose by test accuracy: then the test images have taken part in the choice, and "
            "their accuracy no longer tells about new images. Choose by validation.",
        ),
        Mistake(_no_budget, "The chosen round costs more than the budget: compare its `macs`."),
        Mistake(
            _no_gate,
            "You let a round through that lost more than `tolerance` against round 0. Where none "
            "is left, the answer is None.",
        ),
        Mistake(
            _smallest,
            "You took the smallest network. All that fit the budget are small enough: among them "
            "accuracy decides.",
        ),
        Mistake(
            _below_budget,
            'You left out a round that costs exactly the budget: "at most" is <=.',
        ),
        Mistake(
            _above_gate,
            'You left out a round that lies exactly at the gate: "at least" is >=.',
        ),
        Mistake(
            _within,
            'You left out rounds that lie exactly at a limit: "at most" is <=, "at least" is >=.',
        ),
        Mistake(
            _from_the_best,
            "Your gate counts from the best round: it counts from round 0, the full network.",
        ),
        Mistake(
            _relative,
            "You took `tolerance` as a share of round 0's accuracy: it is subtracted from it.",
        ),
    ),
    praise="A budget, a gate, and then the best validation accuracy.",
)
