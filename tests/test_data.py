from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from image_folders import fill

from course_lib import data as data_module
from course_lib.data import Data, channel_statistics, load
from course_lib.errors import CourseError

PARTS = ("train", "val", "test")


def amounts(data: Data) -> list[int]:
    for split in (data.train, data.val, data.test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert split.images.shape[:1] == split.labels.shape
    return [len(split.labels) for split in (data.train, data.val, data.test)]


# ---- generated scenes


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, int]]:
    """(seed, split, index) of every scene drawn; each is filled with its index."""
    scenes: list[tuple[int, str, int]] = []

    def draw(seed: int, split: str, index: int, size: int = 64) -> tuple[np.ndarray, int]:
        scenes.append((seed, split, index))
        return np.full((size, size, 3), index % 256, dtype=np.uint8), index % 8

    monkeypatch.setattr(data_module.vehicles, "draw", draw)
    return scenes


def generated(cache: Path, train: int = 6, size: int | None = 16, seed: int = 0) -> Data:
    return load(
        "generated",
        image_size=size,
        seed=seed,
        cache=cache,
        train=train,
        val=2,
        test=3,
        progress=False,
    )


def test_generated_scenes_are_those_that_vehicles_draws(tmp_path: Path) -> None:
    data = generated(tmp_path, size=None, seed=5)
    assert amounts(data) == [6, 2, 3]
    assert data.classes == data_module.vehicles.CLASSES
    for part in PARTS:
        split = getattr(data, part)
        for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            expected, expected_label = data_module.vehicles.draw(5, part, i, size=48)
            assert np.array_equal(image, expected)
            assert label == expected_label


def test_generated_defaults(tmp_path: Path, drawn: list[tuple[int, str, int]]) -> None:
    data = load("generated", image_size=16, cache=tmp_path, progress=False)
    assert amounts(data) == [12_000, 2_000, 6_000]
    assert isinstance(data.train.images, np.memmap)


def test_scenes_are_drawn_once(tmp_path: Path, drawn: list[tuple[int, str, int]]) -> None:
    first = generated(tmp_path)
    assert len(drawn) == 11
    again = generated(tmp_path)
    shorter = generated(tmp_path, train=4)  # the longer file serves
    assert len(drawn) == 11
    assert np.array_equal(first.train.images, again.train.images)
    assert np.array_equal(shorter.train.images, first.train.images[:4])
    assert amounts(shorter) == [4, 2, 3]
    assert amounts(generated(tmp_path, train=9)) == [9, 2, 3]
    assert len(drawn) == 20


@pytest.mark.parametrize("change", ["seed", "size", "version"])
def test_scenes_are_drawn_again_when(
    tmp_path: Path,
    drawn: list[tuple[int, str, int]],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    generated(tmp_path)
    if change == "version":
        monkeypatch.setattr(data_module.vehicles, "VERSION", 10_000)
    generated(tmp_path, seed=int(change == "seed"), size=24 if change == "size" else 16)
    assert len(drawn) == 22


def test_damaged_scenes_are_drawn_again(tmp_path: Path, drawn: list[tuple[int, str, int]]) -> None:
    before = generated(tmp_path).val.images.copy()
    (labels,) = tmp_path.glob("generated/*-val-*/labels.npy")
    labels.write_bytes(b"")
    assert np.array_equal(generated(tmp_path).val.images, before)
    assert len(drawn) == 13  # the two of val again


# ---- the user's folder


def test_folder(tmp_path: Path) -> None:
    fill(tmp_path / "photos", {"a": 20, "b": 40})
    (tmp_path / "photos" / "a" / "bad.jpg").write_text("bad")
    data = load(
        str(tmp_path / "photos"),
        image_size=None,
        cache=tmp_path / "cache",
        train=9,
        test=900,
        progress=False,
    )
    assert data.name == "photos"
    assert data.classes == ("a", "b")
    assert amounts(data) == [9, 9, 9]
    assert data.train.images.shape == (9, 32, 32, 3)
    assert np.bincount(data.train.labels).tolist() == [3, 6]
    assert data.notes[0].startswith("1 of 61 images could not be read")
    assert data.notes[1:] == ("test: 900 images were asked for, 9 are there.",)


# ---- what is asked for


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "unknown": ({"source": "cifr10"}, "no data set 'cifr10': name one of generated, cifar10,"),
    "no size": ({"image_size": 0}, "image size is 0 pixels: choose one from 16 to 1024"),
    "huge size": ({"image_size": 5000}, "image size is 5000 pixels"),
    "seed": ({"seed": -1}, "seed is -1: choose 0"),
    "no train": ({"train": 0}, "0 train images were asked for: ask for at least 1"),
    "less than no test": ({"test": -5}, "-5 test images were asked for"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests(tmp_path: Path, name: str) -> None:
    options, message = WRONG[name]
    asked = {"source": "generated", "image_size": None, "cache": tmp_path, **options}
    with pytest.raises(CourseError) as caught:
        load(asked.pop("source"), **asked)  # type: ignore[arg-type]
    assert message in str(caught.value)


@given(arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3, st.sampled_from([1, 3]))))
def test_channel_statistics(images: np.ndarray) -> None:
    mean, std = channel_statistics(images)
    pixels = images.reshape(-1, images.shape[-1]) / 255
    assert mean == pytest.approx(pixels.mean(axis=0), abs=1e-9)
    assert std == pytest.approx(np.maximum(pixels.std(axis=0), 1 / 255), abs=1e-6)


def test_channel_statistics_read_the_first_images_only() -> None:
    images = np.zeros((10, 2, 2, 1), dtype=np.uint8)
    images[5:] = 255
    assert channel_statistics(images, most=6)[0] == pytest.approx((1 / 6,))
