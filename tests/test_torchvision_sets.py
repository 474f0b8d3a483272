from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from torchvision import tv_tensors
from torchvision.transforms import v2

from course_lib.data import Data, load
from course_lib.errors import CourseError
from course_lib.images import torchvision_sets


def amounts(data: Data) -> list[int]:
    for split in (data.train, data.val, data.test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert split.images.shape[:1] == split.labels.shape
    return [len(split.labels) for split in (data.train, data.val, data.test)]


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
        tensor = tv_tensors.Image(image.transpose(2, 0, 1).copy())
        oracle = v2.functional.resize(tensor, [20, 20], antialias=True)
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
