from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from course_lib.errors import CourseError
from course_lib.images import cache as cache_module
from course_lib.images.cache import RowWriter, built_once, default_cache


def test_rows_written_one_by_one_are_a_plain_npy_file(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (1234, 5, 7, 3), dtype=np.uint8)
    with RowWriter(tmp_path / "rows.npy", (5, 7, 3)) as writer:
        for i in range(0, 1000, 10):
            writer.append(rows[i : i + 10])
        writer.append(rows[1000:])
        with pytest.raises(ValueError, match="uint8"):
            writer.append(rows[:1].astype(np.int64))
    assert np.array_equal(np.load(tmp_path / "rows.npy"), rows)


def place(system: str, **variables: str) -> Callable[[pytest.MonkeyPatch], Path]:
    def chosen(patch: pytest.MonkeyPatch) -> Path:
        for name in (cache_module.ENVIRONMENT_VARIABLE, "LOCALAPPDATA", "XDG_CACHE_HOME"):
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(cache_module.sys, "platform", system)
        patch.setattr(Path, "home", lambda: Path("home"))
        return default_cache()

    return chosen


HERE = Path(cache_module.__file__).parent.parent.parent
PLACES = {
    "checkout": (place("linux"), True, HERE / "data" / "cache"),
    "variable": (place("linux", PRUNING_RESNETS_CACHE="there"), True, Path("there")),
    "installed on Linux": (place("linux"), False, Path("home/.cache/pruning-resnets")),
    "XDG": (place("linux", XDG_CACHE_HOME="xdg"), False, Path("xdg/pruning-resnets")),
    "macOS": (place("darwin"), False, Path("home/Library/Caches/pruning-resnets")),
    "Windows": (place("win32", LOCALAPPDATA="local"), False, Path("local/pruning-resnets")),
}


@pytest.mark.parametrize("name", PLACES)
def test_default_cache(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    chosen, writable, expected = PLACES[name]
    monkeypatch.setattr(cache_module.os, "access", lambda path, mode: writable)
    with monkeypatch.context() as patch:
        found = chosen(patch)
    assert found == expected


@pytest.mark.parametrize(
    ("code", "mend"),
    [(errno.ENOSPC, "make room or name another folder"), (errno.EACCES, "): name another folder")],
)
def test_room_is_asked_for_only_on_a_full_disk(tmp_path: Path, code: int, mend: str) -> None:
    def build(aside: Path) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(CourseError) as caught:
        built_once(tmp_path / "x", np.load, build, family="x", needs=0, progress=False)
    assert f"could not be written ({os.strerror(code)}" in str(caught.value)
    assert mend in str(caught.value)
