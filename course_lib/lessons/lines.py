"""Notebook 01, the line m·x + b: its loss, its gradient, its descent, and the line without b."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from course_lib.lessons.compare import tensors
from course_lib.lessons.exercise import Case, Exercise, Mistake, call


def mean_squared_error(m: Any, b: Any, x: Tensor, y: Tensor) -> Tensor:
    """The mean over all points of (m·x + b − y)²; x and y of shape [points]."""
    return ((m * x + b - y) ** 2).mean()


def gradient(m: Any, b: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The two derivatives of `mean_squared_error`: along m, along b."""
    error = m * x + b - y
    return (2 * error * x).mean(), (2 * error).mean()


def fit(x: Tensor, y: Tensor, rate: float, steps: int) -> Tensor:
    """Slope and intercept after `steps` of gradient descent from (0, 0), as a tensor of two."""
    line = torch.zeros(2, requires_grad=True)
    for _ in range(steps):
        line.grad = None
        loss = mean_squared_error(line[0], line[1], x, y)
        loss.backward()
        with torch.no_grad():
            line -= rate * line.grad  # type: ignore[operator]
    return line.detach()


def slope_through_origin(x: Tensor, y: Tensor) -> Tensor:
    """The m for which m·x has the smallest mean squared error."""
    return (x * y).sum() / (x * x).sum()


def _line_cases() -> list[Case]:
    x, y = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 6.0])
    return [(2.0, 1.0, x, y), (-0.5, 3.0, torch.tensor([-1.0, 0.5, 4.0, 2.0]), torch.ones(4))]


