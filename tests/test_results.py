"""What is recorded is consistent with itself, and what is printed is what is recorded."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

import course_notebooks as course
import pytest
import torch

from course_lib import measure
from course_lib.config import PRESETS, Config
from course_lib.lessons.round_to_keep import choose_round
from course_lib.pruning import CRITERIA, find_groups, l1, prune, select
from course_lib.resnet import ResNet, ResNetConfig, resnet_config

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "data" / "recorded_runs"
RUNS = sorted(RECORDED.glob("laptop_seed*.json"))
SELECTIONS = ("network", "layer")


def tables() -> ModuleType:
    sys.path.append(str(ROOT / "benchmarks"))  # as for a script: its own folder
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop()
    return module


@pytest.mark.parametrize("document", sorted(tables().BLOCKS))
def test_measured_tables_are_what_is_recorded(document):
    assert tables().written(document) == (ROOT / document).read_text(encoding="utf-8")


def test_a_changed_record_is_noticed(monkeypatch, tmp_path):
    module = tables()
    for path in RECORDED.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    changed = json.loads((tmp_path / "laptop.json").read_text())
    changed["seeds"][0]["test_accuracy_pruned"] -= 0.01
    (tmp_path / "laptop.json").write_text(json.dumps(changed))
    monkeypatch.setattr(module, "RECORDED", tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert module.written("README.md") != text


def test_what_is_not_recorded_is_said(monkeypatch, tmp_path):
    module = tables()
    monkeypatch.setattr(module, "RECORDED", tmp_path)
    assert module.gpu_block() == "Not measured on a GPU yet."
    assert module.measured("scaling", repr).startswith("Not measured yet: there is no ")
    run = {"machine": {"threads": 2, "torch": "2", "device": "cpu"}, "source": {}}
    run["source"] = {"command": "do it", "date": "today"}
    (tmp_path / "scaling.json").write_text(json.dumps(run))
    assert module.measured("scaling", lambda _: "a table").startswith("a table\n\nFrom `data/")


@pytest.mark.parametrize("path", RUNS, ids=[path.stem for path in RUNS])
def test_recorded_sizes_are_those_of_the_recorded_networks(path):
    run = json.loads(path.read_text())
    for line in run["history"][:: len(run["history"]) - 1]:
        network = ResNet(ResNetConfig.from_dict(line["network"]))
        assert measure.count_parameters(network) == line["parameters"]
        assert measure.count_macs(network, (3, 48, 48)) == line["macs"]
    summary, last = run["summary"], run["history"][-1]
    ratio = summary["final"]["parameters"] / summary["full"]["parameters"]
    assert summary["ratios"]["parameters"] == pytest.approx(ratio)
    assert summary["final"]["val_accuracy"] == last["val_accuracy"]


def test_recorded_runs_are_of_the_preset_as_it_is():
    """A changed default makes the recorded figures those of another preset: record them again."""
    assert RUNS
    for path in RUNS:
        config = json.loads(path.read_text())["summary"]["config"]
        seed = config.pop("seed")
        assert Config(**config, seed=0).differences(PRESETS["laptop"]) == [], seed


def test_the_laptop_preset_kept_its_promise():
    run = json.loads((RECORDED / "laptop.json").read_text())
    changes = [row["ratio_test_accuracy_change"] for row in run["seeds"]]
    assert len(changes) >= 3
    assert min(changes) > 0, "docs/results.md: every seed ends above its full network"
    for row in run["seeds"]:
        assert 1 - row["ratio_parameters"] >= 0.791
        assert row["ratio_images_per_second"] >= 2.5
    full = [row["val_accuracy_full"] for row in run["seeds"]]
    assert 0.95 <= sum(full) / len(full) <= 0.98, "a real task, and one that can be learnt"


def test_notebook_00_says_how_much_faster_the_full_width_network_became():
    """Its own networks have the same share of their parameters left."""
    (path,) = (path for path in course.NOTEBOOKS if path.stem.startswith("00"))
    text = " ".join(" ".join(cell.source for cell in course.read(path).cells).split())
    assert "pruned to the same share, answers about three and a half times as many images" in text
    run = json.loads((RECORDED / "laptop.json").read_text())
    assert run["mean"]["ratio_images_per_second"] == pytest.approx(3.5, abs=0.2)
    card = json.loads((ROOT / "data" / "small" / "card.json").read_text())
    full, pruned = (card["networks"][name]["parameters"] for name in ("full", "pruned"))
    left = mean(row["ratio_parameters"] for row in run["seeds"])
    assert pruned / full == pytest.approx(left, abs=0.005)


def test_without_the_last_round_there_is_something_to_choose():
    """Notebook 09 leaves that round out of its widget, and says why."""
    run = json.loads((RECORDED / "laptop_seed0.json").read_text())
    rounds = [{**line, "val": line["val_accuracy"]} for line in run["history"]]
    *others, last = rounds
    assert (last["round"], len(others)) == (16, 1 + 15)
    assert last["macs"] < min(line["macs"] for line in others)
    assert last["val"] > max(line["val"] for line in others)
    laptop = PRESETS["laptop"]
    assert laptop.final_batches == laptop.rounds * laptop.finetune_batches

    def kept(history: list[dict[str, Any]]) -> set[int | None]:
        settings = [(5 * i / 100, j / 200) for i in range(3, 21) for j in range(7)]  # the sliders'
        return {choose_round(history, b * rounds[0]["macs"], t) for b, t in settings}

    assert kept(rounds) == {None, 16}
    assert kept(others) == {None, 4, 10, 12, 15}


def test_no_round_of_the_laptop_runs_took_the_saved_batches_early():
    """Notebook 06: they came after the sixteenth cut, since no round failed twice."""
    final = PRESETS["laptop"].final_batches
    for path in RUNS:
        history = json.loads(path.read_text())["history"]
        batches = [after["batches"] - line["batches"] for line, after in pairwise(history)]
        assert len(batches) == 16 and all(line["attempts"] <= 2 for line in history)
        assert batches[-1] > final == 400 > max(batches[:-1])


def test_the_documented_way_to_deploy_is_the_fastest_that_was_measured():
    """README.md and docs/results.md name it; the goal is 80 % of the ratio of MACs."""
    path = RECORDED / "speed_limit.json"
    if not path.exists():
        pytest.skip("not measured yet: python benchmarks/speed_limit.py")
    run, speed_tables = json.loads(path.read_text()), tables().speed_tables
    widths, ratios = "multiples of 16", speed_tables.mac_ratios(run)
    many, one = ([row for row in run["rows"] if row["batch"] == size] for size in (64, 1))
    row, best = speed_tables.best(many)
    assert (row["way"], best) == ("bfloat16", widths)
    for rows in ([row for row in many if row["way"] != "bfloat16"], one):
        row, best = speed_tables.best(rows)
        assert (row["way"], best) == ("ONNX Runtime", widths)
        assert row["speedup"][widths][0] >= 0.8 * ratios[widths]
    for network in list(run["networks"].values())[1:]:
        share = network["parameters"] / run["networks"]["full"]["parameters"]
        assert share == pytest.approx(0.209, abs=0.02)


def criteria_rows(schedule: str, selection: str) -> dict[str, dict[str, Any]]:
    run = json.loads((RECORDED / "criteria.json").read_text())
    wanted = (schedule, selection)
    return {
        row["criterion"]: row
        for row in run["rows"]
        if (row["schedule"], row["selection"]) == wanted
    }


@pytest.mark.parametrize("selection", ["layer", "network", "raw"])
def test_every_criterion_was_compared_on_every_network(selection):
    rows = criteria_rows("one-shot", selection)
    assert set(rows) == set(CRITERIA)
    for name, row in rows.items():
        assert len(row["accuracy"]) == (9 if name == "random" else 3), name


def test_the_compared_networks_lost_half_of_their_filters():
    """Within layers the widths, and so the sizes, are the same whatever the criterion."""
    network = ResNet(resnet_config(18, 8, base_width=16))
    groups = find_groups(network, torch.zeros(1, 3, 48, 48))
    narrow = prune(network, groups, select(l1(network, groups), fraction=0.5))
    share = measure.count_parameters(narrow) / measure.count_parameters(network)
    macs = measure.count_macs(narrow, (3, 48, 48)) / measure.count_macs(network, (3, 48, 48))
    for schedule in ("one-shot", "rounds"):
        for row in criteria_rows(schedule, "layer").values():
            assert row["parameters"] == pytest.approx([share] * len(row["parameters"]), abs=1e-4)
            assert row["macs"] == pytest.approx([macs] * len(row["macs"]), abs=1e-4)
            assert row["narrowest"] == 0.5


def test_notebook_06_quotes_what_ranking_across_the_network_costs():
    """By L1: nothing in one cut, much in rounds."""
    text = (ROOT / "notebooks" / "06_iterative_pruning.ipynb").read_text(encoding="utf-8")
    once, rounds = (
        [mean(criteria_rows(schedule, selection)["l1"]["accuracy"]) for selection in SELECTIONS]
        for schedule in ("one-shot", "rounds")
    )
    knob = {
        scope: mean(
            run["history"][-1]["val_accuracy"]
            for run in json.loads((RECORDED / "knobs.json").read_text())["runs"]
            if (run["knob"], run["value"]) == ("scope", scope)
        )
        for scope in SELECTIONS
    }
    assert once[0] > once[1] and rounds[0] < rounds[1] - 0.05
    for across, within in (once, rounds, [knob[scope] for scope in SELECTIONS]):
        quoted = rf"{100 * across:.1f} %[a-z ]* against {100 * within:.1f} %"
        assert re.search(quoted, text), quoted


def test_small_networks_from_scratch_had_the_compute_that_is_said():
    run = json.loads((RECORDED / "from_scratch.json").read_text())
    images, total = run["settings"]["batch_size"], run["settings"]["batches"]
    total += run["settings"]["rounds"] * run["settings"]["finetune_batches"]
    by_way: dict[tuple, list] = {}
    for row in run["rows"]:
        by_way.setdefault((row["kind"], row["left"], row["arm"]), []).append(row)
        if not (row["kind"] == "filters" and row["arm"].startswith(("pruned", "one shot"))):
            assert row["compute"] == row["batches"] * images * row["macs"]
    assert len(by_way) == 17
    assert all(sorted(row["seed"] for row in rows) == [0, 1, 2] for rows in by_way.values())
    filters = {arm: rows[0] for (kind, _, arm), rows in by_way.items() if kind == "filters"}
    unpaid = filters["pruned"]["compute"] - filters["scratch, equal compute"]["compute"]
    assert 0 <= unpaid < images * filters["scratch"]["macs"]
    for arm in ("pruned", "one shot", "scratch", "ticket"):
        assert filters[arm]["batches"] == total


def test_what_is_said_of_the_recipes_is_what_was_tried():
    """docs/results.md: distillation helps most, a lower rate a little, three cuts nothing."""
    run = json.loads((RECORDED / "recipes.json").read_text())
    for side in run["sides"].values():
        plain, distilled, low, high, thrice, own = (t["val_accuracy"] for t in side["trials"])
        assert distilled - plain > low - distilled > 0
        assert max(high, thrice, own) < low
        assert side["best"] == {k: v for k, v in side["trials"][2].items() if k != "val_accuracy"}
    reached = {
        (name, target): found["test_accuracy"]
        for name, side in run["sides"].items()
        for target, found in side["results"].items()
    }
    level, ahead, clearly = (
        sum(reached["ours", n]) / 3 - sum(reached["theirs", n]) / 3 for n in "248"
    )
    assert abs(level) < 0.002 and min(ahead, clearly) > 0.005
    assert min(reached["ours", "4"]) < max(reached["theirs", "4"])
    assert min(reached["ours", "8"]) > max(reached["theirs", "8"])


def test_where_no_loss_ends_is_what_was_measured():
    """docs/results.md: a twentieth is enough on vehicles, and the first cut too much on CIFAR-10,
    where the best recipe loses about half as much at half of the MACs.
    """
    vehicles, other = (
        json.loads((RECORDED / f"{name}.json").read_text())["rows"]
        for name in ("frontier", "frontier_cifar10")
    )
    twentieth = next(row for row in vehicles if (row["share"], row["batches"]) == (0.05, 800))
    full = vehicles[0]["test_accuracy"]
    changes = [a - b for a, b in zip(twentieth["test_accuracy"], full, strict=True)]
    assert -0.002 < min(changes) < 0 < max(changes) < 0.002 and abs(mean(changes)) < 0.001
    assert twentieth["speed"]["middle"] >= 8 and max(twentieth["parameters"]) <= 0.05
    full, *smaller = (row["test_accuracy"] for row in other)
    for reached in smaller:
        assert all(a < b for a, b in zip(reached, full, strict=True))
    assert other[1]["macs"][0] == pytest.approx(0.5, abs=0.01)
    recipe = json.loads((RECORDED / "recipes.json").read_text())["sides"]["ours"]
    reached = recipe["results"]["2"]["test_accuracy"]
    lost = [mean(full) - mean(test) for test in (reached, smaller[0])]
    assert 0.35 < lost[0] / lost[1] < 0.65


def test_photographs_are_trained_on_as_the_best_variant():
    """docs/results.md draws these conclusions, seed by seed."""
    run = json.loads((RECORDED / "photographs.json").read_text())
    found = {(row["variant"], row["seed"]): row for row in run["trainings"]}
    smoothed = "four times the batches, smoothed"
    for seed in range(3):
        for part in ("val_accuracy", "test_accuracy"):
            reached = {name: found[name, s][part] for name, s in found if s == seed}
            assert max(reached, key=reached.__getitem__) == smoothed
            twice = reached["twice the batches"]
            assert reached["the preset"] < twice < reached["four times the batches"]
            assert reached["twice the batches, smoothed"] < twice
    photos = PRESETS["photos"]
    assert photos.batches == 4 * PRESETS["laptop"].batches and photos.label_smoothing == 0.1


def test_what_the_last_network_gets_decides_at_full_width():
    """docs/results.md says so of the test images, and the presets `laptop` and `one-cut` do it."""
    run = json.loads((RECORDED / "schedules.json").read_text())
    wide = [row for row in run["rows"] if (row["preset"], row["base_width"]) == ("laptop", 64)]
    found = {(row["seed"], row["schedule"]): row for row in wide}
    even, higher, four, one, saved = names = (
        *("16 rounds, rate 0.03", "16 rounds, rate 0.1", "4 rounds, rate 0.1"),
        *("one cut, rate 0.1", "16 rounds, rate 0.03, half at the end"),
    )
    assert set(found) == {(seed, name) for seed in range(3) for name in names}
    gains = {key: row["test_accuracy"] - row["test_accuracy_full"] for key, row in found.items()}
    for seed in range(3):
        assert max(gains[seed, even], gains[seed, higher]) < 0
        assert 0 < gains[seed, four] < min(gains[seed, saved], gains[seed, one])
        seconds = {name: found[seed, name]["seconds"] for name in names}
        assert 0.45 < seconds[one] / seconds[saved] < 0.55 and seconds[saved] < seconds[even]
    assert mean(gains[s, saved] for s in range(3)) < mean(gains[s, one] for s in range(3))
    laptop, preset = PRESETS["laptop"], PRESETS["one-cut"]
    assert laptop.final_batches == 16 * laptop.finetune_batches == found[0, saved]["batches"] / 2
    assert (preset.rounds, preset.finetune_batches, preset.finetune_rate) == (1, 800, 0.1)
    assert 1 - preset.fraction == pytest.approx(run["left"], abs=0.001)
    control = json.loads((RECORDED / "laptop.json").read_text())["control"]
    assert control["batches"] == preset.batches + 800 == laptop.batches + 2 * laptop.final_batches


def test_the_preset_for_photographs_loses_nothing_at_full_width():
    """docs/results.md tells the range on the test images."""
    run = json.loads((RECORDED / "schedules.json").read_text())
    rows = [row for row in run["rows"] if (row["preset"], row["base_width"]) == ("photos", 64)]
    (schedule,), seeds = {row["schedule"] for row in rows}, [row["seed"] for row in rows]
    photos = PRESETS["photos"]
    batches = photos.rounds * photos.finetune_batches
    assert schedule == f"4 rounds, rate 0.1, teacher 0.9, {batches} batches" and seeds == [0, 1, 2]
    assert (photos.rounds, photos.finetune_rate, photos.distill) == (4, 0.1, 0.9)
    assert 1 - photos.fraction == pytest.approx(run["left"] ** (1 / 4), abs=0.005)
    gains = [row["test_accuracy"] - row["test_accuracy_full"] for row in rows]
    text = (ROOT / "docs" / "results.md").read_text()
    told = f"ends {100 * min(gains):.1f} to {100 * max(gains):.1f} points above the full networks"
    assert told in " ".join(text.split())
    assert min(row["val_accuracy"] - row["val_accuracy_full"] for row in rows) > 0


def test_the_preset_for_photographs_prunes_as_the_better_schedule():
    """docs/results.md says all this, most of it of every seed."""
    run = json.loads((RECORDED / "schedules.json").read_text())
    narrow = [row for row in run["rows"] if row["base_width"] == 16]
    found = {(r["preset"], r["schedule"], r["seed"]): r for r in narrow}

    def of(preset: str, schedule: str) -> list[dict[str, Any]]:
        return [found[preset, schedule, seed] for seed in range(3)]

    def better(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
        pairs = list(zip(some, others, strict=True))
        parts = ("val_accuracy", "test_accuracy")
        return all(one[part] > other[part] for one, other in pairs for part in parts)

    def seconds(rows: list[dict[str, Any]]) -> float:
        return sum(row["seconds"] for row in rows)

    for preset in ("photos", "laptop"):
        sixteen, four = of(preset, "16 rounds, rate 0.03"), of(preset, "4 rounds, rate 0.1")
        taught = of(preset, "4 rounds, rate 0.1, teacher 0.9")
        assert better(four, sixteen)
        assert all(a["seconds"] < b["seconds"] for a, b in zip(four, sixteen, strict=True))
        if preset == "photos":
            assert better(taught, four)
        else:  # no clear difference
            for part in ("val_accuracy", "test_accuracy"):
                with_one, without = (mean(row[part] for row in rows) for rows in (taught, four))
                assert abs(with_one - without) < 0.003
                saved = of(preset, "16 rounds, rate 0.03, half at the end")
                gains = [mean(r[part] - r[f"{part}_full"] for r in rows) for rows in (four, saved)]
                assert gains[0] < -0.004 < -0.002 < gains[1] < 0.002
    taught, four = (of("photos", f"4 rounds, rate 0.1{more}") for more in (", teacher 0.9", ""))
    longer, one_cut = (
        of("photos", f"{cuts}, rate 0.1, teacher 0.9, 1600 batches")
        for cuts in ("4 rounds", "one cut")
    )
    assert 1.25 < seconds(taught) / seconds(four) < 1.4
    assert better(longer, taught) and better(one_cut, longer)
    ending = of("photos", "4 rounds, rate 0.1, teacher 0.9, 1600 batches, most at the end")
    assert seconds(one_cut) < seconds(ending) < seconds(longer)
    for part in ("val_accuracy", "test_accuracy"):
        means = [mean(row[part] for row in rows) for rows in (longer, ending, one_cut)]
        assert means == sorted(means)
    assert not better(ending, longer)
    for part in ("val_accuracy", "test_accuracy"):
        assert sum(row[part] - row[f"{part}_full"] for row in longer) > 0
    photos = PRESETS["photos"]
    assert (photos.rounds, photos.finetune_rate, photos.distill) == (4, 0.1, 0.9)
    assert photos.rounds * photos.finetune_batches == longer[0]["batches"]
    assert (1 - photos.fraction) ** photos.rounds == pytest.approx(run["left"], abs=0.01)
