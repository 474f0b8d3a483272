"""The verdict on an answer, and what tells a result from the expected one."""

from __future__ import annotations

from collections import UserList
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.lessons.compare import difference, shown, tensors, whole
from course_lib.lessons.exercise import Exercise, Mistake, is_stub, judge


def doubled(x: float) -> float:
    return 2 * x


SQUARED = Mistake(lambda x: x * x, "You squared it.")
HALVED = Mistake(lambda x: x / 2, "You halved it.")


def exercise(**changes: Any) -> Exercise:
    """Double a number. Squaring it gives the same for 2, so one case doesn't tell them apart."""
    standard = {
        "id": "99.1",
        "title": "double",
        "solution": doubled,
        "cases": lambda: [(2.0,), (3.0,)],
        "mistakes": (SQUARED, HALVED),
        "praise": "Well doubled.",
    }
    return Exercise(**{**standard, **changes})


# ---- the verdict


def test_right_answers_are_praised() -> None:
    verdict = judge(exercise(), lambda x: x + x)
    assert (verdict.status, verdict.text) == ("passed", "Exercise 99.1: passed. Well doubled.")


def unfinished(x: float) -> float:  # type: ignore[empty-body]
    """Return twice x."""


def dots(x: float) -> float:  # type: ignore[empty-body]
    """Return twice x."""
    ...


@pytest.mark.parametrize("answer", [None, ..., unfinished, dots, lambda x: None])
def test_stubs_are_not_attempted(answer: Any) -> None:
    verdict = judge(exercise(), answer)
    assert verdict.status == "not attempted"
    assert verdict.text.startswith("Exercise 99.1: not attempted yet")


def test_computing_without_returning_is_told_from_a_stub() -> None:
    def answer(x):
        _ = 2 * x

    verdict = judge(exercise(), answer)
    assert verdict.status == "not yet"
    assert verdict.text == "Exercise 99.1: not yet. It returns None: is a `return` missing?"


def test_a_return_that_is_missing_on_one_way_only_is_named() -> None:
    verdict = judge(exercise(), lambda x: 4.0 if x == 2 else None)
    assert verdict.status == "not yet"
    assert "is a `return` missing?" in verdict.text


def test_a_known_mistake_is_named_with_the_case_the_expected_and_the_given() -> None:
    assert judge(exercise(), lambda x: x / 2).text == (
        "Exercise 99.1: not yet. You halved it.\n  given     2.0\n  expected  4.0\n  yours     1.0"
    )


def test_of_a_dictionary_only_the_first_entry_that_differs_is_shown() -> None:
    asked = exercise(
        solution=lambda x: {"same": 1, "twice": 2 * x, "half": x / 2},
        cases=lambda: [(2.0,)],
        mistakes=(),
    )
    assert judge(asked, lambda x: {"same": 1, "twice": x, "half": x}).text == (
        "Exercise 99.1: not yet. At 'twice': The numbers differ."
        "\n  given     2.0\n  expected  'twice': 4.0\n  yours     'twice': 2.0"
    )
    other_keys = judge(asked, lambda x: {"twice": x}).text
    assert "expected  {'same': 1, 'twice': 4.0, 'half': 1.0}" in other_keys


def test_the_case_shown_is_the_first_that_is_wrong() -> None:
    text = judge(exercise(), lambda x: x**2).text
    assert "You squared it." in text
    assert "given     3.0" in text and "expected  6.0" in text and "yours     9.0" in text


def test_a_mistake_is_named_only_if_every_case_agrees_with_it() -> None:
    text = judge(exercise(), lambda x: 1.0 if x == 2 else 7.0).text  # halved, in one case
    assert "halved" not in text
    assert "The numbers differ." in text


