"""Predict, then run: the learner's guess, drawn on the figure that holds the answer."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from numbers import Real
from typing import Any

from matplotlib.axes import Axes

from course_lib.errors import CourseError
from course_lib.lessons.show import COLUMNS
from course_lib.plots.style import PURPLE, SMALL


@dataclass(frozen=True)
class Question:
    """What is to be predicted: a number between `low` and `high`, or one of `choices`.

    exact: the answer is the same on every machine, so no ≈ stands before it.
    form: how numbers are written, as in ".0%". close: a guess this near to the answer is called
    close.
    """

    id: str
    asks: str
    low: float = 0.0
    high: float = 1.0
    form: str = ".0%"
    close: float = 0.05
    choices: tuple[str, ...] = ()
    exact: bool = False

    def accept(self, guess: Any) -> Any:
        """The guess, or None where there is none yet. Raises CourseError for what can't be one.

        A choice may be typed in other letters, small for large, and with spaces around it.
        """
        if guess is None or guess is ...:
            return None
        if self.choices:
            by_words = {_plain(choice): choice for choice in self.choices}
            if not isinstance(guess, str) or _plain(guess) not in by_words:
                raise CourseError(
                    f"Prediction {self.id} is one of {', '.join(map(repr, self.choices))},"
                    f" not {guess!r}."
                )
            return by_words[_plain(guess)]
        number = isinstance(guess, Real) and not isinstance(guess, bool)
        if not number or not self.low <= guess <= self.high:
            share = " Write 25 % as 0.25." if self.form.endswith("%") else ""
            raise CourseError(
                f"Prediction {self.id} is a number from {self.low:g} to {self.high:g},"
                f" not {guess!r}.{share}"
            )
        return float(guess)


@dataclass(frozen=True)
class Prediction:
    """A question with the learner's guess, or with None."""

    question: Question
    guess: Any

    def draw(self, axes: Axes, along: str = "y") -> None:
        """A line at the guess, along the axis that shows the predicted quantity.

        Its colour and its dashes (long, dot, long) are those of no other line of the course.
        """
        if self.guess is None or self.question.choices:
            return
        line = axes.axhline if along == "y" else axes.axvline
        drawn = line(
            self.guess, color=PURPLE, ls=(0, (7, 2, 1.5, 2)), lw=2.2, label="your prediction"
        )
        # Where the figure has a legend of its own, the other marks are explained there.
        explained = axes.get_legend() is None and axes.figure.legends
        handles: dict[str, Any] = {"handles": [drawn]} if explained else {}
        axes.legend(**handles, fontsize=SMALL, frameon=False, handlelength=3.2)

    def compare(self, measured: Any) -> None:
        """Print guess and answer side by side."""
        question = self.question
        sign = "" if question.exact else "≈"
        answer = measured if question.choices else f"{sign}{format(measured, question.form)}"
        if self.guess is None:
            _say(f"{question.asks}: {answer}. (No prediction yet: make one above, and run again.)")
            return
        if question.choices:
            word = "as you predicted" if self.guess == measured else f"you predicted {self.guess}"
        else:
            near = abs(self.guess - measured) <= question.close
            word = f"you predicted {format(self.guess, question.form)}"
            word += ", close" if near else ""
        _say(f"{question.asks}: {answer}; {word}.")


def _plain(words: str) -> str:
    return "".join(words.split()).casefold()


def _say(text: str) -> None:
    print(textwrap.fill(text, COLUMNS))
