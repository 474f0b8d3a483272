"""What a user can get wrong: one sentence that names the thing and the fix, and nothing lost."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import QUICK, contents, course, refused
from PIL import Image

from course_lib import checkpoint, report, training
from course_lib.__main__ import _never_fail_on_a_name, main
from course_lib.config import CRITERIA, DEPTHS, IMAGE_SIZES, LARGEST, SCOPES, Config
from course_lib.data import LARGEST_DEFAULT_SIZE, LARGEST_SIZE, SMALLEST_SIZE
from course_lib.errors import CourseError
from course_lib.pruning import CRITERIA as KNOWN_CRITERIA
from course_lib.pruning import PruningError
from course_lib.pruning.select import SCOPES as KNOWN_SCOPES
from course_lib.resnet import DEPTHS as KNOWN_DEPTHS

RUN = ["run", "--preset", "smoke", *QUICK]
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /dev")


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("done") / "run"
    assert main([*RUN, "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(done, tmp_path) -> Path:
    """A copy of a finished run, to be damaged."""
    shutil.copytree(done, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    return tmp_path / "run"


@pytest.fixture
def no_report(monkeypatch) -> None:
    """Leave out the timing and the figures at the end of a run."""
    monkeypatch.setattr(report, "finish", lambda *args, **options: {})
    monkeypatch.setattr(report, "describe", lambda summary: "done")


# ---- every option's wrong values


def wrong_values() -> Iterator[tuple[str, str]]:
    for option in fields(Config):
        name, limits = "--" + option.name.replace("_", "-"), option.metadata
        if option.type == "bool":
            yield f"{name}=maybe", ""
            continue
        yield name, ""
        if "choices" in limits:
            yield name, "nonsense"
        elif option.type not in ("str", "str | None"):
            yield name, "three"
            step = 1 if str(option.type).startswith("int") else 0.125
            yield from ((name, str(limits[key] - step)) for key in ("low",) if key in limits)
            yield from ((name, str(limits[key] + step)) for key in ("high",) if key in limits)
            yield from ((name, str(limits[key])) for key in ("above", "below") if key in limits)
            more = ["1.5", str(LARGEST + 1)] if step == 1 else ["nan", "inf", "-inf"]
            yield from ((name, value) for value in more)


@pytest.mark.parametrize(("option", "value"), list(wrong_values()))
def test_a_wrong_value_is_refused_by_name(tmp_path, capsys, option, value):
    given = [option] if "=" in option else [f"{option}={value}"]
    status, output, error = course(capsys, "run", "--out", tmp_path / "run", *given)
    assert (status, output) == (2, "")
    name = option.split("=")[0]
    if "usage:" in error:  # argparse's own words
        assert f"argument {name}" in error.splitlines()[-1]
    else:
        assert error.startswith(f"course_lib: {name} ") and error.count("\n") == 1
    assert "Traceback" not in error and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["walk"],
        ["run"],
        ["run", "--out"],
        ["run", "--out", ""],
        ["run", "--out", "x", "--cache", " "],
        ["run", "--out", "x", "--colour", "red"],
        ["run", "--out", "x", "extra"],
        ["doctor", "--out", "x"],
    ],
    ids=" ".join,
)
def test_a_command_that_cannot_be_understood(tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    status, _, error = course(capsys, *arguments)
    assert status == 2 and error.startswith("usage:") and "Traceback" not in error
    assert error.count("\n") <= 3, "what is wrong isn't buried under a list of all options"
    assert list(tmp_path.iterdir()) == []


def test_the_choices_are_those_there_are():
    assert (tuple(KNOWN_CRITERIA), KNOWN_SCOPES, tuple(KNOWN_DEPTHS)) == (CRITERIA, SCOPES, DEPTHS)
    assert IMAGE_SIZES == (SMALLEST_SIZE, LARGEST_SIZE)
    told = {option.name: option.metadata["help"] for option in fields(Config)}["image_size"]
    assert f"at most {LARGEST_DEFAULT_SIZE})" in told
    assert training.DEVICES[0] == training.PRECISIONS[0] == "auto"


# ---- options that don't go together


@pytest.mark.parametrize(
    "options",
    [
        "--rounds 1 --fraction 1e-9",
        "--rounds 16 --fraction 0.0001",
        "--floor 1000000",
        "--multiple 1000",
        "--scope network --fraction 0.001 --cap 0.001",
        "--scope network --floor 4096",
    ],
)
def test_pruning_that_would_remove_nothing_is_said_before_training(tmp_path, capsys, options):
    out = tmp_path / "run"
    error = refused(capsys, "No filter would go", *RUN, "--out", out, *options.split())
    assert all(option in error for option in options.split() if option in ("--cap", "--floor"))
    assert contents(tmp_path) == {}


def test_a_cap_that_no_round_could_keep_to_is_said_before_training(tmp_path, capsys):
    options = ("--scope", "network", "--fraction", "0.5")
    words = "--fraction 0.5 of all filters can't go while no layer may lose more than --cap 0.2"
    refused(capsys, words, *RUN, "--out", tmp_path / "run", *options)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("options", ["--cost macs", "--scope network --criterion critical"])
def test_a_cost_that_cant_be_weighed_is_said_before_training(tmp_path, capsys, options):
    options += " --cost macs"
    refused(capsys, "--cost macs needs", *RUN, "--out", tmp_path / "run", *options.split())
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "options",
    [
        "--rounds 0 --fraction 1e-9",
        "--batch-size 4096 --val-images 1 --test-images 1 --curve-images 100000",
        "--train-images 2 --image-size 16 --stem imagenet",
        "--criterion bn_scale --no-projection-norm --projection needed --stem small",
        "--scope network --cap 1 --fraction 0.9",
        "--scope network --cost macs --no-normalise --criterion taylor",
        "--fraction 0.99 --floor 1 --rounds 3 --batches 1",
        "--multiple 8 --base-width 8 --checkpoint-every 1 --curve-every 1",
        # The rising part of the cycle is then one batch, of which PyTorch makes a division by 0.
        "--batches 5 --warm-up 0.2",
        "--finetune-batches 1 --warm-up 0.99 --gate --retries 0 --tolerance 0",
    ],
)
def test_odd_but_possible_options_work(tmp_path, capsys, no_report, options):
    status, _, error = course(capsys, *RUN, "--out", tmp_path, *options.split())
    assert (status, error) == (0, "")
    assert (tmp_path / "network.pt").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--rate 1e30 --curve-every 1", "lower --rate"),
        ("--finetune-rate 1e30 --curve-every 1 --batches 4", "lower --finetune-rate"),
    ],
)
def test_a_loss_that_is_no_number(tmp_path, capsys, options, words):
    refused(capsys, words, *RUN, "--out", tmp_path / "run", *options.split())


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there(tmp_path, capsys, device):
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if there[device]:
        pytest.skip(f"{device} is there")
    words = f"no {device} device for PyTorch: use --device cpu"
    refused(capsys, words, *RUN, "--out", tmp_path / "run", "--device", device)
    assert contents(tmp_path) == {}


# ---- places


def a_file(tmp: Path) -> list[str]:
    (tmp / "file").write_text("mine")
    return ["--out", str(tmp / "file")]


def below_a_file(tmp: Path) -> list[str]:
    (tmp / "file").write_text("mine")
    return ["--out", str(tmp / "file" / "run")]


def file_as_cache(tmp: Path) -> list[str]:
    (tmp / "file").write_text("mine")
    return ["--out", str(tmp / "run"), "--cache", str(tmp / "file")]


def somebodys(name: str) -> Callable[[Path], list[str]]:
    def prepare(tmp: Path) -> list[str]:
        (tmp / name).write_text("mine")
        return ["--out", str(tmp)]

    return prepare


def config_in_the_way(tmp: Path) -> list[str]:
    (tmp / "config.json").mkdir()
    (tmp / "config.json" / "file").write_text("mine")
    return ["--out", str(tmp)]


def part_in_the_way(tmp: Path) -> list[str]:
    (tmp / ".config.json.part").mkdir()
    return ["--out", str(tmp)]


def lock_in_the_way(tmp: Path) -> list[str]:
    (tmp / ".lock").mkdir()
    return ["--out", str(tmp)]


def out_among_the_images(tmp: Path) -> list[str]:
    paint(tmp / "photos", {"a": 6, "b": 6})
    return ["--data", str(tmp / "photos"), "--out", str(tmp / "photos" / "runs" / "1")]


def cache_among_the_images(tmp: Path) -> list[str]:
    paint(tmp / "photos", {"a": 6, "b": 6})
    cache = str(tmp / "photos" / "cache")
    return ["--data", str(tmp / "photos"), "--out", str(tmp / "run"), "--cache", cache]


def paint(folder: Path, counts: dict[str, int], number: int = 0) -> Path:
    """A folder of small different pictures per class, numbered from the one after `number`."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            number += 1
            picture = Image.new("RGB", (20, 20), (number % 256, 7 * number % 256, 50))
            picture.save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (a_file, "can't be made a folder for the results"),
        (below_a_file, "can't be made a folder for the results"),
        (lambda tmp: ["--out", str(tmp / ("x" * 300))], "can't be made a folder"),
        (file_as_cache, "could not be written"),
        (somebodys("network.pt"), "holds network.pt, which a run would write over"),
        (somebodys("accuracy.png"), "choose another --out"),
        (somebodys("summary.json"), "choose another --out"),
        (somebodys("checkpoint.pt"), "add --resume"),
        (config_in_the_way, "choose another --out"),
        (part_in_the_way, "config.json can't be written"),
        (lock_in_the_way, ".lock: "),
        (out_among_the_images, "lies in the folder of images"),
        (cache_among_the_images, "--cache"),
        pytest.param(lambda tmp: ["--out", "/proc/run"], "/proc/run can't be made", marks=on_linux),
        pytest.param(lambda tmp: ["--out", "/dev/full"], "/dev/full can't be", marks=on_linux),
    ],
)
def test_a_place_that_cannot_be_used(tmp_path, capsys, prepare, words):
    arguments = prepare(tmp_path)
    before = contents(tmp_path)
    refused(capsys, words, *RUN, *arguments)
    assert contents(tmp_path) == before


