"""Benchmarks at a tiny setting: they run, and their records have what the tables are made of.

Nothing is compared with a clock here, since other tests run beside.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision
from nbformat import v4, write
from PIL import Image
from tiny import tiny_data

from course_lib.config import PRESETS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def recorded(folder: Path, name: str) -> dict[str, Any]:
    run = json.loads((folder / f"{name}.json").read_text())
    assert f"python benchmarks/{name}.py" in run["source"]["command"]
    assert run["machine"]["threads"] == torch.get_num_threads()
    return run


def rows(table: str) -> list[str]:
    """The lines below a table's head, all as wide as the head."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    return lines[2:]


# ---- the pruning step


@pytest.fixture
def machinery(benchmark: Any) -> ModuleType:
    pytest.importorskip("torch_pruning", reason="pip install -r benchmarks/requirements.txt")
    return benchmark("machinery")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_both_sides_prune_to_the_same_widths(machinery: ModuleType, name: str) -> None:
    network, shapes = getattr(torchvision.models, name)(), []
    for step, pixels in machinery.WAYS.values():
        _, narrow = machinery.timed(step, network, pixels)
        shapes.append({key: tensor.shape for key, tensor in narrow.state_dict().items()})
        assert narrow.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
    assert all(found == shapes[0] for found in shapes)
    assert shapes[0]["layer1.0.conv1.weight"][0] == 32
    assert network.conv1.weight.shape[0] == 64, "each step gets a copy"


