"""Notebook 01: counting parameters and removing an output by hand; the line is in lines.py."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from course_lib.lessons.compare import tensors
from course_lib.lessons.exercise import Exercise, Mistake
from course_lib.lessons.lines import DESCENT, ORIGIN
from course_lib.lessons.prediction import Question


def count(widths: list[int]) -> int:
    """Weights and biases of a fully connected network with these widths, the inputs' first."""
    return sum(inputs * outputs + outputs for inputs, outputs in pairwise(widths))


def sizes(weight: Tensor) -> Tensor:
    """The sum of the absolute weights of each output; weight of shape [outputs, inputs]."""
    return weight.abs().sum(dim=1)


def remove_output(first: Tensor, second: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """Two layers' weights, [outputs, inputs] each, without output `index` of the first."""
    stay = torch.arange(len(first)) != index
    return first[stay], second[:, stay]


def remove_constant(
    weight: Tensor, bias: Tensor, index: int, constant: float
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that no longer reads input `index`, which was always `constant`,
    and still gives the same output; weight of shape [outputs, inputs]."""
    stay = torch.arange(weight.shape[1]) != index
    return weight[:, stay], bias + weight[:, index] * constant


def _matrix(rows: int, columns: int, start: int = 0) -> Tensor:
    """Distinct small numbers of both signs."""
    numbers = torch.arange(rows * columns, dtype=torch.float32) + start
    return (((numbers * 7 + 3) % 11 - 5) / 2).reshape(rows, columns)


def _without(tensor: Tensor, index: int, dim: int) -> Tensor:
    stay = [i for i in range(tensor.shape[dim]) if i != index]
    return tensor.index_select(dim, torch.tensor(stay))


def _rows_of_both(first: Tensor, second: Tensor, index: int) -> tuple[Tensor, Tensor]:
    stay = torch.arange(len(first)) != index
    return first[stay], second[stay]


def _zeroed(first: Tensor, second: Tensor, index: int) -> tuple[Tensor, Tensor]:
    first = first.clone()
    first[index] = 0
    return first, second


_COUNT = (
    Exercise(
        id="01.4",
        title="count the parameters",
        solution=count,
        cases=lambda: [([2, 3, 1],), ([3, 3],), ([5, 4, 4, 2],)],
        praise="You can now say how large a network is without building it.",
        mistakes=(
            Mistake(
                lambda widths: sum(a * b for a, b in pairwise(widths)),
                "You counted only the weights: each output has a bias as well.",
            ),
            Mistake(
                lambda widths: sum(a * b + a for a, b in pairwise(widths)),
                "You gave a bias to each input of a layer: biases belong to its outputs.",
            ),
            Mistake(
                lambda widths: sum(a * b for a, b in pairwise(widths)) + sum(widths),
                "You gave the network's inputs a bias too: they are data, none is learned there.",
            ),
            Mistake(
                lambda widths: sum(a * b + 1 for a, b in pairwise(widths)),
                "You counted one bias for each layer: each of its outputs has one.",
            ),
            Mistake(
                sum,
                "You counted the units: the parameters sit on the connections between them, and"
                " there is one weight for each pair.",
            ),
        ),
    ),
)

_REMOVAL = (
    Exercise(
        id="01.5",
        title="how large is an output's row?",
        solution=sizes,
        cases=lambda: [
            (torch.tensor([[1.0, -1.0], [0.5, 0.25]]),),
            (_matrix(3, 3),),
            (_matrix(4, 2),),
        ],
        compare=tensors,
        praise="This is the L1 norm, the score that notebook 05 begins with.",
        mistakes=(
            Mistake(
                lambda weight: weight.sum(dim=1),
                "Weights of opposite sign cancel in your sum: take absolute values first.",
            ),
            Mistake(
                lambda weight: weight.sum(dim=1).abs(),
                "You took the absolute value of each sum, in which weights of opposite sign have"
                " cancelled already: take it of the weights.",
            ),
            Mistake(
                lambda weight: weight.abs().sum(dim=0),
                "You summed down the columns, which scores the inputs: an output's weights lie in"
                " one row.",
            ),
            Mistake(
                lambda weight: weight.abs().amax(dim=1),
                "You took the largest absolute weight (the max norm): here all of them are added.",
            ),
            Mistake(
                lambda weight: weight.abs().sum(),
                "You summed the whole matrix into one number: each output gets a score of its own.",
            ),
        ),
    ),
    Exercise(
        id="01.6",
        title="remove an output",
        solution=remove_output,
        cases=lambda: [
            (_matrix(3, 3), _matrix(2, 3, 5), 0),
            (_matrix(3, 2), _matrix(3, 3, 4), 1),
            (_matrix(4, 3), _matrix(2, 4, 1), 3),
        ],
        compare=tensors,
        praise="Two layers change for every output that is removed: its own and the next.",
        mistakes=(
            Mistake(
                lambda first, second, index: (_without(first, index, 0), second),
                "The next layer still expects the old number of inputs: the weights that it"
                " applied to the removed output have to go as well.",
            ),
            Mistake(
                _rows_of_both,
                "You picked rows of the next layer: the removed output is one of its *inputs*, a"
                " column: second[:, stay].",
            ),
            Mistake(
                lambda first, second, index: (_without(first, index, 0), second[:, :-1]),
                "The shapes fit, but the next layer lost its last column: it now applies the"
                " removed output's weights to another one. Remove the same index in both.",
            ),
            Mistake(
                lambda first, second, index: (
                    _without(first, index, 1),
                    _without(second, index, 1),
                ),
                "You removed an input of the first layer: its rows make the outputs.",
            ),
            Mistake(
                _zeroed,
                "You set the row to zero: the weights are still stored and multiplied. Return"
                " smaller tensors.",
            ),
        ),
    ),
    Exercise(
        id="01.7",
        title="remove an output that is constant",
        solution=remove_constant,
        cases=lambda: [
            (_matrix(2, 3), torch.tensor([0.5, -1.0]), 0, 2.0),
            (_matrix(3, 3), torch.tensor([1.0, 0.0, -2.0]), 2, -0.5),
        ],
        compare=tensors,
        praise="Nothing is lost with a constant: the next layer's bias does its work.",
        mistakes=(
            Mistake(
                lambda weight, bias, index, constant: (_without(weight, index, 1), bias),
                "The column is gone, and with it what the constant brought to each output: the bias"
                " has to make up for it.",
            ),
            Mistake(
                lambda weight, bias, index, constant: (_without(weight, index, 1), bias + constant),
                "You added the constant itself: each output used to read it through a weight.",
            ),
            Mistake(
                lambda weight, bias, index, constant: (
                    _without(weight, index, 1),
                    bias - weight[:, index] * constant,
                ),
                "You took the contribution away a second time: it goes *into* the bias.",
            ),
            Mistake(
                lambda weight, bias, index, constant: (
                    weight,
                    bias + weight[:, index] * constant,
                ),
                "The bias is right, but the column is still there: the layer must read one input"
                " fewer.",
            ),
        ),
    ),
)

EXERCISES = (*DESCENT, *_COUNT, *_REMOVAL, ORIGIN)

QUESTIONS = (
    Question(
        "01.p1",
        "The learning rate above which the descent diverges",
        high=2.0,
        form=".2f",
        close=0.05,
        exact=True,
    ),
    Question(
        "01.p2",
        "The fewest hidden neurons that can separate the disc from the ring",
        low=1,
        high=32,
        form=".0f",
        close=0,
        exact=True,
    ),
    Question(
        "01.p3",
        "After batch norm, an output whose weights are all zero is",
        choices=("zero", "a constant other than zero", "still different for each input"),
    ),
    Question(
        "01.p4",
        "On new points of data without an intercept, the smaller error is that of",
        choices=("mx + b", "mx", "neither: they are equal"),
    ),
)
