"""Confusion and balanced accuracy against scikit-learn, changed answers against a plain loop."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from course_lib.answers import (
    RIGHT_WRONG,
    WRONG_RIGHT,
    WRONG_WRONG,
    accuracy_by_class,
    balanced_accuracy,
    changed,
    confusion,
    share_right,
)

CLASSES = 4
ANSWERED = st.lists(st.tuples(*[st.integers(0, CLASSES - 1)] * 3), min_size=1, max_size=40)


def columns(rows: list[tuple[int, int, int]]) -> list[torch.Tensor]:
    return [torch.tensor(column) for column in zip(*rows, strict=True)]


@given(ANSWERED)
def test_confusion_and_balanced_accuracy_are_scikit_learns(rows):
    labels, answers, _ = columns(rows)
    matrix = confusion(labels, answers, CLASSES)
    expected = confusion_matrix(labels, answers, labels=range(CLASSES))
    assert matrix.tolist() == expected.tolist()
    with warnings.catch_warnings():
        # Answers of a class that has no images: it says so and leaves that class out, as we do.
        warnings.simplefilter("ignore")
        score = balanced_accuracy_score(labels, answers)
    assert balanced_accuracy(matrix) == pytest.approx(score, abs=1e-12)
    assert share_right(labels, answers) == pytest.approx(accuracy_score(labels, answers), abs=1e-12)


@given(ANSWERED)
def test_changed_images_are_exactly_those_whose_answer_differs(rows):
    found = changed(*columns(rows))
    slow: dict[str, list[int]] = {RIGHT_WRONG: [], WRONG_RIGHT: [], WRONG_WRONG: []}
    for i, (label, before, after) in enumerate(rows):
        if before != after:
            kinds = {before: RIGHT_WRONG, after: WRONG_RIGHT}
            slow[kinds.get(label, WRONG_WRONG)].append(i)
    assert found == slow


def test_a_case_by_hand():
    """9 of class 0, all right; 1 of class 1, taken for 0; none of class 2."""
    matrix = confusion(torch.tensor([0] * 9 + [1]), torch.zeros(10, dtype=torch.int64), 3)
    assert matrix.tolist() == [[9, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert accuracy_by_class(matrix) == [1.0, 0.0, None]
    assert balanced_accuracy(matrix) == 0.5, "though nine tenths of the images are right"
