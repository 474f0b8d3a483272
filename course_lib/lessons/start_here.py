"""Notebook 00: one small exercise and one prediction, to learn how both work."""

from __future__ import annotations

from collections.abc import Iterable

from course_lib.lessons.exercise import Case, Exercise, Mistake
from course_lib.lessons.prediction import Question


def share_left(before: int, after: int) -> float:
    """The share of something that is still there: 1 if nothing was removed, 0 if all was."""
    return after / before


def _counts() -> Iterable[Case]:
    return [(8, 2), (5, 5), (1_000, 209)]


EXERCISES = (
    Exercise(
        id="00.1",
        title="What is left",
        solution=share_left,
        cases=_counts,
        praise="A share of what was there before: so shares of different things can be compared.",
        mistakes=(
            Mistake(
                lambda before, after: 1 - after / before,
                "You gave the share that was removed: the exercise asks for what is still there.",
            ),
            Mistake(
                lambda before, after: before / after,
                "Your fraction is upside down: it says how many times as much there was before.",
            ),
            Mistake(
                lambda before, after: 100 * after / before,
                "You gave a percentage: the exercise asks for a share, a number from 0 to 1.",
            ),
            Mistake(
                lambda before, after: after // before,
                "You divided with //, which drops what comes after the decimal point.",
            ),
            Mistake(
                lambda before, after: before - after,
                "You gave how many were removed: the exercise asks for a share of what was there.",
            ),
        ),
    ),
)

QUESTIONS = (
    Question(
        id="00.p1",
        asks="Images per second, pruned over full",
        low=0.5,
        high=20.0,
        form=".1f",
        close=0.3,
    ),
)