def _differentiable(answer: Callable[..., Any], case: Case) -> Any:
    """The loss; notebook 01 goes on to differentiate it, so its record must be kept."""
    m, b, x, y = case
    loss = call(answer, case)
    if isinstance(loss, Tensor | Number):
        m, b = torch.tensor(m, requires_grad=True), torch.tensor(b, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, on float(): the sentence below says it
            try:
                kept = answer(m, b, x, y).requires_grad
            except (AttributeError, RuntimeError, TypeError):
                kept = False
        if not kept:
            raise ValueError(
                "it leaves PyTorch on the way (NumPy, .item(), float() or torch.tensor(…)), and a"
                " later cell differentiates it: compute with x and y as they are."
            )
    return loss


def _error(m: Any, b: Any, x: Tensor, y: Tensor) -> Tensor:
    return m * x + b - y


def _descent(
    before: Callable[[Tensor], None], after: Callable[[Tensor], None], sign: float = -1
) -> Callable[..., Tensor]:
    """Gradient descent that does something to `line` before and after backward()."""

    def wrong(x: Tensor, y: Tensor, rate: float, steps: int) -> Tensor:
        line = torch.zeros(2, requires_grad=True)
        for _ in range(steps):
            before(line)
            mean_squared_error(line[0], line[1], x, y).backward()
            after(line)
            with torch.no_grad():
                line += sign * rate * line.grad  # type: ignore[operator]
        return line.detach()

    return wrong


def _nothing(line: Tensor) -> None:
    """Leave the gradient as it is: backward() then adds to it."""


def _reset(line: Tensor) -> None:
    if line.grad is not None:
        line.grad.zero_()


def _cleared_too_soon(line: Tensor) -> None:
    line.grad.zero_()  # type: ignore[union-attr]


def _made_anew(x: Tensor, y: Tensor, rate: float, steps: int) -> Tensor:
    line = torch.zeros(2, requires_grad=True)
    for _ in range(steps):
        line.grad = None
        mean_squared_error(line[0], line[1], x, y).backward()
        with torch.no_grad():
            line = line - rate * line.grad  # type: ignore[operator]
    return line.detach()


def _once(x: Tensor, y: Tensor, rate: float, steps: int) -> Tensor:
    return fit(x, y, rate, 1)


DESCENT = (
    Exercise(
        id="01.1",
        title="the loss of a line",
        solution=mean_squared_error,
        cases=_line_cases,
        use=_differentiable,
        compare=tensors,
        praise="A pair (m, b) has become one number that says how badly it fits.",
        mistakes=(
            Mistake(
                lambda m, b, x, y: _error(m, b, x, y).mean(),
                "You averaged the errors themselves, so those above and below the line cancel:"
                " square each one before the mean.",
            ),
            Mistake(
                lambda m, b, x, y: (_error(m, b, x, y) ** 2).sum(),
                "You added the squared errors up: the mean also divides by how many there are.",
            ),
            Mistake(
                lambda m, b, x, y: _error(m, b, x, y).mean() ** 2,
                "You squared the mean of the errors: first square, then average.",
            ),
            Mistake(
                lambda m, b, x, y: _error(m, b, x, y).abs().mean(),
                "You took the errors' size: the loss is their square, so that a large error counts"
                " for more than several small ones.",
            ),
            Mistake(
                lambda m, b, x, y: (_error(m, b, x, y) ** 2).mean().sqrt(),
                "This is the root of the loss: leave the mean of the squares as it is.",
            ),
            Mistake(
                lambda m, b, x, y: ((m * x - y) ** 2).mean(),
                "The intercept is missing: at x = 0 the line passes through b, not through 0.",
            ),
        ),
    ),
    Exercise(
        id="01.2",
        title="which way is down",
        solution=gradient,
        cases=_line_cases,
        compare=tensors,
        praise="These two numbers point uphill; the descent goes the other way.",
        mistakes=(
            Mistake(
                lambda m, b, x, y: ((2 * _error(m, b, x, y)).mean(),) * 2,
                "Along m the inner derivative is missing: m·x changes by x when m changes by 1.",
            ),
            Mistake(
                lambda m, b, x, y: tuple(-part for part in gradient(m, b, x, y)),
                "Both signs are flipped: the error is what the line says minus y.",
            ),
            Mistake(
                lambda m, b, x, y: tuple(part / 2 for part in gradient(m, b, x, y)),
                "Both are half of what they should be: the derivative of e² is 2e.",
            ),
            Mistake(
                lambda m, b, x, y: gradient(m, b, x, y)[::-1],
                "The two are in the wrong order: first along m, then along b.",
            ),
            Mistake(
                lambda m, b, x, y: tuple(part * len(x) for part in gradient(m, b, x, y)),
                "You summed over the points: the loss is a mean, and so is its derivative.",
            ),
            Mistake(
                lambda m, b, x, y: (
                    (2 * _error(m, b, x, y)).mean() * x.mean(),
                    (2 * _error(m, b, x, y)).mean(),
                ),
                "You multiplied two means: multiply each error with its own x, then average.",
            ),
        ),
    ),
    Exercise(
        id="01.3",
        title="bug hunt: the descent that swings",
        solution=fit,
        cases=lambda: [
            (torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 6.0]), 0.1, 3),
            (torch.tensor([-1.0, 1.0]), torch.tensor([0.0, 1.0]), 0.2, 10),
        ],
        praise="Each step now sees the slope of one loss only: the current one.",
        handed_out=Mistake(
            _descent(_nothing, _nothing),
            "The first step is right and the later ones are too long: what does line.grad hold when"
            " backward() is called for the second time?",
        ),
        mistakes=(
            Mistake(
                _descent(_nothing, _reset),
                "The line never leaves (0, 0): you cleared the gradient after backward() had filled"
                " it and before the step used it.",
            ),
            Mistake(
                _descent(_reset, _nothing, sign=1),
                "The gradient is cleared in time, but now you walk uphill: subtract it.",
            ),
            Mistake(
                _made_anew,
                "The second step has nothing to follow: line = line - … makes a new tensor, which"
                " autograd doesn't watch. Change line in place, with line -= ….",
            ),
            Mistake(
                _descent(_cleared_too_soon, _nothing),
                "There is no gradient yet to clear: before the first backward() line.grad is None,"
                " and so it is for a new line (line = line - …). Write line.grad = None instead.",
            ),
            Mistake(_once, "Only the first step counts: the others add nothing to the line."),
        ),
    ),
)

ORIGIN = Exercise(
    id="01.8",
    title="the best line through the origin",
    solution=slope_through_origin,
    cases=lambda: [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])),
        (torch.tensor([-1.0, 1.0, 4.0]), torch.tensor([0.5, 1.0, 2.0])),
    ],
    praise="With one parameter left, the minimum can be written down.",
    mistakes=(
        Mistake(
            lambda x, y: (y / x).mean(),
            "You averaged the slope of each point, which lets points near 0 count as much as"
            " distant ones: set the derivative along m to zero and solve for m.",
        ),
        Mistake(
            lambda x, y: y.sum() / x.sum(),
            "That makes the errors cancel on average; the squared error is smallest elsewhere:"
            " each error is weighted by its x in the derivative.",
        ),
        Mistake(
            lambda x, y: ((x - x.mean()) * y).sum() / ((x - x.mean()) ** 2).sum(),
            "That is the slope of the line *with* an intercept: through the origin nothing is"
            " subtracted from x.",
        ),
    ),
)