@pytest.mark.skipif(
    sys.platform == "win32" or (hasattr(os, "geteuid") and os.geteuid() == 0),
    reason="root may write anywhere",
)
def test_a_folder_without_permission(tmp_path, capsys):
    tmp_path.chmod(0o500)
    refused(capsys, "Permission denied", *RUN, "--out", tmp_path)
    refused(capsys, "Permission denied", *RUN, "--out", tmp_path / "run")


# ---- folders of images


def source(make: Callable[[Path], object]) -> Callable[[Path], str]:
    def prepare(tmp: Path) -> str:
        make(tmp / "data")
        return str(tmp / "data")

    return prepare


def program(folder: Path) -> None:
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "main.py").write_text("print('hello')")
    (folder / "README.md").write_text("A program.")


def loose(folder: Path) -> None:
    paint(folder, {"a": 3})
    for path in (folder / "a").iterdir():
        path.rename(folder / path.name)
    (folder / "a").rmdir()


def all_broken(folder: Path) -> None:
    paint(folder, {"a": 6, "b": 6})
    for path in (folder / "b").iterdir():
        path.write_bytes(path.read_bytes()[:30])


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda tmp: str(tmp / "nowhere"), "There is no folder and no data set"),
        (lambda tmp: "~nobody-of-that-name/x", "~nobody-of-that-name/x"),
        (lambda tmp: str(tmp / ("x" * 300)), "x"),
        (source(lambda folder: folder.write_text("x")), "is a file, not a folder"),
        (source(lambda folder: folder.mkdir()), "holds no images"),
        (source(program), "holds no images"),
        (source(loose), "loose images"),
        (source(lambda folder: paint(folder, {"a": 9})), "only one class"),
        (source(lambda folder: paint(folder, {"a": 9, "b": 0})), "Class 'b' has 0"),
        (source(lambda folder: paint(folder, {"a": 9, "b": 1})), "Class 'b' has 1"),
        (source(all_broken), "not readable: b/"),
        (
            source(lambda folder: [paint(folder / part, {"a": 2}) for part in ("train", "test")]),
            "only one class",
        ),
        (
            source(
                lambda folder: [
                    paint(folder / "train", {"a": 3, "b": 3}),
                    paint(folder / "test", {"a": 3, "c": 3}),
                ]
            ),
            "Class 'c'",
        ),
    ],
)
def test_a_folder_that_holds_no_data_set(tmp_path, capsys, prepare, words):
    data = prepare(tmp_path)
    before = contents(tmp_path)
    arguments = ["--out", tmp_path / "run", "--cache", tmp_path / "cache", "--data", data]
    refused(capsys, words, *RUN, *arguments)
    assert contents(tmp_path) == before


