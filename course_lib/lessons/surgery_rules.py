"""Notebook 04: which columns belong to a channel, and which filters must go together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from course_lib.lessons.compare import tensors
from course_lib.lessons.exercise import Case, Exercise, Mistake
from course_lib.pruning.surgery import columns_of


def coupled_producers(projections: list[bool]) -> list[list[str]]:
    """Which layers make the channels that are added: one list of names for each group."""
    groups = [["before"]]
    for number, projection in enumerate(projections):
        if projection:
            groups.append([f"{number}.conv2", f"{number}.shortcut"])
        else:
            groups[-1].append(f"{number}.conv2")
    return groups


def all_free(projections: list[bool]) -> list[list[str]]:
    """Every block by itself."""
    own = [
        [f"{number}.conv2", *([f"{number}.shortcut"] if projection else [])]
        for number, projection in enumerate(projections)
    ]
    return [["before"], *own]


def projection_left_out(projections: list[bool]) -> list[list[str]]:
    """Without the projections."""
    groups = coupled_producers(projections)
    return [[name for name in group if "shortcut" not in name] for group in groups]


def all_tied(projections: list[bool]) -> list[list[str]]:
    """Everything in one group."""
    return [[name for group in coupled_producers(projections) for name in group]]


def without_before(projections: list[bool]) -> list[list[str]]:
    """Without what comes in."""
    groups = coupled_producers(projections)
    return [names for group in groups if (names := [name for name in group if name != "before"])]


def groups_without_order(answer: Callable[..., Any], case: Case) -> Any:
    """The groups that an answer names; the order within one says nothing."""
    found = answer(*case)
    several = isinstance(found, list | tuple)
    if several and all(isinstance(group, list | tuple | set) for group in found):
        return [sorted(group) for group in found]
    return found


COLUMNS = Exercise(
    id="04.7",
    title="The columns of a channel",
    solution=columns_of,
    cases=lambda: [
        (torch.tensor([0, 2]), 2),
        (torch.tensor([1]), 4),
        (torch.tensor([0, 3, 4]), 9),
        (torch.tensor([1, 2]), 1),
    ],
    compare=tensors,
    praise="Flatten goes through the positions of channel 0 first, then through channel 1's.",
    mistakes=(
        Mistake(
            lambda kept, columns: kept,
            "These are the channels themselves: after flatten each has `columns` columns.",
        ),
        Mistake(
            lambda kept, columns: (kept[:, None] + torch.arange(columns)).flatten(),
            "The columns of neighbours overlap: channel c doesn't begin at column c.",
        ),
        Mistake(
            lambda kept, columns: (kept * columns + torch.arange(columns)[:, None]).flatten(),
            "These are the right columns in the wrong order: all columns of a channel come before"
            " the next channel's.",
        ),
        Mistake(
            lambda kept, columns: kept * columns,
            "This is the first column of each kept channel: the other positions are missing.",
        ),
    ),
)

COUPLED = Exercise(
    id="04.8",
    title="Which filters must go together?",
    solution=coupled_producers,
    cases=lambda: [([True],), ([False],), ([True, False],), ([False, False, True, False],)],
    use=groups_without_order,
    praise="An identity hands the group on; a projection begins a new one.",
    mistakes=(
        Mistake(
            all_free,
            "Every block has a group of its own here. An identity shortcut has no filters that"
            " could be cut: what conv2 is added to is the value from before the block.",
        ),
        Mistake(
            projection_left_out,
            "The projections are in no group, but their filters make one of the two values that"
            " are added.",
        ),
        Mistake(
            all_tied,
            "Everything is one group here. A projection reads the old channels and makes new"
            " ones, so a group ends before it.",
        ),
        Mistake(
            without_before,
            'What comes in ("before") is missing: a first block without a projection adds to it.',
        ),
    ),
)
