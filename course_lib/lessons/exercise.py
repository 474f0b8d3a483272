"""An exercise: what is asked, what is right, and which mistakes are known well enough to be named.

A known mistake is written down as the function that makes it. So whoever makes it is told what went
wrong rather than only that something did, and the tests can prove that each message is reached.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from course_lib.lessons.compare import difference, shown
from course_lib.lessons.raw_errors import explained

Status = Literal["passed", "not attempted", "not yet"]
Case = tuple[Any, ...]


def call(answer: Callable[..., Any], case: Case) -> Any:
    """The result. Raises ValueError if what was given was changed, which later cells would meet."""
    tensors = [(part, part.clone()) for part in _parts(case) if isinstance(part, Tensor)]
    others = [(part, _items(part)) for part in _parts(case) if not isinstance(part, Tensor)]
    result = answer(*case)
    if not all(torch.equal(tensor, old) for tensor, old in tensors):
        raise ValueError(
            "it changes a tensor that it is given: write a = a + b, which makes a new one, "
            "not a += b."
        )
    for part, old in others:
        if [*map(id, _items(part))] != [*map(id, old)]:
            kind = "dictionary" if isinstance(part, dict) else "list"
            raise ValueError(f"it changes a {kind} that it is given: make a new one.")
    return result


def _parts(value: Any) -> Iterator[Any]:
    """The tensors, dictionaries and lists in a value, at whatever depth."""
    if isinstance(value, Tensor | dict | list):
        yield value
    if isinstance(value, dict | list | tuple):
        for item in _items(value):
            yield from _parts(item)


def _items(value: Any) -> list[Any]:
    return list(value.values() if isinstance(value, dict) else value)


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer, and what to tell whoever gives it."""

    wrong: Callable[..., Any]
    says: str


@dataclass(frozen=True)
class Exercise:
    """One exercise of the course.

    id: notebook and number, as in "05.2". cases: makes the arguments anew at each call, the
    smallest case first: it is the one that a message shows. use: how a case is put to an answer,
    where that is not answer(*case) — a class, or a function that changes what it is given.
    compare: what tells a result from the expected one, as a sentence, or None. handed_out: for a
    bug hunt, the function as the learner finds it, and its symptom.
    """

    id: str
    title: str
    solution: Callable[..., Any]
    cases: Callable[[], Iterable[Case]]
    mistakes: tuple[Mistake, ...]
    praise: str = ""
    use: Callable[[Callable[..., Any], Case], Any] = call
    compare: Callable[[Any, Any], str | None] = difference
    handed_out: Mistake | None = None


@dataclass(frozen=True)
class Verdict:
    """What the check found."""

    status: Status
    text: str


@dataclass(frozen=True)
class _Raised:
    """An answer ended with an exception instead of a result."""

    error: BaseException


def judge(exercise: Exercise, answer: Any) -> Verdict:
    """Put every case to the answer. Never raises, whatever the answer does."""
    if not callable(answer):
        if answer is None or answer is ...:
            return _not_attempted(exercise)
        return _not_yet(exercise, f"The check needs your function itself, not {shown(answer)}.")
    if is_stub(answer):
        return _not_attempted(exercise)
    problem = _signature_problem(exercise, answer)
    if problem:
        return _not_yet(exercise, problem)
    given = _results(exercise, answer)
    if all(result is None for result in given):
        return _not_yet(exercise, "It returns None: is a `return` missing?")
    expected = _results(exercise, exercise.solution)
    problems = [_problem(exercise, one, two) for one, two in zip(given, expected, strict=True)]
    wrong = next((place for place, problem in enumerate(problems) if problem), None)
    if wrong is None:
        return Verdict("passed", f"Exercise {exercise.id}: passed. {exercise.praise}".rstrip())
    if exercise.handed_out and _same(exercise, given, exercise.handed_out.wrong):
        says = exercise.handed_out.says
        return Verdict("not attempted", f"Exercise {exercise.id}: the bug is still in. {says}")
    for mistake in exercise.mistakes:
        if _same(exercise, given, mistake.wrong):
            return _not_yet(exercise, mistake.says, wrong, given[wrong], expected[wrong])
    return _not_yet(exercise, str(problems[wrong]), wrong, given[wrong], expected[wrong])


