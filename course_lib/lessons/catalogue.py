"""All exercises and predictions of the course, by notebook, and what a notebook calls."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

from course_lib.errors import CourseError
from course_lib.lessons import progress
from course_lib.lessons.exercise import Exercise, judge
from course_lib.lessons.prediction import Prediction, Question
from course_lib.lessons.show import COLUMNS

HANGING = " " * 4  # what further lines of a message begin with

# The number of a notebook → the module of its exercises, which is named like the notebook.
LESSONS = {
    "00": "start_here",
    "01": "neural_networks",
    "02": "residual_blocks",
    "03": "vanishing_gradients",
    "04": "kernel_surgery",
    "05": "pruning_criteria",
    "06": "iterative_pruning",
    "07": "small_from_scratch",
    "08": "real_impact",
    "09": "your_own_data",
}


def check(exercise: str, answer: Any, keep: bool = True) -> None:
    """Print whether the answer to an exercise is right, and if not, what is wrong with it.

    keep: note the result as the learner's. Not for an answer that the notebook itself gives.
    """
    found = find(exercise)
    verdict = judge(found, answer)
    for line in verdict.text.splitlines():
        print(textwrap.fill(line, COLUMNS, subsequent_indent=HANGING))
    if keep and verdict.status != "not attempted":
        progress.record(exercise, verdict.status)


def choose(exercise: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    """The learner's function if it passes its check, else the course's own, so that all later
    cells work either way."""
    found = find(exercise)
    return answer if judge(found, answer).status == "passed" else found.solution


def predict(question: str, guess: Any) -> Prediction:
    """Keep the learner's guess, so that it can be drawn on the figure with the answer.

    One that can't be a guess, such as 80 where a share is asked for, is told so and not kept. It
    doesn't raise: `prediction` would go on holding the one before, of another question.
    """
    found = next((entry for entry in _questions(question) if entry.id == question), None)
    if found is None:
        raise CourseError(f"The course asks no question {question!r}: see the cell as it was.")
    try:
        prediction = Prediction(found, found.accept(guess))
    except CourseError as error:
        print(textwrap.fill(f"{error} Correct the cell, and run it again.", COLUMNS))
        return Prediction(found, None)
    if prediction.guess is not None:
        progress.record(question, "passed")
    return prediction


def find(exercise: str) -> Exercise:
    """The exercise of this id. Raises CourseError if there is none."""
    found = next((entry for entry in _exercises(exercise) if entry.id == exercise), None)
    if found is None:
        raise CourseError(f"The course has no exercise {exercise!r}: ids look like '05.2'.")
    return found


def exercises() -> list[Exercise]:
    """Every exercise of the course, in order."""
    return [entry for number in LESSONS for entry in _exercises(number)]


def questions() -> list[Question]:
    """Every prediction that is asked for, in order."""
    return [entry for number in LESSONS for entry in _questions(number)]


def show_progress() -> None:
    """Print what is done so far, notebook by notebook."""
    titles = {number: name.replace("_", " ") for number, name in LESSONS.items()}
    ids = [entry.id for entry in exercises()] + [entry.id for entry in questions()]
    print(progress.table(ids, titles))


def source(exercise: str) -> str:
    """The text of the course's own solution, for whoever wants to read it as code."""
    return inspect.getsource(find(exercise).solution)


def _exercises(name: str) -> tuple[Exercise, ...]:
    return getattr(_lesson(str(name)[:2]), "EXERCISES", ())


def _questions(name: str) -> tuple[Question, ...]:
    return getattr(_lesson(str(name)[:2]), "QUESTIONS", ())


def _lesson(number: str) -> ModuleType | None:
    """The module is imported when it is asked for: most notebooks need only their own."""
    name = f"{__package__}.{LESSONS.get(number, 'none')}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None
