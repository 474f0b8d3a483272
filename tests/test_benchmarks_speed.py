"""The benchmarks of speed walk through all they do at a tiny size; what they compute is right."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from test_distributed import needs_launcher

from course_lib import measure
from course_lib.resnet import ResNet

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
SLOW = pytest.mark.slow


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def ways(load) -> ModuleType:
    return load("ways")


# ---- parts that are resumed


def test_parts_that_are_done_are_not_done_again(load, tmp_path):
    recording, calls = load("recording"), []

    def part(name: str, fails: bool = False):
        def make() -> int:
            calls.append(name)
            if fails:
                raise KeyboardInterrupt
            return len(calls)

        return make

    path = tmp_path / "new" / "parts.json"
    with pytest.raises(KeyboardInterrupt):
        recording.in_parts(path, {"n": 1}, {"a": part("a"), "b": part("b", fails=True)})
    done = recording.in_parts(path, {"n": 1}, {"b": part("b"), "a": part("a")})
    assert calls == ["a", "b", "b"]
    assert {name: of["result"] for name, of in done.items()} == {"b": 3, "a": 1}
    recording.in_parts(path, {"n": 2}, {"a": part("a")})
    assert calls[3:] == ["a"], "another setting begins again"
    assert recording.in_parts(path, {"n": 3}, {"a": part("a")}, minutes=-1) == {}


# ---- the networks


@pytest.mark.parametrize("multiple", [1, 8])
def test_pruned_widths_come_near_the_share(ways, multiple):
    full = ways.resnet18(32)
    pruned = ways.pruned_widths(full, multiple)
    widths = [w for stage in pruned.stages for block in stage for w in block.widths]
    assert all(width % multiple == 0 for width in [pruned.stem, *widths])
    with torch.device("meta"):
        left, every = (measure.count_parameters(ResNet(c)) for c in (pruned, full))
    assert left / every == pytest.approx(0.209, abs=0.005 * multiple)


def test_every_way_computes_the_same(ways, tmp_path):
    network = ResNet(ways.resnet18(4)).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for way in (ways.folded, ways.channels_last):
        found = ways.timed({"full": network}, images, way, passes=1, seconds=0.0)
        assert found["apart"] < 1e-5
        assert set(found["rates"]) == {"full", "plainly"} and found["speedup"] == {}
    assert ways.timed({"full": network}, images, ways.cuda_graph)["skipped"]


def test_ratios_are_those_of_one_pass(ways, monkeypatch):
    readings = {"full": [4.0, 6.0, 9.0], "8": [1.0, 3.0, 3.0], "plainly": [8.0, 6.0, 9.0]}
    monkeypatch.setattr(ways.measure, "seconds_in_turn", lambda *_, **__: readings)
    network = ResNet(ways.resnet18(4)).eval()
    found = ways.timed({"full": network, "8": network}, torch.zeros(6, 3, 32, 32), ways.plain)
    assert found["rates"] == {"full": 1.0, "8": 2.0, "plainly": 0.8}
    assert found["speedup"] == {"8": [3.0, 2.0, 4.0]}
    assert found["gain"] == {"full": [1.0, 1.0, 2.0], "8": [3.0, 2.0, 8.0]}


def test_a_compiler_that_fails_is_a_reason(ways):
    def broken(*_):
        raise RuntimeError("no compiler")

    network, images = ResNet(ways.resnet18(4)).eval(), torch.zeros(1, 3, 32, 32)
    with torch.inference_mode(), pytest.raises(ways.NotHere, match=r"torch\.compile fails"):
        ways.compiled(network, images, backend=broken)


# ---- the limit


def test_the_speed_limit_is_recorded(load, ways, monkeypatch, tmp_path):
    monkeypatch.setattr(ways, "MULTIPLES", {"multiples of 16": 16})
    script = load("speed_limit")
    content = script.measure_all(tmp_path, base_width=32, pixels=32, batches=(2,), quick=True)
    assert [row["way"] for row in content["rows"]] == [*script.WAYS, script.ONNX]
    for row in content["rows"]:
        assert "skipped" in row or row["apart"] < (0.1 if row["way"] == "bfloat16" else 1e-4)
    parts = content["by_part"]["2"]["full"]
    assert list(parts) == ["conv1", *(f"layer{n}" for n in range(1, 5)), "fc", "rest"]
    macs = sum(part["macs"] for part in parts.values())
    assert macs == pytest.approx(content["networks"]["full"]["macs"])
    blocked, convolutions = content["blocked_convolutions"]["full"]
    assert 0 <= blocked <= convolutions == 25
    content = json.loads(json.dumps(content))  # as the tables read it
    tables = load("speed_tables")
    assert tables.limit_table(content).count("\n| folded, channels-last |") == 2
    assert "| stage 4 |" in tables.part_table(content)


def test_the_limit_table_by_hand(load):
    rows = [
        {
            "way": way,
            "batch": 64,
            "rates": {"full": 100.0, "8": rate, "plainly": 80.0},
            "speedup": {"8": [rate / 100, 3.0, 9.0]},
            "gain": {"full": [1.25, 1.0, 2.0], "8": [rate / 80, 3.0, 9.0]},
        }
        for way, rate in (("slow", 310.0), ("fast", 320.0))
    ]
    skipped = {"way": "other", "batch": 64, "skipped": "no compiler"}
    networks = {
        "full": {"parameters": 10, "macs": 400, "widths": [8, 8]},
        "8": {"parameters": 2, "macs": 100, "widths": [4, 2, 4]},
    }
    counts = {"full": [25, 25], "8": [7, 25]}
    run = {"networks": networks, "rows": [*rows, skipped], "blocked_convolutions": counts}
    text = load("speed_tables").limit_table(run)
    assert "| 8 | 4, 2 | 20.0% | 4.00 |" in text
    assert "| slow | 8 | ×3.10 (3.00–9.00) | 78% | ×3.88 (3.00–9.00) |" in text
    assert "| other | | not measured: no compiler | | |" in text
    assert "images per second: fast, widths 8, ×4.00 (3.00–9.00)" in text
    assert "1 of 2 combinations reach 80%" in text and "8 7 of 25" in text


# ---- several processes


@SLOW
@needs_launcher
def test_scaling_is_recorded(load, tmp_path):
    script = load("scaling")
    settings = {"base_width": 4, "pixels": 32, "batch": 8, "steps": 4}
    content = script.measure_all(tmp_path, settings, repeats=1)
    one, two = content["rows"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert "alone" in two["full"] and "alone" not in one["full"]
    with torch.device("meta"):
        network = ResNet(script.make_config("laptop", base_width=4).network(8, 3, 32))
    assert two["full"]["gradient_bytes"] == 4 * measure.count_parameters(network)
    assert set(two["surgery"]) == {
        *("surgery", "surgery and sending", "wrapping", "first step", "later step")
    }
    tables = load("speed_tables")
    assert "\n| pruned |" in tables.scaling_table(content)
    assert "\n| the network wrapped anew |" in tables.surgery_table(content)


# ---- the GPU's script, on the CPU


# The last two start a process of their own.
STAGES = [*("speed", "ceiling"), *(pytest.param(s, marks=SLOW) for s in ("paper", "tests"))]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_of_the_gpu_script_works_on_a_cpu(load, monkeypatch, stage, tmp_path):
    records = tmp_path / "records"
    command = ["--stage", stage, "--device", "cpu", "--tiny", "--work", str(tmp_path)]
    assert load("gpu").main([*command, "--records", str(records), "--commit", "abc"]) == 0
    found = json.loads((records / f"gpu_{stage}.json").read_text())
    assert (found["machine"]["device"], found["tiny"]) == ("cpu", True)
    assert found["source"]["commit"] == "abc" and found["seconds"] >= 0
    tables = load("tables")
    monkeypatch.setattr(tables, "RECORDED", records)
    assert f"`data/recorded_runs/gpu_{stage}.json`" in tables.gpu_block()
    if stage == "speed":
        assert len(found["rows"]) == 3 * 2
        eager = [row for row in found["rows"] if row["way"] == "eager"]
        assert eager[0]["precision"] == "float32" and eager[0]["apart"] < 1e-5
    elif stage == "ceiling":
        assert set(found["rates"]["8"]) == {"bare loop", "ours", "ours, augmented"}
        assert found["ceiling"] == pytest.approx(
            found["product_flops"] / (6 * found["macs"]), rel=0.01, abs=0.1
        )
    elif stage == "paper":
        assert [line["round"] for line in found["history"]] == [0, 1]
    elif not torch.cuda.is_available():
        assert found["skipped"] > 0 and found["failed"] == []


def test_the_gpu_script_stops_in_time_and_goes_on(load, tmp_path, capsys):
    command = ["--stage", "speed", "--device", "cpu", "--tiny", "--work", str(tmp_path)]
    gpu = load("gpu")
    assert gpu.main([*command, "--minutes", "0"]) == gpu.NOT_DONE
    assert "the same command again" in capsys.readouterr().out
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no CUDA device"),
        (["--device", "cpu"], "add --tiny"),
        (["--device", "cpu", "--tiny", "--records", "data/recorded_runs"], "other --records"),
    ],
)
def test_what_the_gpu_script_refuses(load, monkeypatch, capsys, tmp_path, arguments, words):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        load("gpu").main([*arguments, "--work", str(tmp_path)])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["speed_limit", "scaling"])
def test_a_quick_look_is_never_recorded(load, capsys, name):
    with pytest.raises(SystemExit) as stopped:
        load(name).main(["--quick"])
    assert stopped.value.code == 2 and "another folder" in capsys.readouterr().err