def odd_images(folder: Path) -> None:
    """A data set in which some files are broken and others only unusual."""
    paint(folder, {"a": 8, "b": 8})
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8))
    for mode, name in (("CMYK", "cmyk.jpg"), ("P", "palette.gif"), ("RGBA", "alpha.png")):
        rgb.convert(mode).save(folder / "a" / name)
    Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16)).save(folder / "a" / "sixteen.PNG")
    whole = io.BytesIO()
    rgb.save(whole, "JPEG")
    (folder / "b" / "truncated.jpg").write_bytes(whole.getvalue()[:-200])
    (folder / "b" / "empty.jpg").write_bytes(b"")
    (folder / "b" / "text.jpg").write_text("this is no picture")
    (folder / "b" / "notes.txt").write_text("not a picture's ending")


def test_broken_images_are_named_and_the_run_goes_on(tmp_path, capsys, no_report):
    odd_images(tmp_path / "data")
    loud = [argument for argument in RUN if argument != "--quiet"]
    places = ["--out", tmp_path / "run", "--cache", tmp_path / "cache"]
    status, output, error = course(capsys, *loud, *places, "--data", tmp_path / "data")
    assert status == 0, error
    assert output.startswith("data: 2 classes (a, b); 14 images for training, 3 for validation, 3")
    assert "3 of 23 images could not be read and were left out" in output
    for name in ("b/truncated.jpg", "b/empty.jpg (the file is empty)", "b/text.jpg", "b/notes.txt"):
        assert name in output
    for name in ("cmyk", "palette", "alpha", "sixteen"):
        assert name not in output


