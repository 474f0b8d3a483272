"""Notebook 09: a folder of your own images, from a split without leaks to the round you keep."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_lib.answers import balanced_accuracy as balanced_of
from course_lib.answers import confusion
from course_lib.lessons.exercise import Exercise, Mistake
from course_lib.lessons.prediction import Question
from course_lib.lessons.round_to_keep import ROUND_TO_KEEP

Parts = dict[str, list[str]]
Files = Mapping[str, bytes]


def _place(what: bytes) -> float:
    return int(hashlib.sha256(what).hexdigest()[:8], 16) / 16**8


def _part(place: float) -> str:
    return "train" if place < 0.70 else "val" if place < 0.85 else "test"


def _dealt(places: Mapping[str, float]) -> Parts:
    parts: Parts = {"train": [], "val": [], "test": []}
    for name in sorted(places):
        parts[_part(places[name])].append(name)
    return parts


def split_files(files: Files) -> Parts:
    """Names by part, decided by each file's bytes, so that copies stay together."""
    return _dealt({name: _place(content) for name, content in files.items()})


def _by_name(files: Files) -> Parts:
    return _dealt({name: _place(name.encode()) for name in files})


def _in_order(files: Files) -> Parts:
    names = sorted(files)
    first, second = int(0.70 * len(names)), int(0.85 * len(names))
    return {"train": names[:first], "val": names[first:second], "test": names[second:]}


def _wrong_border(files: Files) -> Parts:
    parts = split_files(files)
    return {**parts, "val": [], "test": sorted(parts["val"] + parts["test"])}


def _as_given(files: Files) -> Parts:
    parts = split_files(files)
    return {part: [name for name in files if name in names] for part, names in parts.items()}


def _file_cases() -> list[tuple[Any, ...]]:
    few = {"blue/1.jpg": b"sky", "red/1.jpg": b"rose", "red/copy.jpg": b"rose"}
    more = {f"{colour}/{i}.jpg": f"{colour}{i // 2}".encode() for colour in "rgb" for i in range(9)}
    return [(few,), (more,)]


def balanced_accuracy(labels: Tensor, answers: Tensor) -> float:
    """The mean over classes of the share of right answers; the library's, from two tensors."""
    classes = int(torch.cat([labels, answers]).max()) + 1
    return balanced_of(confusion(labels, answers, classes))


def _plain(labels: Tensor, answers: Tensor) -> float:
    return (labels == answers).double().mean().item()


def _over_answers(labels: Tensor, answers: Tensor) -> float:
    right = (labels == answers).double()
    return torch.stack([right[answers == c].mean() for c in answers.unique()]).mean().item()


def _over_all_numbers(labels: Tensor, answers: Tensor) -> float:
    classes = int(torch.cat([labels, answers]).max()) + 1
    right = (labels == answers).double()
    shares = [right[labels == c].sum() / max(1, int((labels == c).sum())) for c in range(classes)]
    return (sum(shares) / classes).item()  # type: ignore[union-attr]


def _with_empty_classes(labels: Tensor, answers: Tensor) -> float:
    right = (labels == answers).double()
    classes = range(int(labels.max()) + 1)
    return torch.stack([right[labels == c].mean() for c in classes]).mean().item()


def _sum_of_shares(labels: Tensor, answers: Tensor) -> float:
    right = (labels == answers).double()
    return sum(right[labels == c].mean().item() for c in labels.unique())


def _answer_cases() -> list[tuple[Any, ...]]:
    return [
        (torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 0])),
        (torch.tensor([0, 0, 0, 0, 1, 1, 3]), torch.tensor([0, 0, 0, 1, 1, 0, 3])),
        (torch.tensor([2, 2, 0, 1]), torch.tensor([2, 0, 0, 1])),
    ]


def _or_stopped(answer: Any, case: tuple[Any, ...]) -> Any:
    """The answer, or that it stopped at a class that training lacks, in whichever way."""
    train, test = case
    try:
        return answer(train, test)
    except (Exception, SystemExit):
        if set(_classes(test)) <= set(_classes(train)):
            raise
        return "stopped with an error"


Numbers = tuple[list[int], ...]


def _classes(files: Sequence[str]) -> list[str]:
    return [Path(file).parent.name for file in files]


def _places(classes: list[str], *parts: Sequence[str]) -> Numbers:
    return tuple([classes.index(name) for name in _classes(files)] for files in parts)


