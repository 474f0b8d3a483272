"""The challenge: the smallest network over a gate of accuracy, on images nobody has seen.

They are generated vehicles drawn under the teacher's secret. `docs/challenge.md` has the rules.
"""

from __future__ import annotations

import csv
import datetime
import getpass
import hashlib
import io
import math
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from course_lib.checkpoint import write_text
from course_lib.data import GENERATED_SIZE, Data, Split
from course_lib.errors import CourseError
from course_lib.measure import count_macs, count_parameters
from course_lib.submission import IMAGE_SHAPE, Submission, read_submission
from course_lib.training import Loader, predict
from course_lib.vehicles import CLASSES, draw_many

GATE, IMAGES = 0.95, 2_000
MOST_IMAGES = 20_000
SECRET = "COURSE_CHALLENGE_SEED"  # the environment variable
SHORTEST_SECRET = 8  # letters: whoever guesses it can draw the images
NAME_LETTERS = 40
BATCH = 32  # images: little memory, since a network may be as wide as its file


@dataclass(frozen=True)
class Entry:
    """A line of the leaderboard. seed: a trace of the secret, which doesn't give it away."""

    name: str
    right: int
    images: int
    gate: float
    parameters: int
    macs: int
    file: str
    seed: str
    date: str

    @property
    def accuracy(self) -> float:
        """The share of the images that were answered rightly."""
        return self.right / self.images

    @property
    def standard_error(self) -> float:
        """How far accuracy on so many other images would typically lie from this one (binomial)."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.images)

    @property
    def passed(self) -> bool:
        """Whether the accuracy reaches the gate: at it is over it, and nothing else counts."""
        return self.accuracy >= self.gate

    @property
    def rank(self) -> tuple[int, ...]:
        """Small is better: over the gate the smallest network, under it the most accurate one."""
        size = (self.parameters, self.macs)
        return (0, *size, -self.right) if self.passed else (1, -self.right, *size)


def score_files(
    files: Sequence[Path],
    secret: str,
    *,
    gate: float = GATE,
    images: int = IMAGES,
    board: Path | None = None,
    name: str | None = None,
) -> tuple[str, list[str]]:
    """Score submissions and enter them on the board, if there is one.

    `files`: files, and folders in place of the .pt files in them. Returns the table as text and a
    sentence for each file that can't be scored; the others are scored all the same. Entries are
    called like their files, or `name` if there is one file.
    Raises CourseError for a wrong option, or a board that can't be read, written or compared.
    """
    if not 0 < gate < 1:
        raise CourseError(f"--gate can't be {gate}: it must lie between 0 and 1, as 0.95 does.")
    if not 1 <= images <= MOST_IMAGES:
        raise CourseError(f"--images can't be {images}: it must be from 1 to {MOST_IMAGES:,}.")
    files = [file for path in files for file in files_in(path)]
    if name is not None:
        name = entrant(name)
        if len(files) > 1:
            raise CourseError("--name names one entry: give one file with it.")
    seed_of(secret)  # refuses a short one before files are read
    submissions: dict[str, Submission] = {}
    refused = []
    for path in files:
        try:
            called = name or entrant(path.stem)
            if called in submissions:
                raise CourseError(f"Two files would be entered as {called}: rename {path}.")
            submissions[called] = read_submission(path)
        except CourseError as error:
            refused.append(str(error))
    if not submissions:
        return "", refused
    entries = score(submissions, secret, gate, images)
    kept, notes = enter(entries, [], "") if board is None else enter_on(board, entries)
    return "\n".join([table(kept), *notes]), refused


def score(
    submissions: Mapping[str, Submission], secret: str, gate: float = GATE, images: int = IMAGES
) -> list[Entry]:
    """An entry for each submission by name: right answers on images drawn under the secret, size.

    The images are the same for all, and are kept nowhere.
    """
    split = Split(*draw_many(seed_of(secret), "challenge", images, GENERATED_SIZE))
    return [
        Entry(
            name=name,
            right=count_right(submission, split),
            images=images,
            gate=gate,
            parameters=count_parameters(submission.network),
            macs=count_macs(submission.network, IMAGE_SHAPE),
            file=submission.file,
            seed=trace_of(secret),
            date=datetime.date.today().isoformat(),
        )
        for name, submission in submissions.items()
    ]


# ---- the secret


def ask_secret(given: str | None = None) -> str:
    """The teacher's secret: given, from the environment, or asked for at a terminal.

    Raises CourseError where there is none.
    """
    secret = given or os.environ.get(SECRET)
    if secret is None and sys.stdin.isatty():
        secret = getpass.getpass("The secret that the images are drawn under: ")
    if not secret:
        raise CourseError(f"The images are drawn under a secret: put it into {SECRET}.")
    return secret


def seed_of(secret: str) -> int:
    """The seed of the images. Raises CourseError for a secret that is soon guessed."""
    if len(secret) < SHORTEST_SECRET:
        raise CourseError(
            f"The secret is too short to stay one: choose at least {SHORTEST_SECRET} letters."
        )
    return int.from_bytes(hashlib.sha256(f"images {secret}".encode()).digest()[:8])


def trace_of(secret: str) -> str:
    """Four hexadecimal digits that tell two secrets apart, but fit far too many to find one."""
    return hashlib.sha256(f"trace {secret}".encode()).hexdigest()[:4]


# ---- scores


def count_right(submission: Submission, split: Split) -> int:
    """How many images are answered rightly; an answer that is no number is wrong. On the CPU."""
    data = Data("challenge", CLASSES, split, split, split, submission.mean, submission.std)
    batches = Loader(data, torch.device("cpu"), batch_size=BATCH).batches("test")
    logits, labels = predict(submission.network, batches)
    right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
    return int(right.sum())


# ---- the leaderboard


def files_in(path: Path) -> list[Path]:
    """The file itself, or the .pt files of a folder. Raises CourseError if it has none."""
    if not path.is_dir():
        return [path]
    # A Mac's archive has a ._anna.pt beside anna.pt.
    files = [f for f in sorted(path.iterdir()) if f.suffix.lower() == ".pt" and f.name[0] != "."]
    if not files:
        raise CourseError(f"{path} holds no .pt file: name a folder of networks, or a file.")
    return files


def entrant(name: str) -> str:
    """What an entry is called. Raises CourseError for a name that can't stand on a board."""
    name = unicodedata.normalize("NFC", name)  # a Mac writes ü as two
    # A spreadsheet takes what begins with = + - @ for a formula.
    kinds = [unicodedata.category(letter)[0] for letter in name if letter not in " -_."]
    plain = name[:1].isalnum() and set(kinds) <= {"L", "M", "N"}  # letters, their marks, numbers
    if not (plain and len(name) <= NAME_LETTERS):
        raise CourseError(
            f"{name!r} can't be a name on the board: use at most {NAME_LETTERS} letters, "
            "digits, blanks, dots and dashes, with --name or as the file's name."
        )
    return name