def is_stub(answer: Any) -> bool:
    """Is there nothing but `...`, `pass` or a docstring in it? For a class: in all its methods."""
    if inspect.isclass(answer):
        own = [value for value in vars(answer).values() if inspect.isfunction(value)]
        return bool(own) and all(is_stub(function) for function in own)
    code = getattr(answer, "__code__", None)
    if code is None:
        return False
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "NOP")]
    idle = ("LOAD_CONST", "RETURN_CONST", "RETURN_VALUE")
    return all(step.opname in idle and step.argval is None for step in steps)


def _results(exercise: Exercise, answer: Callable[..., Any]) -> list[Any]:
    return [_result(exercise, answer, case) for case in exercise.cases()]


def _result(exercise: Exercise, answer: Callable[..., Any], case: Case) -> Any:
    """The answer's result, under a fixed seed, which leaves the notebook's own draws alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return exercise.use(answer, case)
        except (Exception, SystemExit) as error:
            return _Raised(error)


def _problem(exercise: Exercise, given: Any, expected: Any) -> str | None:
    if isinstance(expected, _Raised):
        # The solution raises on purpose here: then so must the answer, in the same way.
        if isinstance(given, _Raised) and type(given.error) is type(expected.error):
            return None
        return f"It should raise {type(expected.error).__name__} here."
    if isinstance(given, _Raised):
        line = explained(_first_line(given.error))
        return f"It stops with {type(given.error).__name__}: {line}"
    if given is None and expected is not None:
        return "It returns None here: is a `return` missing?"
    try:
        return exercise.compare(given, expected)
    except Exception as error:
        return f"It gives {shown(given)}, which can't be compared ({_first_line(error)})."


def _same(exercise: Exercise, given: list[Any], wrong: Callable[..., Any]) -> bool:
    """Does this known mistake give, in every case, what the answer gave?"""
    results = _results(exercise, wrong)
    only_errors = all(isinstance(result, _Raised) for result in results)
    for one, two in zip(given, results, strict=True):
        if isinstance(one, _Raised) and isinstance(two, _Raised):
            if type(one.error) is not type(two.error):
                return False
            if only_errors and _first_line(one.error) != _first_line(two.error):
                return False  # an error of this type can have other causes
        elif isinstance(one, _Raised) or isinstance(two, _Raised) or _problem(exercise, one, two):
            return False
    return True


def _signature_problem(exercise: Exercise, answer: Callable[..., Any]) -> str | None:
    try:
        wanted, found = inspect.signature(exercise.solution), inspect.signature(answer)
    except (TypeError, ValueError):  # built in: it has no signature to look at
        return None
    required = [
        parameter
        for parameter in wanted.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    try:
        found.bind(*required)
    except TypeError:
        names = ", ".join(parameter.name for parameter in required)
        return f"It takes {found}, but is called with ({names}): keep the first line as it was."
    return None


def _not_attempted(exercise: Exercise) -> Verdict:
    return Verdict(
        "not attempted",
        f"Exercise {exercise.id}: not attempted yet."
        " Fill in the cell above, run it, then run this one again.",
    )


def _not_yet(
    exercise: Exercise, says: str, place: int | None = None, given: Any = None, expected: Any = None
) -> Verdict:
    lines = [f"Exercise {exercise.id}: not yet. {says}"]
    if place is not None:
        case = list(exercise.cases())[place]
        lines.append(f"  given     {', '.join(shown(value) for value in case)}")
        pair = _entry_that_differs(exercise, given, expected) or (_told(given), _told(expected))
        lines += [f"  expected  {pair[1]}", f"  yours     {pair[0]}"]
    return Verdict("not yet", "\n".join(lines))


def _entry_that_differs(exercise: Exercise, given: Any, expected: Any) -> tuple[str, str] | None:
    """Of two dictionaries with the same keys, the first entries that differ: all would be long."""
    if not isinstance(given, Mapping) or not isinstance(expected, Mapping):
        return None
    if set(given) == set(expected):
        for key, value in expected.items():
            if _problem(exercise, {key: given[key]}, {key: value}):
                return f"{key!r}: {shown(given[key])}", f"{key!r}: {shown(value)}"
    return None


def _told(result: Any) -> str:
    if isinstance(result, _Raised):
        return f"{type(result.error).__name__}: {_first_line(result.error)}"
    return shown(result)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else "no message"