@pytest.mark.parametrize(("options", "told"), [([], True), (["--tolerance", "0.6"], False)])
def test_too_few_validation_images_for_the_gate(tmp_path, capsys, no_report, options, told):
    data = paint(tmp_path / "data", {"a": 8, "b": 8})
    loud = [argument for argument in RUN if argument != "--quiet"]
    places = ["--out", tmp_path / "run", "--cache", tmp_path / "cache", "--data", data]
    status, output, error = course(capsys, *loud, *places, "--gate", *options)
    assert status == 0, error
    words = "one of the 2 images is 50.0 points of accuracy and the gate lets 2.0 pass"
    assert (words in output) == told


def test_names_that_a_terminal_cannot_show():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    _never_fail_on_a_name(stream)
    print("bäd.jpg 图", file=stream, flush=True)
    assert stream.buffer.getvalue() == b"b\\xe4d.jpg \\u56fe\n"


# ---- resuming


def config_file(text: str) -> Callable[[Path], None]:
    return lambda out: (out / "config.json").write_text(text, encoding="utf-8")


def changed(**options: Any) -> Callable[[Path], None]:
    def change(out: Path) -> None:
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, **options}))

    return change


def config_is_a_folder(out: Path) -> None:
    (out / "config.json").unlink()
    (out / "config.json").mkdir()


def other_format(out: Path) -> None:
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    torch.save({**saved, "format": 99}, out / "checkpoint.pt")


def other_widths(out: Path) -> None:
    """The configuration fits, the weights don't."""
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    saved["network"]["config"]["stem"] += 1
    torch.save(saved, out / "checkpoint.pt")


def checkpoint_of(value: object) -> Callable[[Path], None]:
    return lambda out: torch.save(value, out / "checkpoint.pt")


def checkpoint_is_a_folder(out: Path) -> None:
    (out / "checkpoint.pt").unlink()
    (out / "checkpoint.pt").mkdir()


def cut(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).write_bytes((out / name).read_bytes()[:-100])


DAMAGED = "config.json is damaged or of another version"
NO_CHECKPOINT = "checkpoint.pt is damaged or not a checkpoint"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (config_file(""), DAMAGED),
        (config_file('{"rounds": 1'), DAMAGED),
        (config_file("[1, 2]"), DAMAGED),
        (config_file("null"), DAMAGED),
        (config_file("[" * 100_000), DAMAGED),
        (lambda out: (out / "config.json").write_bytes(b"\xff\xfe\x00"), DAMAGED),
        (changed(colour="red"), DAMAGED),
        (changed(rounds="three"), "--rounds can't be 'three': it must be a whole number"),
        (changed(rounds=1.5), "it must be a whole number"),
        (changed(rounds=True), "it must be a whole number"),
        (changed(rounds=None), "it must be a whole number"),
        (changed(rounds=-1), "--rounds can't be -1"),
        (changed(gate="yes"), "--gate can't be 'yes': it must be true or false"),
        (changed(fraction=float("nan")), "--fraction can't be nan"),
        (changed(criterion=["l1"]), "--criterion can't be ['l1']"),
        (changed(data=7), "--data can't be 7: it must be a text"),
        (config_is_a_folder, "config.json can't be read"),
        (lambda out: (out / "config.json").unlink(), "is missing beside the checkpoint"),
        (changed(base_width=8), "config.json has base_width: 8, not 4"),
        (changed(rounds=9), "rounds: 9, not 1"),
        (cut("checkpoint.pt"), NO_CHECKPOINT),
        (other_format, "format 99, not 2"),
        (other_widths, NO_CHECKPOINT),
        (checkpoint_of([1, 2]), NO_CHECKPOINT),
        (checkpoint_of({}), NO_CHECKPOINT),
        (checkpoint_of(torch.zeros(3)), NO_CHECKPOINT),
        (checkpoint_is_a_folder, NO_CHECKPOINT),
    ],
)
def test_a_damaged_run_is_not_resumed(copy, capsys, damage, words):
    damage(copy)
    before = contents(copy)
    refused(capsys, words, "run", "--out", copy, "--resume", "--quiet")
    assert contents(copy) == before


