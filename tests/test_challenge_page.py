"""docs/challenge.md says what the code does, and its recipe runs."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import pytest

from course_lib import challenge

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "challenge.md").read_text(encoding="utf-8")
TINY = {
    **{"12_000": "256", "val=2_000": "val=64", "rounds=40": "rounds=1, final_batches=0"},
    "batches=400": "batches=2",
}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("challenge")


def test_the_recipe_makes_an_entry_and_its_record_a_table(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNING_RESNETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program = bench.recipe()
    for usual, tiny in TINY.items():
        assert program.count(usual) == 1
        program = program.replace(usual, tiny)
    record = bench.measured(program, tmp_path, images=40)
    assert [row["round"] for row in record["rounds"]] == [0, 1]
    by_name = {row["name"]: row for row in record["entries"]}
    # Two batches bring nothing back, so the network of round 0 is handed in: the full one.
    assert not record["rounds"][1]["passed"]
    for size in ("parameters", "macs", "right"):
        assert by_name["the recipe"][size] == by_name["full.pt"][size]
    assert record["entries"][0]["name"] == "pruned.pt"

    tables = importlib.import_module("tables")
    monkeypatch.setattr(tables, "RECORDED", tmp_path)
    assert tables.challenge_table().startswith("Not recorded yet")
    record["source"] = {"command": bench.COMMAND, "date": "today"}
    (tmp_path / "challenge.json").write_text(json.dumps(record), encoding="utf-8")
    text = tables.challenge_table()
    assert f"| {by_name['pruned.pt']['parameters']:,} |" in text
    assert "that of round 0" in text and bench.COMMAND in text


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    words = " ".join(PAGE.split())
    error = math.sqrt(challenge.GATE * (1 - challenge.GATE) / challenge.IMAGES)
    assert f"√(0.95 · 0.05 / 2,000) = {100 * error:.2f} points" in words
    assert (challenge.GATE, challenge.IMAGES) == (0.95, 2_000)
    assert challenge.SHORTEST_SECRET == 8 and "a secret of eight letters or more" in words
    assert challenge.SECRET in words
    assert len(challenge.trace_of("whatever it is")) == 4
    assert "four digits of a hash of the secret" in words