def enter(
    entries: Iterable[Entry], there: Sequence[Entry], where: str
) -> tuple[list[Entry], list[str]]:
    """The board with the entries on it, best first, and a sentence for each that isn't.

    There is one entry a name, the best. Raises CourseError if `there` was scored otherwise.
    """
    best, notes = {entry.name: entry for entry in there}, []
    for entry in entries:
        for other in there:
            if (other.seed, other.images, other.gate) != (entry.seed, entry.images, entry.gate):
                raise CourseError(
                    f"{where} was scored with another secret, gate or number of images: "
                    "give the same, or name another --board."
                )
        if entry.name in best and best[entry.name].rank <= entry.rank:
            notes.append(f"{entry.name} keeps the entry there was, which is at least as good.")
        else:
            best[entry.name] = entry
    return sorted(best.values(), key=lambda entry: entry.rank), notes


def enter_on(board: Path, entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """`enter` on a CSV file, which another process may be about to write as well."""
    try:
        with FileLock(board.with_name(f".{board.name}.lock")):
            kept, notes = enter(entries, read_board(board), str(board))
            write_text(board, board_text(kept))
    except OSError as error:
        raise CourseError(
            f"{board} can't be used ({error.strerror or error}): name another."
        ) from error
    return kept, notes


def read_board(board: Path) -> list[Entry]:
    """The entries of a leaderboard; none where there is no file. Raises CourseError for another."""
    if not board.exists():
        return []
    try:
        rows = csv.DictReader(io.StringIO(board.read_text(encoding="utf-8")))
        if not {field.name for field in fields(Entry)} <= set(rows.fieldnames or []):
            raise ValueError("other columns")  # one line of text would pass for an empty board
        return [_entry(row) for row in rows]
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise CourseError(f"{board} isn't a leaderboard: name another --board.") from error


def _entry(row: dict[str, str]) -> Entry:
    """A line of the file. Raises KeyError, TypeError or ValueError for one of another file."""
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(Entry)}
    for name in ("right", "images", "parameters", "macs"):
        values[name] = int(values[name])
    return Entry(**{**values, "gate": float(values["gate"])})


def board_text(entries: Iterable[Entry]) -> str:
    """The board as CSV, with the accuracy for whoever opens it as a spreadsheet."""
    text = io.StringIO()
    columns = [field.name for field in fields(Entry)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "accuracy"])
    for entry in entries:
        writer.writerow([*(getattr(entry, column) for column in columns), entry.accuracy])
    return text.getvalue()


def table(entries: Sequence[Entry]) -> str:
    """The board as people read it, best first."""
    width = max(len(entry.name) for entry in entries)
    lines = [f"place  {'name':<{width}}         accuracy  parameters           MACs"]
    for place, entry in enumerate(entries, start=1):
        shown = f"{entry.accuracy:.2%} ± {entry.standard_error:.2%}"
        lines.append(
            f"{place if entry.passed else '–':>5}  {entry.name:<{width}}  {shown:>15}"
            f"  {entry.parameters:>10,}  {entry.macs:>13,}"
            + ("" if entry.passed else "  under the gate")
        )
    first = entries[0]
    lines.append(
        f"The gate is {first.gate:.2%} of {first.images:,} images drawn under the secret marked "
        f"{first.seed}; ± is one standard error. Over the gate, the fewest parameters win."
    )
    return "\n".join(lines)