class Evil:
    """What pickle runs when it loads this."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("zipped", [True, False], ids=["torch.save", "pickle"])
def test_a_malicious_checkpoint_is_not_run(copy, capsys, tmp_path, zipped):
    marker, path = tmp_path / "marker", copy / "checkpoint.pt"
    saved = {"format": 1, "config": Evil(marker)}
    path.write_bytes(pickle.dumps(saved))
    if zipped:
        torch.save(saved, path)
    before = contents(copy)
    error = refused(capsys, NO_CHECKPOINT, "run", "--out", copy, "--resume", "--quiet")
    assert contents(copy) == before and not marker.exists()
    assert "weights_only" not in error, "PyTorch's advice to switch the guard off isn't passed on"
    if zipped:  # the file would have worked
        torch.load(path, weights_only=False)
        assert marker.exists()


@pytest.fixture
def run_on_a_folder(tmp_path, capsys, no_report):
    """A finished run's folder of images and options; it must stay as it is."""
    data = paint(tmp_path / "data", {"a": 8, "b": 8})
    places = ["--out", tmp_path / "run", "--cache", tmp_path / "cache"]
    assert course(capsys, *RUN, *places, "--data", data)[0] == 0
    before = contents(tmp_path / "run")
    yield data, places
    assert contents(tmp_path / "run") == before


def test_images_that_changed_their_classes(run_on_a_folder, capsys):
    data, places = run_on_a_folder
    paint(data, {"c": 8}, number=100)
    words = "the classes a, b, c, which aren't those that the run began with"
    refused(capsys, words, "run", "--resume", "--quiet", *places)
    (data / "b").rename(data / "d")
    shutil.rmtree(data / "c")
    refused(capsys, "the classes a, d", "run", "--resume", "--quiet", *places)


def test_images_that_were_renamed(run_on_a_folder, capsys):
    """Others would be tested with, some of which the network has learnt."""
    data, places = run_on_a_folder
    for number, file in enumerate(sorted(data.rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"renamed {number:03}.png"))
    words = "have other contents or names, and so another division, than those that the run began"
    refused(capsys, words, "run", "--resume", "--quiet", *places)


def test_images_that_became_more(run_on_a_folder, capsys):
    data, places = run_on_a_folder
    paint(data, {"a": 12}, number=100)
    words = "have the parts train 20, val 4, test 4, not the train 12, val 2, test 2 that the run"
    refused(capsys, words, "run", "--resume", "--quiet", *places)


@pytest.mark.parametrize("text", ["", "[]", '{"full": 3}'])
def test_a_damaged_summary_is_made_again(copy, capsys, monkeypatch, text):
    timed_quickly(monkeypatch)
    whole = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(text)
    assert course(capsys, "run", "--out", copy, "--resume", "--quiet")[0] == 0
    again = json.loads((copy / "summary.json").read_text())
    assert again["final"]["test_accuracy"] == whole["final"]["test_accuracy"]


def test_a_page_that_was_deleted_is_made_again(copy, capsys, monkeypatch):
    timed_quickly(monkeypatch)
    page = copy / "report.html"
    classes = page.read_text(encoding="utf-8").count("<th")
    page.unlink()
    assert course(capsys, "run", "--out", copy, "--resume", "--quiet")[0] == 0
    assert page.read_text(encoding="utf-8").count("<th") == classes > 0


def timed_quickly(monkeypatch) -> None:
    def time_rounds(state, data, device):
        return {str(line["round"]): [1.0, 2.0] for line in state.history}

    monkeypatch.setattr(report, "time_rounds", time_rounds)


# ---- what runs out


