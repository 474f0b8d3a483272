from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from image_folders import fill

from course_lib import cache as cache_module
from course_lib import data as data_module
from course_lib import torchvision_sets
from course_lib.cache import RowWriter, default_cache
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


# ---- torchvision's


def idx(values: np.ndarray) -> bytes:
    """An array in the format of the MNIST files."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_fashion(root: Path, train: int = 100, test: int = 30) -> None:
    """Images filled with 10 times their label, in ten classes."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.repeat(10 * labels, 28 * 28).reshape(count, 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """CIFAR-10's files with 20 images each; returns the first file's images, [20, 32, 32, 3]."""
    kind = torchvision.datasets.CIFAR10
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    first = None
    for parts in ("train_list", "test_list"):
        sums = []
        for name, _ in getattr(kind, parts):
            pixels = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
            first = pixels if first is None else first
            content = pickle.dumps({"data": pixels, "labels": [i % 10 for i in range(20)]})
            (folder / name).write_bytes(content)
            sums.append([name, hashlib.md5(content).hexdigest()])
        monkeypatch.setattr(kind, parts, sums)
    content = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    (folder / "batches.meta").write_bytes(content)
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5})
    assert first is not None
    return first.reshape(20, 3, 32, 32).transpose(0, 2, 3, 1)


def fashion(root: Path, image_size: int | None = None, **options: int) -> Data:
    return load("fashion-mnist", image_size=image_size, cache=root, progress=False, **options)


def test_fashion_mnist(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    data = fashion(tmp_path)
    assert amounts(data) == [90, 10, 30]
    assert data.train.images.shape == (90, 28, 28, 1)
    assert len(data.classes) == 10
    assert np.bincount(data.val.labels).tolist() == [1] * 10
    assert np.bincount(data.train.labels).tolist() == [9] * 10
    for split in (data.train, data.val, data.test):
        assert np.array_equal(split.images[:, 5, 5, 0], 10 * split.labels)
    assert data.mean == pytest.approx((45 / 255,))
    assert data.notes == ("val: 10 images are cut from the training part.",)


def test_fashion_mnist_limited_and_resized(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    data = fashion(tmp_path, image_size=32, train=50, val=20, test=10)
    assert amounts(data) == [50, 20, 10]
    assert data.test.images.shape == (10, 32, 32, 1)
    assert np.bincount(data.train.labels).tolist() == [5] * 10
    assert np.array_equal(data.train.images[:, 0, 31, 0], 10 * data.train.labels)
    asked = fashion(tmp_path, val=900)
    assert amounts(asked) == [50, 50, 30]
    assert asked.notes[1] == "val: 900 images were asked for, 50 are there."


def test_cut_depends_on_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_cifar(tmp_path, monkeypatch)
    data = [
        load("cifar10", image_size=None, seed=seed, cache=tmp_path, progress=False)
        for seed in (0, 0, 1)
    ]
    assert amounts(data[0]) == [90, 10, 20]
    assert data[0].classes[3] == "class 3"
    assert np.array_equal(data[0].train.images, data[1].train.images)
    assert not np.array_equal(data[0].val.images, data[2].val.images)
    both = np.concatenate([data[0].train.images, data[0].val.images])
    where = [np.flatnonzero((both == image).all(axis=(1, 2, 3))) for image in images]
    assert [len(found) for found in where] == [1] * 20  # each once, in one part or the other
    labels = np.concatenate([data[0].train.labels, data[0].val.labels])
    assert [labels[found[0]] for found in where] == [i % 10 for i in range(20)]


def test_resizing_agrees_with_torchvision() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    resized = torchvision_sets.resized(images, 20, chunk=3)
    for image, small in zip(images, resized, strict=True):
        tensor = torchvision.tv_tensors.Image(image.transpose(2, 0, 1).copy())
        oracle = torchvision.transforms.v2.functional.resize(tensor, [20, 20], antialias=True)
        assert np.array_equal(small, oracle.numpy().transpose(1, 2, 0))


def no_network(*args: object, **kwargs: object) -> None:
    raise URLError("no route to host")


@pytest.mark.parametrize("name", torchvision_sets.TORCHVISION_SETS)
def test_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(CourseError) as caught:
        load(name, image_size=None, cache=tmp_path / "cache", progress=False)
    message = str(caught.value)
    assert message.startswith(f"{name} is not in {tmp_path / 'cache'} and could not be downloaded")
    assert "no route to host" in message
    assert "connect to the network once" in message
    assert "\n" not in message


def test_packed_files_are_unpacked_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    write_fashion(tmp_path)
    sums = []
    for path in sorted((tmp_path / "FashionMNIST" / "raw").iterdir()):
        packed = gzip.compress(path.read_bytes())
        path.with_name(path.name + ".gz").write_bytes(packed)
        path.unlink()
        sums.append((path.name + ".gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", sums)
    assert amounts(fashion(tmp_path)) == [90, 10, 30]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    path = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CourseError, match=r"fashion-mnist in .* are damaged .*: delete them"):
        fashion(tmp_path)


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


# ---- the cache folder and its files


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


HERE = Path(cache_module.__file__).parent.parent
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
