from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_folders import all_colours, colours, counts, draw, fill, load, raises, trees

from course_lib.images import cache as cache_module
from course_lib.images import folder as folder_module
from course_lib.images.layout import PARTS


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that have been decoded so far."""
    names: list[str] = []
    real = folder_module.decode

    def spy(path: Path, size: int) -> np.ndarray:
        names.append(path.name)
        return real(path, size)

    monkeypatch.setattr(folder_module, "decode", spy)
    return names


def test_second_start_decodes_nothing(tmp_path: Path, decoded: list[str]) -> None:
    root = fill(tmp_path / "in", {"a": 5, "b": 5})
    (root / "a" / "bad.png").write_text("bad")
    first = load(root)
    assert len(decoded) == 11
    second = load(root)
    assert len(decoded) == 11
    assert second.notes == first.notes
    for part in PARTS:
        assert isinstance(second.parts[part][0], np.memmap)
        assert colours(second, part) == colours(first, part)
    load(root, size=8)
    load(root, seed=1)
    assert len(decoded) == 33


def test_undivided_folders_do_not_depend_on_the_seed(tmp_path: Path, decoded: list[str]) -> None:
    trees(train={"a": 3, "b": 3}, val={"a": 1, "b": 1}, test={"a": 2})(tmp_path / "in")
    load(tmp_path / "in")
    load(tmp_path / "in", seed=7)
    assert len(decoded) == 10


def change_content(root: Path) -> None:
    draw(root / "a" / "1.png", 0, 999)


def change_size_only(root: Path) -> None:
    path = root / "a" / "1.png"
    time_ns = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path, ns=(time_ns, time_ns))


def change_time_only(root: Path) -> None:
    os.utime(root / "a" / "1.png", ns=(1, 1))


def new_decoder(root: Path) -> None:
    folder_module.DECODER_VERSION += 1


CHANGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "content": (change_content, 12),
    "size": (change_size_only, 12),
    "time": (change_time_only, 12),
    "another": (lambda root: draw(root / "a" / "new.png", 0, 998), 13),
    "one less": (lambda root: (root / "a" / "1.png").unlink(), 11),
    "renamed": (lambda root: (root / "a" / "1.png").rename(root / "a" / "x.png"), 12),
    "moved to another class": (lambda root: (root / "a" / "1.png").rename(root / "b/x.png"), 12),
    "decoder": (new_decoder, 12),
}


@pytest.mark.parametrize("name", CHANGES)
def test_rebuilt_when_anything_changes(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(folder_module, "DECODER_VERSION", folder_module.DECODER_VERSION)
    root = fill(tmp_path / "in", {"a": 6, "b": 6})
    load(root)
    decoded.clear()
    change, count = CHANGES[name]
    change(root)
    found = load(root)
    assert len(decoded) == count
    assert sum(len(found.parts[part][1]) for part in PARTS) == count
    if name == "content":
        assert (0, 999) in all_colours(found)
    assert len(list((tmp_path / "cache" / "folders").glob("*px*/"))) == 1  # the old one is gone


@pytest.mark.parametrize("damage", ["cut", "removed", "emptied"])
def test_damaged_cache_is_built_again(tmp_path: Path, decoded: list[str], damage: str) -> None:
    root = fill(tmp_path / "in", {"a": 5, "b": 5})
    before = {part: colours(load(root), part) for part in PARTS}
    stored = next(tmp_path.glob("cache/folders/*/train.npy"))
    if damage == "removed":
        stored.unlink()
    else:
        content = stored.read_bytes()
        stored.unlink()  # rather than cut a file that is still mapped
        stored.write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
    assert {part: colours(load(root), part) for part in PARTS} == before
    assert len(decoded) == 20


# A process of its own that decodes slowly and writes a line per image decoded.
SLOW = """
import sys, time
from pathlib import Path
from course_lib.images import folder
from course_lib.images.scan import scan_folder

root, cache, log = map(Path, sys.argv[1:])
real = folder.decode

def slow(path, size):
    with open(log, "a") as file:
        file.write(path.name + "\\n")
    time.sleep(0.03)
    return real(path, size)

folder.decode = slow
found = folder.load_folder(scan_folder(root), 4, 0, cache, progress=True)
print(sum(len(labels) for _, labels in found.parts.values()))
"""


def start_slow(root: Path, log: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW, str(root), str(root.parent / "cache"), str(log)]
    return subprocess.Popen(
        command,
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_lines(log: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while not log.exists() or len(log.read_text(encoding="utf-8").split()) < count:
        assert time.monotonic() < deadline, "the other process doesn't decode"
        time.sleep(0.01)


def test_killed_while_building(tmp_path: Path, decoded: list[str]) -> None:
    root = fill(tmp_path / "in", {"a": 20, "b": 20})
    log = tmp_path / "log"
    process = start_slow(root, log)
    wait_for_lines(log, 10)
    process.kill()
    process.communicate()
    assert len(log.read_text().split()) < 40
    folders = tmp_path / "cache" / "folders"
    assert [path.name for path in folders.glob("*/")] == [next(folders.glob("*.building")).name]
    found = load(root)  # neither waits for the dead process nor trusts what it left
    assert len(decoded) == 40
    assert counts(found) == {"train": [14, 14], "val": [3, 3], "test": [3, 3]}
    assert not list(folders.glob("*.building"))


def test_two_processes_build_it_once(tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"a": 20, "b": 20})
    log = tmp_path / "log"
    processes = [start_slow(root, log), start_slow(root, log)]
    outcomes = [process.communicate(timeout=30) for process in processes]
    assert [out.strip() for out, _ in outcomes] == ["40", "40"]
    assert len(log.read_text().split()) == 40
    # The one that waits says so; with it the bar of the other is all that is written.
    waited = [err for _, err in outcomes if "Waiting for another process" in err]
    assert len(waited) == 1
    assert "Decoding" not in waited[0]


class Interrupted(BaseException):
    """Stands for Ctrl-C, which pytest itself would act on."""


def test_interrupted_while_building_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "in", {"a": 5, "b": 5})

    def interrupt(path: Path, size: int) -> np.ndarray:
        raise Interrupted

    monkeypatch.setattr(folder_module, "decode", interrupt)
    with pytest.raises(Interrupted):
        load(root)
    assert not list((tmp_path / "cache" / "folders").glob("*/"))


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "in", {"a": 5, "b": 5})

    def full(self: object, rows: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module.RowWriter, "append", full)
        message = raises(root)
    assert "No space left on device" in message
    assert cache_module.ENVIRONMENT_VARIABLE in message
    assert not list((tmp_path / "cache" / "folders").glob("*/"))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
        assert "MB are free" in raises(root)
    load(root)


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"a": 5, "b": 5})
    (tmp_path / "cache").write_text("a file where the folder should be")
    message = raises(root)
    assert str(tmp_path / "cache") in message
    assert cache_module.ENVIRONMENT_VARIABLE in message
