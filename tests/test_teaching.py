"""The teacher's book names what exists, its plans add up, and each notebook has its notes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import accumulate

import course_notebooks as course
import pytest

from course_lib.lessons.catalogue import LESSONS, exercises, questions

BOOK = (course.ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
RECORDED = course.ROOT / "data" / "recorded_runs" / "classroom.json"
RECORD = json.loads(RECORDED.read_text(encoding="utf-8"))
ID = re.compile(r"`(\d\d\.(?:p?\d+))`")
PLAN = re.compile(r"^## Plan: .*?(\d+) minutes\)?\n(.*?)(?=^## )", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (\d+) \| (\d+) \| (.*) \| (.*?) ?\|$", re.MULTILINE)
STATED = re.compile(r"### Exercise (\d\d\.\d+).*\n+\*★.*? · (\d+) minutes\*")
SECTION = re.compile(r"^### (\d\d) · (.*?)\n(.*?)(?=^##)", re.MULTILINE | re.DOTALL)
ALONE = re.compile(r"(?:with the exercises,? (?:about|plan)|about|try.* out, about) (\d+) minutes")
PREDICTION = 2  # minutes at least, says the book
PLANS, SECTIONS = PLAN.findall(BOOK), {number: text for number, _, text in SECTION.findall(BOOK)}


@dataclass(frozen=True)
class Row:
    """One row of a plan."""

    start: int
    minutes: int
    what: str
    ids: tuple[str, ...]


def rows(plan: str) -> list[Row]:
    found = ROW.findall(plan)
    return [Row(int(a), int(b), what, tuple(ID.findall(ids))) for a, b, what, ids in found]


def text_of(number: str) -> str:
    (path,) = [path for path in course.NOTEBOOKS if path.stem.startswith(number)]
    return "\n\n".join(c.source for c in course.read(path).cells if c.cell_type == "markdown")


def stated_minutes() -> dict[str, int]:
    found = [pair for number in LESSONS for pair in STATED.findall(text_of(number))]
    return {exercise: int(minutes) for exercise, minutes in found}


def test_every_exercise_and_prediction_that_is_named_exists() -> None:
    real = {entry.id for entry in exercises()} | {entry.id for entry in questions()}
    named = set(ID.findall(BOOK))
    assert len(named) > 60
    assert named - real == set()


def test_there_are_plans_of_90_minutes_half_a_day_and_two_days() -> None:
    assert [int(minutes) for minutes, _ in PLANS] == [90, 210, 420, 420]


@pytest.mark.parametrize("minutes, plan", PLANS, ids=["90", "half", "first", "second"])
def test_plans_add_up_and_leave_time_for_what_they_list(minutes: str, plan: str) -> None:
    stated, found = stated_minutes(), rows(plan)
    running = {row["notebook"]: row["seconds"] / 60 for row in RECORD["notebooks"]}
    lengths = [row.minutes for row in found]
    assert [row.start for row in found] == [0, *accumulate(lengths)][:-1]
    assert sum(lengths) == int(minutes)
    for row in found:
        opened = re.findall(r"notebooks/(\w+)\.ipynb", row.what)
        needed = sum(stated.get(each, PREDICTION) for each in row.ids)
        needed += sum(running[name] for name in opened)
        assert needed <= row.minutes, row


def test_nothing_is_done_twice_in_a_plan_and_everything_in_the_notebooks_order() -> None:
    """The tasks of one row come in the order in which the learner meets them."""
    place = {}
    for path in course.NOTEBOOKS:
        code = "\n".join(cell.source for cell in course.code_cells(course.read(path)))
        # A wrong answer on purpose, as in 00, comes before the exercise itself.
        place |= {m[1]: m.start() for m in re.finditer(r'(?:check|predict)\("([\d.p]+)"', code)}
    first, second = PLANS[2][1], PLANS[3][1]
    for plan in (PLANS[0][1], PLANS[1][1], first + second):
        done = [row.ids for row in rows(plan)]
        flat = [each for ids in done for each in ids]
        assert len(flat) == len(set(flat))
        by_notebook = {number: [i for i in flat if i.startswith(number)] for number in LESSONS}
        for ids in by_notebook.values():
            assert ids == sorted(ids, key=place.__getitem__)


def test_what_two_days_skip_is_listed() -> None:
    two_days = PLANS[2][1] + PLANS[3][1]
    done = {each for row in rows(two_days) for each in row.ids}
    (skipped,) = re.findall(r"^- \*(.*?)\*: the stretch", two_days, re.MULTILINE | re.DOTALL)
    assert set(ID.findall(skipped)) == {entry.id for entry in exercises()} - done


@pytest.mark.parametrize("number", LESSONS)
def test_each_notebook_has_its_notes(number: str) -> None:
    notes = SECTIONS[number]
    for part in ("**Must do**", "**Stretch**", "**They meet again at**", "**Board**"):
        assert part in notes, part
    table = [line for line in notes.splitlines() if line.startswith("| ")]
    misconceptions = table[1:]  # below the heading; the dashes begin with |-
    assert len(misconceptions) >= 5
    assert all(len(line.split(" | ")) == 3 for line in misconceptions)
    answered = re.findall(r"^\d\. \*\*[^*]*?[.?]\*\*\s+(\S+\s+\S+)", notes, re.MULTILINE)
    assert len(answered) == 3
    own = [each for each in ID.findall(notes) if each.startswith(number)]
    assert len(own) >= 3


@pytest.mark.parametrize("number", LESSONS)
def test_headings_that_are_quoted_stand_in_the_notebook(number: str) -> None:
    headings = re.findall(r"^#+ (.*)", text_of(number), re.MULTILINE)
    notes = " ".join(SECTIONS[number].split())
    (meeting,) = re.findall(r'They meet again at\*\* "(.*?)"', notes)
    quoted = [cell.strip('" ') for cell in re.findall(r'\| ("[^|"]*") \|(?= \||$)', notes)]
    for heading in (meeting, *quoted):
        assert any(heading in each for each in headings), heading


def test_tasks_beside_a_misconception_are_of_that_notebook() -> None:
    for number, notes in SECTIONS.items():
        for line in notes.splitlines():
            if line.startswith("| "):
                assert all(each.startswith(number) for each in ID.findall(line.split(" | ")[2]))


def test_what_was_counted_is_what_the_notebooks_hold_now() -> None:
    """If this fails: python benchmarks/classroom.py --counts, and then benchmarks/tables.py."""
    stated = stated_minutes()
    assert [row["notebook"] for row in RECORD["notebooks"]] == [p.stem for p in course.NOTEBOOKS]
    for row in RECORD["notebooks"]:
        number = row["notebook"][:2]
        mine = {each: minutes for each, minutes in stated.items() if each.startswith(number)}
        assert row["exercises"] == len(mine) == sum(e.id.startswith(number) for e in exercises())
        assert row["exercise_minutes"] == sum(mine.values())
        assert row["predictions"] == sum(q.id.startswith(number) for q in questions())


def test_the_estimates_are_near_the_minutes_that_the_notebooks_state() -> None:
    """And the sentence that two days don't hold the whole course is true."""
    table = re.findall(r"^\| (\d\d|all) \|.*\| (\d+) \|$", BOOK.split("## Plan")[0], re.MULTILINE)
    estimates = {name: int(minutes) for name, minutes in table}
    for number in LESSONS:
        (stated,) = ALONE.findall(" ".join(text_of(number).split("## What you will")[1].split()))[
            :1
        ]
        assert abs(int(stated) - estimates[number]) < 30, number
    breaks = sum(row.minutes for _, plan in PLANS[2:] for row in rows(plan) if "**" in row.what)
    assert estimates["all"] > 840 - breaks


def test_the_survey_has_eight_questions_and_a_key_of_five() -> None:
    survey = BOOK.split("## A survey")[1].split("\n## ")[0]
    numbers = re.findall(r"^> \*\*(\d)\.\*\*", survey, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 9)]
    choices = dict(re.findall(r"^> \*\*(\d)\.\*\* .*\n(> ☐.*)", survey, re.MULTILINE))
    (key,) = re.findall(r"\*\*Key\*\*: (.*?)\.\n\n", survey, re.DOTALL)
    answers = [part.split(" ", 1) for part in " ".join(key.split()).split("; ")]
    assert [number for number, _ in answers] == ["1", "2", "3", "4", "5"]
    for number, answer in answers:
        assert f"☐ {answer} ☐" in choices[number]