def test_an_answer_that_raises_is_told_what_it_raised() -> None:
    text = judge(exercise(), lambda x: x.no_such_thing).text
    assert "It stops with AttributeError: 'float' object has no attribute" in text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            lambda x: np.mean(torch.ones(3)),
            "argument 'axis'. NumPy's functions don't take tensors: a tensor has its own, as in",
        ),
        (lambda x: torch.ones(3) ^ 2, "A power is ** in Python, not ^."),
        (lambda x: x ^ 2, "A power is ** in Python, not ^."),
        (lambda x: torch.ones(3).grad.norm(), "a .grad is, until backward() has filled it"),
        (lambda x: x * torch.ones(3).grad, "a .grad is, until backward() has filled it"),
        (lambda x: 1.0 if torch.ones(3) else x, "ask `is not None`, or reduce it"),
        (
            lambda x: nn.Linear(3, 2)(torch.ones(4, 5)),
            "The columns of the first table (5) must be as many as the rows of the second (3).",
        ),
        (
            lambda x: nn.Conv2d(1, 1, 1)(nn.ReLU(torch.ones(1, 1, 2, 2))),
            "expected one of. nn.ReLU() makes a layer: write torch.relu(x), or nn.ReLU()(x).",
        ),
        (lambda x: {}[x], "It stops with KeyError: 2.0\n"),
    ],
)
def test_a_common_error_is_explained(answer: Any, words: str) -> None:
    text = judge(exercise(), answer).text
    assert text.startswith("Exercise 99.1: not yet. It stops with ")
    assert words in text


def test_a_mistake_may_be_an_exception() -> None:
    cut_short = Mistake(lambda x: [][int(x)], "You went past the end.")
    asked = exercise(mistakes=(HALVED, cut_short))
    text = judge(asked, lambda x: [1, 2][int(x) + 9]).text
    assert "You went past the end." in text
    assert "yours     IndexError: list index out of range" in text
    text = judge(asked, lambda x: "abc"[int(x) + 9]).text
    assert "You went past" not in text, "an error of this type can have other causes"
    assert "It stops with IndexError: string index out of range" in text


def test_an_answer_must_raise_where_the_solution_does() -> None:
    def refused(x):
        if x < 0:
            raise ValueError("negative")
        return 2 * x

    asked = exercise(solution=refused, cases=lambda: [(1.0,), (-1.0,)])
    assert judge(asked, refused).status == "passed"
    assert "It should raise ValueError here." in judge(asked, doubled).text
    assert judge(asked, lambda x: [][5] if x < 0 else 2 * x).status == "not yet"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: 4.0, "It takes (), but is called with (x)"),
        (lambda x, y: 4.0, "It takes (x, y), but is called with (x)"),
        (lambda *, x: 2 * x, "It takes (*, x), but is called with (x)"),
    ],
)
def test_another_signature_is_named(answer: Any, words: str) -> None:
    assert words in judge(exercise(), answer).text


def test_a_default_of_ones_own_is_no_other_signature() -> None:
    assert judge(exercise(), lambda x, factor=2: factor * x).status == "passed"


def test_the_result_in_place_of_the_function_is_refused() -> None:
    assert "needs your function itself, not 4.0" in judge(exercise(), 4.0).text


def test_a_handed_out_bug_is_recognised_until_it_is_gone() -> None:
    hunt = exercise(handed_out=Mistake(lambda x: x + 2, "Look at 3."))
    verdict = judge(hunt, lambda x: x + 2.0)
    assert verdict.status == "not attempted"
    assert verdict.text == "Exercise 99.1: the bug is still in. Look at 3."
    assert judge(hunt, doubled).status == "passed"


def test_an_answer_cannot_change_the_notebooks_random_draws() -> None:
    def seeded(values):
        torch.manual_seed(7)
        return sum(values)

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert judge(exercise(solution=sum, cases=lambda: [([1, 2],)]), seeded).status == "passed"
    torch.testing.assert_close(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("answer", "changed"),
    [
        (lambda values, named: values.pop() + len(named), "list"),
        (lambda values, named: values.reverse() or values[0] + len(named), "list"),
        (lambda values, named: values[-1] + named.pop("a"), "dictionary"),
        (lambda values, named: sorted(values)[-1] + len(dict(named)), None),
    ],
)
def test_an_answer_that_changes_what_holds_its_values_is_told_so(
    answer: Any, changed: str | None
) -> None:
    asked = exercise(
        solution=lambda values, named: values[-1] + len(named),
        cases=lambda: [([1, 2], {"a": 1}), ([3, 4, 5], {"a": 1})],
    )
    verdict = judge(asked, answer)
    assert verdict.status == ("not yet" if changed else "passed")
    assert changed is None or f"it changes a {changed} that it is given" in verdict.text