def no_room(folder: Path, name: str) -> Path:
    """Make the disk full for one file: what is written to /dev/full fails, as on a full disk."""
    link = folder / f".{name}.part"
    link.symlink_to("/dev/full")
    return link


@on_linux
@pytest.mark.parametrize("name", ["config.json", "checkpoint.pt"])
def test_a_full_disk_at_the_beginning(tmp_path, capsys, name):
    no_room(tmp_path, name)
    words = f"{name} can't be written (No space left on device): free some space"
    refused(capsys, words, *RUN, "--out", tmp_path)
    assert contents(tmp_path) == {}


@on_linux
@pytest.mark.parametrize("name", ["checkpoint.pt", "history.jsonl", "network.pt", "accuracy.png"])
def test_a_full_disk_later_loses_nothing(copy, capsys, monkeypatch, name):
    timed_quickly(monkeypatch)
    (copy / "summary.json").unlink()
    no_room(copy, name)
    before = contents(copy)
    words = f"{name} can't be written (No space left on device): free some space"
    refused(capsys, words, "run", "--out", copy, "--resume", "--quiet")
    after = contents(copy)
    assert after.keys() == before.keys() and after[name] == before[name]
    assert course(capsys, "run", "--out", copy, "--resume", "--quiet")[0] == 0


@pytest.mark.parametrize("cause", [None, OSError(28, "No space left on device")])
def test_pytorch_words_for_a_full_disk(tmp_path, cause):
    def write(file):
        try:
            raise cause or RuntimeError
        except (OSError, RuntimeError):
            raise RuntimeError(
                "[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"
            ) from None

    (tmp_path / "file").write_text("old")
    with pytest.raises(CourseError, match="can't be written"):
        checkpoint.write_whole(tmp_path / "file", write)
    assert contents(tmp_path) == {"file": b"old"}

    def bug(file):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        checkpoint.write_whole(tmp_path / "file", bug)


def fails(error: Exception) -> Callable[..., Any]:
    def iterate(*args: object, **options: object) -> None:
        raise error

    return iterate


def ask_for_too_much(*args: object, **options: object) -> None:
    torch.empty(2**50)


def ask_numpy_for_too_much(*args: object, **options: object) -> None:
    np.ones(2**50)


@pytest.mark.parametrize(
    "iterate",
    [
        fails(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee docs")),
        fails(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")),
        fails(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")),
        fails(MemoryError()),
        ask_for_too_much,
        ask_numpy_for_too_much,
    ],
)
def test_memory_that_runs_out(tmp_path, capsys, monkeypatch, iterate):
    monkeypatch.setattr("course_lib.run.iterate", iterate)
    words = "Memory ran out with --batch-size 32"
    error = refused(capsys, words, *RUN, "--out", tmp_path)
    assert "--batch-size 16" in error
    assert contents(tmp_path) == {}, "the corrected command must not be refused"
    assert "--image-size" in refused(capsys, "", *RUN, "--out", tmp_path, "--batch-size", "2")


def test_memory_that_runs_out_later(copy, capsys, monkeypatch):
    monkeypatch.setattr("course_lib.run.iterate", fails(MemoryError()))
    before = contents(copy)
    refused(capsys, "in another --out", "run", "--out", copy, "--resume", "--quiet")
    assert contents(copy) == before


def test_what_cannot_be_pruned(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("course_lib.run.iterate", fails(PruningError("fc can't\nbe pruned.")))
    assert refused(capsys, "", *RUN, "--out", tmp_path) == "course_lib: fc can't be pruned.\n"


def test_our_own_bugs_keep_their_traceback(tmp_path, monkeypatch):
    for error in (RuntimeError("shapes"), KeyError("x"), FileNotFoundError(2, "none", "x")):
        monkeypatch.setattr("course_lib.run.iterate", fails(error))
        with pytest.raises(type(error)):
            main([*RUN, "--out", str(tmp_path)])


def test_the_sentence_stands_on_its_own_line_below_a_progress_bar(tmp_path):
    loud = [argument for argument in RUN if argument != "--quiet"]
    command = [sys.executable, "-m", "course_lib", *loud, "--rate", "1e30", "--out", str(tmp_path)]
    done = subprocess.run([*command, "--curve-every", "1"], capture_output=True)
    assert done.returncode == 2
    *bars, last, rest = done.stderr.decode().split("\n")
    assert last.startswith("course_lib: The loss became ") and rest == "" and "\r" not in last
    assert any("batch" in bar for bar in bars), "there was a bar"