def test_the_step_is_recorded_and_goes_on(
    machinery: ModuleType, benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--passes", "1", "--networks", "resnet18", "--blocks", "2", "3"]
    options += ["--widths", "4", "8", "--out", f"{tmp_path}/out", "--record", str(tmp_path)]
    machinery.main(options)
    run, tables = recorded(tmp_path, "machinery"), benchmark("loop_tables")
    measured = [*run["networks"], *run["depth"], *run["width"]]
    assert all(row["same_widths"] and min(row["seconds"].values()) > 0 for row in measured)
    assert [row["convolutions"] for row in run["depth"]] == [20, 28]
    for row in measured:
        low, high = row["times_ours"]["small example"]["range"]
        assert low <= row["times_ours"]["small example"]["median"] <= high
    assert len(rows(tables.machinery_table(run))) == 1
    assert len(rows(tables.growth_table(run))) == 4
    # Called again, nothing is measured again.
    monkeypatch.setattr(machinery, "compare", lambda *_: pytest.fail("measured again"))
    machinery.main(options)
    assert recorded(tmp_path, "machinery") == run


def test_the_exponent_of_growth(machinery: ModuleType) -> None:
    grown = [{"size": n, "seconds": {"a": 2 * n, "b": 3 * n**2}} for n in (1, 2, 5)]
    assert machinery.slope(grown, "size", "a") == pytest.approx(1)
    assert machinery.slope(grown, "size", "b") == pytest.approx(2)


def test_without_the_peer_one_sentence_says_how_to_get_it(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    for name in ("machinery", "peer"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(SystemExit, match=r"pip install -r benchmarks/requirements\.txt$"):
        benchmark("machinery")


# ---- the training loop


def test_the_training_loop_is_recorded(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, tables = benchmark("training_loop"), benchmark("loop_tables")
    monkeypatch.setattr(module, "PHOTOS", {"32×24": (32, 1_000), "64×48": (64, 1_000)})
    monkeypatch.setattr(module, "SCENE", 32)
    for number in range(180):  # the classes take turns
        place = tmp_path / "real" / "train" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (number, 0, 0)).save(place / f"{number}.png")
    options = ["--widths", "16", "--passes", "1", "--batches", "3", "--images", "130"]
    options += ["--photos", "128", "--cache", f"{tmp_path}/cache", "--out", f"{tmp_path}/out"]
    module.main([*options, "--cifar10", f"{tmp_path}/real", "--record", str(tmp_path)])
    run = recorded(tmp_path, "training_loop")
    (memory,) = run["memory"]
    assert list(memory["ways"]) == ["ours", "ours, with curve and checkpoints", "bare loop"]
    folders = [(row["photos"], row["images"], row["image_size"]) for row in run["folders"]]
    assert folders == [("32×24", 128, 32), ("64×48", 128, 48), ("CIFAR-10", 128, 32)]
    for ways in [memory["ways"], *(row["ways"] for row in run["folders"])]:
        assert all(way["images_per_second"] > 0 for way in ways.values())
        assert ways["ours"]["ours_faster"] == 1 and 0 <= ways["ours"]["waiting"] < 1
    assert len(rows(tables.memory_table(run))) == 3
    assert len(rows(tables.folder_table(run))) == 9


def test_the_clock_tells_waiting_from_working(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch takes 1 second to come, the first one 5, and 3 to train on."""
    module, now = benchmark("training_loop"), [0.0]
    monkeypatch.setattr(module, "perf_counter", lambda: now[0])

    def batches() -> Any:
        for seconds in (5, 1, 1):
            now[0] += seconds
            yield seconds

    clock = module.Clock()
    for _ in clock(batches()):
        now[0] += 3
    found = clock.reading(whole=False)
    assert found == {"images_per_second": 64 * 2 / 8, "start_seconds": 5, "waiting": 2 / 8}
    assert clock.reading(whole=True)["images_per_second"] == 64 * 3 / 16


def test_both_loops_train_on_equal_terms(benchmark: Any) -> None:
    """The same network and batches: the weights after a few steps are the same."""
    module, trained = benchmark("training_loop"), []
    images, labels = torch.randn(3, 8, 3, 16, 16), torch.randint(0, 2, (3, 8))
    for fit in (module.our_fit, module.bare_fit):
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 14 * 14, 2)
        )
        fit(network, zip(images, labels, strict=True), 3)
        trained.append(torch.nn.utils.parameters_to_vector(network.parameters()))
    assert torch.equal(*trained)


# ---- the course by the clock


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for make")
def test_the_clock_of_the_course_is_recorded(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, tables = benchmark("course_clock"), benchmark("loop_tables")
    stand_in = tmp_path / "make"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(module, "load_data", lambda *_: None)
    picture = "from IPython.display import display\nfrom PIL import Image\n"
    cells = ["import os", f"{picture}display(Image.new('L', (2, 2)))", "x = 1"]
    made = v4.new_notebook(cells=[v4.new_code_cell(source) for source in cells])
    write(made, tmp_path / "01_made.ipynb")
    before = (tmp_path / "01_made.ipynb").read_bytes()
    monkeypatch.setattr(module, "NOTEBOOKS", [tmp_path / "01_made.ipynb"])
    options = ["--out", f"{tmp_path}/out", "--record", str(tmp_path)]
    module.main([*options, "--test"])
    assert recorded(tmp_path, "course_clock")["notebooks"] == []
    module.main(options)
    run = recorded(tmp_path, "course_clock")
    (row,) = run["notebooks"]
    assert 0 < row["first_picture_seconds"] <= row["seconds"]
    assert (tmp_path / "01_made.ipynb").read_bytes() == before
    called = [line.split(" OUT=")[0] for line in (tmp_path / "calls").read_text().splitlines()]
    made_runs = ["setup", "run PRESET=smoke", "setup", "run PRESET=laptop"]
    assert called == ["setup", "test", *made_runs]
    assert len(rows(tables.clock_table(run))) == 4


# ---- how to prune and fine-tune


def test_schedules_differ_in_nothing_but_what_they_say(benchmark: Any) -> None:
    schedules = benchmark("schedules")
    every = schedules.SCHEDULES | schedules.SAVED | schedules.LONGER
    for name, changes in every.items():
        assert (1 - changes["fraction"]) ** changes["rounds"] == pytest.approx(schedules.LEFT)
        tuned = changes["finetune_batches"] * changes["rounds"] + changes["final_batches"]
        assert tuned == (1600 if "1600 batches" in name else schedules.BATCHES)
    (first,) = schedules.SAVED.values()
    laptop = schedules.config_for("laptop", schedules.QUARTER, 0, {})
    as_first = schedules.config_for("laptop", schedules.QUARTER, 0, first)
    assert as_first.fraction == pytest.approx(laptop.fraction)
    assert replace(as_first, fraction=laptop.fraction) == laptop
    assert PRESETS["laptop"].base_width == schedules.FULL


def test_schedules_are_run_recorded_and_not_run_again(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules, tables = benchmark("schedules"), benchmark("loop_tables")
    tiny = {"smoke": replace(PRESETS["smoke"], batches=4, batch_size=16, image_size=16)}
    changes = {"two": {"rounds": 2, "finetune_batches": 2}, "one": {"rounds": 1}}
    changes["one"] |= {"finetune_batches": 2, "distill": 0.5}
    monkeypatch.setattr(schedules, "PRESETS", tiny)
    monkeypatch.setattr(schedules, "SCHEDULES", changes)
    narrow = schedules.Set("smoke", 4, lambda seed, cifar10: tiny_data(), changes)
    wider = narrow._replace(base_width=6, schedules={"one": changes["one"]})
    monkeypatch.setattr(schedules, "SETS", [narrow, wider])
    monkeypatch.setattr(schedules, "record", partial(schedules.record, folder=tmp_path))
    command = [
        "schedules.py",
        "--cifar10",
        "none",
        "--seeds",
        "0",
        "1",
        "--out",
        str(tmp_path / "o"),
    ]
    monkeypatch.setattr(sys, "argv", command)
    schedules.main()
    run = recorded(tmp_path, "schedules")
    keys = ("base_width", "seed", "schedule", "batches")
    assert [tuple(r[key] for key in keys) for r in run["rows"]] == [
        *((4, 0, "two", 4), (4, 0, "one", 2), (4, 1, "two", 4), (4, 1, "one", 2)),
        *((6, 0, "one", 2), (6, 1, "one", 2)),
    ]
    by_seed = {r["seed"]: r["val_accuracy_full"] for r in run["rows"][:4]}
    assert all(r["val_accuracy_full"] == by_seed[r["seed"]] for r in run["rows"][:4])
    assert len(rows(tables.schedules_table(run))) == 3
    monkeypatch.setattr(schedules, "result", None)  # nothing is left to do
    schedules.main()
    assert recorded(tmp_path, "schedules")["rows"] == run["rows"]


def test_the_table_of_schedules_by_hand(benchmark: Any) -> None:
    def row(schedule: str, seed: int, test: float, seconds: float) -> dict[str, Any]:
        same = {"preset": "photos", "base_width": 16, "val_accuracy_full": 0.5, "batches": 800}
        same |= {"val_accuracy": 0.5, "test_accuracy_full": 0.5, "parameters": 0.2}
        found = {"test_accuracy": test, "lowest_after_surgery": 0.1}
        name = {"schedule": schedule, "seed": seed, "seconds": seconds}
        return {**same, **found, **name}

    run = {"rows": [row("a", 0, 0.4, 10), row("b", 0, 0.51, 20), row("a", 1, 0.5, 20)]}
    run["rows"].append(row("b", 1, 0.53, 20))
    first, second = rows(benchmark("loop_tables").schedules_table(run))
    assert "| ×1.00 | 10% | +0.0 (+0.0 to +0.0) | -5.0 (-10.0 to +0.0) |" in first
    assert "| ×1.50 |" in second and "| +2.0 (+1.0 to +3.0) |" in second


# ---- criteria


def test_rows_are_kept_only_with_the_same_networks_and_settings(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    criteria = benchmark("criteria")
    before = json.loads((criteria.RECORDED / "criteria.json").read_text(encoding="utf-8"))
    full = before["full"]["accuracy"]
    assert criteria.recorded_before(full)["rows"] == before["rows"]
    assert criteria.recorded_before([*full[:-1], full[-1] + 0.0005])["rows"] == []
    monkeypatch.setattr(criteria, "IMAGES", criteria.IMAGES + 1)
    assert criteria.recorded_before(full)["rows"] == []


def test_criteria_cut_in_rounds_across_the_network_too(benchmark: Any) -> None:
    criteria = benchmark("criteria")
    found = {(case.schedule, case.selection, case.criterion) for case in criteria.cases()}
    assert ("rounds", "network", "l1") in found and ("rounds", "network", "critical") not in found
    assert len(set(criteria.cases())) == len(list(criteria.cases()))