def number_labels(train: Sequence[str], test: Sequence[str]) -> Numbers:
    """The class number of every file "class/name.jpg", for both parts from one list of classes.

    Raises ValueError for a class that training lacks.
    """
    return _places(sorted(set(_classes(train))), train, test)


def each_by_itself(train: Sequence[str], test: Sequence[str]) -> Numbers:
    """The function of the bug hunt: every part makes its own list of classes."""
    parts = [_places(sorted(set(_classes(files))), files)[0] for files in (train, test)]
    return tuple(parts)


def _of_both(train: Sequence[str], test: Sequence[str]) -> Numbers:
    return _places(sorted(set(_classes([*train, *test]))), train, test)


def _as_met(train: Sequence[str], test: Sequence[str]) -> Numbers:
    return _places(list(dict.fromkeys(_classes(train))), train, test)


def _drops(train: Sequence[str], test: Sequence[str]) -> Numbers:
    known = set(_classes(train))
    return number_labels(train, [file for file in test if Path(file).parent.name in known])


def _label_cases() -> list[tuple[Any, ...]]:
    train = ["red/1.jpg", "blue/1.jpg", "green/1.jpg", "red/2.jpg"]
    return [
        (train, ["red/9.jpg", "blue/9.jpg"]),
        (train, ["green/8.jpg", "red/8.jpg"]),
        (train, ["red/7.jpg", "cyan/7.jpg"]),
    ]


EXERCISES = (
    Exercise(
        id="09.1",
        title="Split without leaks",
        solution=split_files,
        cases=_file_cases,
        mistakes=(
            Mistake(
                _by_name,
                "You hashed the name: two copies have two names, so they can land on both sides. "
                "What do copies have in common?",
            ),
            Mistake(
                _in_order,
                "You cut the sorted list at 70 % and 85 %: the last class then has no training "
                "images, and a copy can be cut from its twin. Ask `place` for every file.",
            ),
            Mistake(
                _wrong_border,
                "Your val part is always empty: its border is 0.85, where train's 0.70 and its own "
                "0.15 add up.",
            ),
            Mistake(
                _as_given,
                "The right files are in each part, but in the order in which they were given: go "
                "through `sorted(files)`.",
            ),
        ),
        praise="The part depends on the bytes alone: copies stay together, on every machine.",
    ),
    Exercise(
        id="09.2",
        title="Balanced accuracy",
        solution=balanced_accuracy,
        cases=_answer_cases,
        mistakes=(
            Mistake(
                _plain,
                "This is plain accuracy: every image counts the same, so the largest class rules. "
                "Take each class's share first.",
            ),
            Mistake(
                _over_answers,
                "You grouped by the answers: that tells how far an answer can be trusted. Group by "
                "the true classes.",
            ),
            Mistake(
                _over_all_numbers,
                "A class without images counted as 0. It has no accuracy at all: leave it out of "
                "the mean.",
            ),
            Mistake(
                _with_empty_classes,
                "The share of a class without images is 0 ÷ 0, which is NaN: leave it out of the "
                "mean.",
            ),
            Mistake(
                _sum_of_shares,
                "You added the classes' shares up: divide by how many classes there are.",
            ),
        ),
        praise="A rare class now weighs as much as a frequent one.",
    ),
    Exercise(
        id="09.3",
        title="Bug hunt: classes that trade names",
        solution=number_labels,
        cases=_label_cases,
        use=_or_stopped,
        handed_out=Mistake(
            each_by_itself,
            "Where the test part lacks a class, its numbers aren't those of training.",
        ),
        mistakes=(
            Mistake(
                _of_both,
                "A class that only the test part has was given a number, for which the network has "
                "no output, and it moved the others. The classes are those of training; for any "
                "other, stop with an error.",
            ),
            Mistake(
                _as_met,
                "You number the classes in the order in which they are met, so the numbers change "
                "with the order of the files. Sort the names.",
            ),
            Mistake(
                _drops,
                "You silently drop test images of a class that training lacks: the test then "
                "measures less than it says. Let it stop with an error.",
            ),
        ),
        praise="One list of classes, made once, from training: it belongs in the saved file.",
    ),
    ROUND_TO_KEEP,
)

QUESTIONS = (
    Question(
        id="09.p1",
        asks="test accuracy with random labels and every image there twice",
        form=".0%",
        close=0.06,
    ),
)
