"""Every exercise of the course: what its check says to a stub, to the solution, to mistakes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import course_notebooks as course
import pytest

from course_lib.errors import CourseError
from course_lib.lessons import catalogue
from course_lib.lessons.exercise import Exercise, _Raised, _results, judge
from course_lib.lessons.prediction import Question

EXERCISES = {exercise.id: exercise for exercise in catalogue.exercises()}
QUESTIONS = {question.id: question for question in catalogue.questions()}

each = pytest.mark.parametrize("name", sorted(EXERCISES))


@cache
def notebook(number: str) -> Any:
    return course.read(next(p for p in course.NOTEBOOKS if p.stem.startswith(number)))


def page(name: str) -> course.OnPage:
    return course.exercises(notebook(name[:2]))[name]


def define(name: str, source: str) -> Callable[..., Any]:
    """What a cell defines, in a namespace that has the notebook's imports and the answers to the
    exercises before."""
    space: dict[str, Any] = {"__name__": "exercise"}
    exec(course.setup_source(notebook(name[:2])), space)
    for other, shown in course.exercises(notebook(name[:2])).items():
        if other < name:
            space[shown.name] = EXERCISES[other].solution
    exec(source, space)
    return space[page(name).name]


def test_notebooks_and_checks_know_the_same_exercises() -> None:
    shown = [name for path in course.NOTEBOOKS for name in course.checks(course.read(path))]
    assert sorted(shown) == sorted(EXERCISES)
    assert len(EXERCISES) == len(catalogue.exercises()), "an id is used twice"
    assert len(QUESTIONS) == len(catalogue.questions()), "an id is used twice"


@each
def test_stub_is_not_attempted(name: str) -> None:
    verdict = judge(EXERCISES[name], define(name, page(name).stub))
    assert verdict.status == "not attempted"
    assert name in verdict.text


@each
def test_folded_solution_passes(name: str) -> None:
    assert page(name).hint
    verdict = judge(EXERCISES[name], define(name, page(name).solution))
    assert verdict.status == "passed", verdict.text
    assert judge(EXERCISES[name], EXERCISES[name].solution).status == "passed"


@each
def test_solution_gives_results_to_compare(name: str) -> None:
    """Where it raised in every case by accident, whatever raises the same would pass."""
    exercise = EXERCISES[name]
    given = _results(exercise, exercise.solution)
    assert not all(isinstance(result, _Raised) for result in given)


@each
def test_each_known_mistake_gets_its_own_message(name: str) -> None:
    exercise = EXERCISES[name]
    assert len(exercise.mistakes) >= 2
    assert len({mistake.says for mistake in exercise.mistakes}) == len(exercise.mistakes)
    for mistake in exercise.mistakes:
        verdict = judge(exercise, mistake.wrong)
        assert verdict.status == "not yet"
        assert mistake.says in verdict.text, verdict.text
        assert "expected" in verdict.text
        assert "yours" in verdict.text


def _raises(*arguments: Any) -> Any:
    raise KeyError("no such layer")


def _exits(*arguments: Any) -> Any:
    raise SystemExit("bye")


ANYTHING = {
    "no arguments": lambda: 0,
    "too many arguments": lambda a, b, c, d, e, f, g, h, i: 0,
    "raises": _raises,
    "exits": _exits,
    "a string": lambda *arguments: "seven",
    "an empty list": lambda *arguments: [],
    "itself": lambda *arguments: arguments,
    "a type": dict,
    "built in": print,
}


@each
@pytest.mark.parametrize("kind", ANYTHING)
def test_anything_callable_gets_a_sentence(name: str, kind: str) -> None:
    verdict = judge(EXERCISES[name], ANYTHING[kind])
    assert verdict.status != "passed"
    assert verdict.text.startswith(f"Exercise {name}: ")
    assert "Traceback" not in verdict.text
    assert len(verdict.text) < 1500


@each
@pytest.mark.parametrize("thing", [3, "text", [1, 2]])
def test_what_is_no_function_gets_a_sentence(name: str, thing: Any) -> None:
    verdict = judge(EXERCISES[name], thing)
    assert verdict.status == "not yet"
    assert "needs your function itself" in verdict.text


@each
def test_solution_is_chosen_until_the_learner_passes(name: str) -> None:
    exercise: Exercise = EXERCISES[name]
    right = define(name, page(name).solution)
    assert catalogue.choose(name, right) is right
    assert catalogue.choose(name, _raises) is exercise.solution
    assert catalogue.choose(name, define(name, page(name).stub)) is exercise.solution


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_predictions_are_kept_or_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    question: Question = QUESTIONS[name]
    measured = question.choices[-1] if question.choices else question.high
    catalogue.predict(name, None).compare(measured)
    assert "No prediction yet" in " ".join(capsys.readouterr().out.split())
    guess = question.choices[0] if question.choices else question.low
    catalogue.predict(name, guess).compare(measured)
    assert "you predicted" in " ".join(capsys.readouterr().out.split())
    for wrong in ("nonsense", 1e12, [1], True):
        with pytest.raises(CourseError, match=f"Prediction {name} is"):
            catalogue.predict(name, wrong)
    code = "\n".join(cell.source for cell in course.code_cells(notebook(name[:2])))
    assert f'predict("{name}"' in code