def test_an_answer_that_changes_a_given_tensor_is_told_so() -> None:
    def in_place(one, by_name):
        by_name["two"][0] += one
        return by_name["two"][0]

    asked = exercise(
        solution=lambda one, by_name: by_name["two"][0] + one,
        cases=lambda: [(torch.ones(2), {"two": [torch.ones(2)]}), (torch.ones(2), {"two": [1.0]})],
    )
    assert judge(asked, in_place).status == "not yet"
    assert "it changes a tensor that it is given: write a = a + b" in judge(asked, in_place).text
    assert judge(asked, lambda one, by_name: one + by_name["two"][0]).status == "passed"


def test_random_answers_are_compared_under_the_same_seed() -> None:
    asked = exercise(solution=lambda n: torch.rand(n), cases=lambda: [(3,)])
    assert judge(asked, lambda n: torch.rand(n)).status == "passed"


class Hostile:
    """Nothing can be asked of it without an error."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Forgetful(nn.Module):
    def __init__(self) -> None:
        pass  # super().__init__() is missing: a common slip


@pytest.mark.parametrize("expected", [1.0, "a", [1], {"a": 1}, (1,)])
def test_a_result_that_can_be_neither_compared_nor_shown_gets_a_sentence(expected: Any) -> None:
    asked = exercise(solution=lambda x: expected)
    verdict = judge(asked, lambda x: Hostile())
    assert verdict.status == "not yet"
    assert verdict.text.startswith("Exercise 99.1: not yet. It gives")


# ---- stubs


class Untouched:
    """A stub."""

    def first(self) -> None:
        """Do it."""
        ...

    def second(self) -> None: ...


class HalfDone:
    def first(self) -> int:
        return 1

    def second(self) -> None: ...


class Empty:
    pass


def test_stubs_are_told_from_answers() -> None:
    assert is_stub(Untouched) and is_stub(unfinished) and is_stub(dots)
    assert not is_stub(HalfDone) and not is_stub(Empty)
    assert not is_stub(doubled) and not is_stub(lambda x: 0) and not is_stub(print)


# ---- what differs


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1, 1.0),
        (np.float32(0.1), 0.1),
        (torch.tensor(2.0), 2),
        (2.00001, torch.tensor(2.0)),
        (np.array([1, 2]), torch.tensor([1.0, 2.0])),
        ([1.0, 2.0], torch.tensor([1.0, 2.0])),
        (torch.tensor([1, 2]), [1, 2]),
        ((1, 2), [1, 2]),
        (torch.tensor(True), True),
        (np.bool_(False), False),
        (float("nan"), float("nan")),
        (torch.ones(2, requires_grad=True), torch.ones(2)),
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2)),
        ({"a": torch.ones(2)}, {"a": [1, 1]}),
        (None, None),
        ("red", "red"),
    ],
)
def test_the_same_in_another_form_is_the_same(given: Any, expected: Any) -> None:
    assert difference(given, expected) is None


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        (1.001, 1.0, "The numbers differ."),
        (float("nan"), 1.0, "The numbers differ."),
        (torch.ones(2), torch.ones(3), "a tensor of shape [2] where a tensor of shape [3]"),
        (torch.ones(1), 1.0, "a tensor of shape [1] where one number is expected"),
        ([1.0], 1.0, "a list of 1 where one number is expected"),
        ("1", 1.0, "'1', of type str, where one number is expected"),
        (None, 1.0, "None, of type NoneType"),
        (1, True, "It gives 1."),
        (True, "True", "It gives True."),
        ("blue", "red", "It gives 'blue'."),
        ([1], [1, 2], "a list of 1 where a list of 2 is expected"),
        ("ab", ["a", "b"], "It gives 'ab' where a list of 2 is expected."),
        ([1, [2, 4]], [1, [2, 3]], "At place 1, place 1: The numbers differ."),
        (3, {"a": 1}, "It gives 3 where a dictionary is expected."),
        ({"b": 1}, {"a": 1}, "lacks ['a'] and has ['b'] too many"),
        ({"a": 2}, {"a": 1}, "At 'a': The numbers differ."),
        (nn.ReLU(), nn.ReLU(), "another network"),
    ],
)
def test_what_differs_is_said(given: Any, expected: Any, words: str) -> None:
    assert words in str(difference(given, expected))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.tensor(2.0), torch.tensor(2.0)),
        ((torch.ones(2), torch.ones(1)), (torch.ones(2), torch.ones(1))),
        ([torch.ones(2), torch.ones(1)], (torch.ones(2), torch.ones(1))),
        ({"a": torch.ones(2), "b": 2}, {"b": 2.0, "a": torch.ones(2)}),
        (2, 2.0),
    ],
)
def test_a_tensor_for_a_tensor_is_the_same(given: Any, expected: Any) -> None:
    assert tensors(given, expected) is None


NO_TENSOR = (
    "where a tensor is expected: leave out .item(), float() or tolist(), or wrap it in"
    " torch.tensor(…)."
)


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        (2.0, torch.tensor(2.0), f"It gives a float {NO_TENSOR}"),
        (2, torch.tensor(2.0), f"It gives an int {NO_TENSOR}"),
        ([1.0, 1.0], torch.ones(2), f"It gives a list {NO_TENSOR}"),
        (np.ones(2), torch.ones(2), f"It gives a NumPy array {NO_TENSOR}"),
        ((1.0, torch.ones(1)), (torch.tensor(1.0), torch.ones(1)), "At place 0: It gives a float"),
        (torch.ones(2), (torch.ones(()), torch.ones(())), "[2] where 2 tensors are expected, one"),
        ({"a": [1.0]}, {"a": torch.ones(1)}, "At 'a': It gives a list where a tensor"),
        ({}, {"a": torch.ones(1)}, "lacks ['a']"),
        ((torch.ones(1),), (torch.ones(1), torch.ones(1)), "a tuple of 1 where a tuple of 2"),
        (torch.ones(2), torch.zeros(2), "The numbers differ."),
        ("1", torch.ones(()), "'1', of type str"),
        (None, torch.ones(()), "None, of type NoneType"),
    ],
)
def test_what_is_no_tensor_is_said(given: Any, expected: Any, words: str) -> None:
    assert words in str(tensors(given, expected))


@pytest.mark.parametrize("given", [36.0, 36.5, np.float64(36), np.floor(36.7), torch.tensor(36.0)])
def test_what_is_no_whole_number_is_said(given: Any) -> None:
    assert "where a whole number is expected: divide with //" in str(whole(given, 36))


def test_a_whole_number_of_any_kind_is_one() -> None:
    for given in (36, np.int64(36), torch.tensor(36)):
        assert whole(given, 36) is None
    assert whole(35, 36) == "The numbers differ."
    assert "of type str" in str(whole("36", 36))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1 / 3, "0.3333"),
        (torch.tensor([0.5, 2.0]), "[0.5, 2.0]"),
        (torch.tensor([1, 2]), "[1, 2]"),
        (torch.zeros(4, 5), "a tensor of shape [4, 5]"),
        (np.zeros(20), "an array of shape [20]"),
        (np.array([1.5]), "[1.5]"),
        (nn.Linear(2, 3), "a Linear with 9 parameters"),
        (nn.Identity(), "an Identity with 0 parameters"),
        ({"a": (1.23456,)}, "{'a': (1.235,)}"),
        (doubled, "the function doubled"),
        (UserList([1]), "[1]"),
        (Hostile(), "a Hostile that can't be shown"),
        ([Forgetful(), 1], "[a Forgetful that can't be shown, 1]"),
        ("x" * 300, "'" + "x" * 199 + "…"),
    ],
)
def test_values_are_shown_in_one_short_line(value: Any, words: str) -> None:
    assert shown(value) == words
