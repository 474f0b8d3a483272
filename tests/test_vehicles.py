"""The drawn scenes: pure, balanced, honest about their colour, quick, and a real task."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from course_lib.errors import CourseError
from course_lib.vehicles import CLASSES, PALETTE, draw, draw_many, scene

ROOT = Path(__file__).resolve().parent.parent


def _digest(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def _body_mask(seed: int, split: str, index: int, size: int) -> np.ndarray:
    """Where the vehicle's paint shows: the pixels that change when only the paint does."""
    scenes = []
    for paint in ((60, 90, 120), (150, 120, 60)):
        rng = scene._generator(seed, split, index, size)
        label = int(rng.integers(len(CLASSES)))
        scene._paint(rng, label)  # the draws that `draw` makes before the scene
        canvas = scene._scene(rng, label, paint, 2 * size)
        scenes.append(np.asarray(canvas.reduce(2), dtype=int))
    return np.abs(scenes[0] - scenes[1]).sum(axis=2) > 60


def _nearest_class(colour: np.ndarray) -> int:
    """The class with the nearest paint in its palette, by plain distance in RGB."""
    distances = [min(np.linalg.norm(colour - paint) for paint in PALETTE[c]) for c in CLASSES]
    return int(np.argmin(distances))


def _histograms(image: np.ndarray) -> np.ndarray:
    """Joint RGB (8x8x8), joint HSV (16x4x4) and separate HSV histograms of the whole image."""
    rgb = (image.reshape(-1, 3) >> 5).astype(int)
    hsv = np.asarray(Image.fromarray(image).convert("HSV")).reshape(-1, 3).astype(int)
    joint = np.bincount(rgb @ [64, 8, 1], minlength=512)
    coarse = np.bincount((hsv >> [4, 6, 6]) @ [16, 4, 1], minlength=256)
    single = [np.bincount(hsv[:, channel] >> 3, minlength=32) for channel in range(3)]
    return np.concatenate([joint, coarse, *single])


@pytest.mark.parametrize("size", [32, 48, 64, 128])
def test_image_has_the_asked_size_and_uses_the_range(size: int) -> None:
    image, label = draw(0, "train", 3, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert isinstance(label, int)
    assert 0 <= label < len(CLASSES)
    assert image.std() > 15


def test_scene_does_not_depend_on_the_size() -> None:
    """Reduced to one size, the same index at two sizes is far more alike than two indices."""

    def thumbnail(index: int, size: int) -> np.ndarray:
        image, _ = draw(0, "train", index, size)
        return np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BOX), float)

    for index in range(10):
        small, large = thumbnail(index, 48), thumbnail(index, 96)
        assert draw(0, "train", index, 48)[1] == draw(0, "train", index, 96)[1]
        same = np.abs(small - large).mean()
        assert same < 5
        assert same < 0.5 * np.abs(small - thumbnail(index + 1, 48)).mean()


def test_same_arguments_give_the_same_bytes_in_any_order() -> None:
    forward = {index: _digest(draw(5, "val", index, 32)[0]) for index in range(12)}
    backward = {index: _digest(draw(5, "val", index, 32)[0]) for index in reversed(range(12))}
    assert forward == backward
    assert len(set(forward.values())) == 12


def test_another_process_with_another_hash_seed_draws_the_same() -> None:
    code = (
        "import hashlib; from course_lib.vehicles import draw;"
        "print([hashlib.sha256(draw(1, 'test', i, 48)[0].tobytes()).hexdigest() for i in (9, 2)])"
    )
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-B", "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == str([_digest(draw(1, "test", i, 48)[0]) for i in (9, 2)])


def test_splits_and_seeds_differ() -> None:
    images = [draw(seed, split, 0, 32)[0] for seed in (0, 1) for split in ("train", "val", "test")]
    assert len({_digest(image) for image in images}) == 6


def test_draw_many_is_a_loop_over_draw() -> None:
    images, labels = draw_many(2, "test", 5, 32)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    for index in range(5):
        image, label = draw(2, "test", index, 32)
        assert np.array_equal(images[index], image)
        assert labels[index] == label
    assert draw_many(0, "test", 0, 32)[0].shape == (0, 32, 32, 3)


def test_classes_are_about_equally_frequent() -> None:
    _, labels = draw_many(0, "train", 1600, 16)
    counts = np.bincount(labels, minlength=8)
    # 200 are expected of each; five standard deviations of a binomial count are 66.
    assert counts.size == 8
    assert np.all(np.abs(counts - 200) < 66)


def test_vehicle_is_in_the_middle_and_large() -> None:
    shares, centres = [], []
    for index in range(200):
        mask = _body_mask(0, "train", index, 48)
        rows, columns = np.nonzero(mask)
        shares.append(mask.mean())
        centres.append((rows.mean() / 48, columns.mean() / 48))
    rows_mean, columns_mean = np.array(centres).T
    assert np.quantile(shares, 0.02) > 0.03
    assert np.max(shares) < 0.3
    assert np.mean(np.abs(columns_mean - 0.5) < 0.15) > 0.95
    assert np.mean((rows_mean > 0.4) & (rows_mean < 0.85)) > 0.95


def test_body_shows_its_own_class_in_most_photographs() -> None:
    right = []
    for index in range(400):
        image, label = draw(0, "train", index, 48)
        body = np.median(image[_body_mask(0, "train", index, 48)], axis=0)
        right.append(_nearest_class(body) == label)
    assert np.mean(right) > 0.7


def test_unlit_paint_always_belongs_to_its_class() -> None:
    for label in range(len(CLASSES)):
        for index in range(100):
            paint = scene._paint(np.random.default_rng(index), label)
            assert _nearest_class(np.array(paint)) == label


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((-1, "train", 0, 64), "Seed -1"), ((0, "train", -2, 64), "index -2"),
     ((0, "train", 0, 8), "8 pixels")],
)  # fmt: skip
def test_impossible_arguments_are_named(arguments: tuple, named: str) -> None:
    with pytest.raises(CourseError, match=named):
        draw(*arguments)


def test_drawing_is_quick() -> None:
    draw_many(0, "train", 20, 64)
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        draw_many(0, "train", 100, 64)
        best = min(best, time.perf_counter() - start)
    assert best / 100 < 0.01  # about 1 ms on an idle core; a busy machine gets ten times that


def test_colour_histograms_do_not_solve_the_task() -> None:
    """A forest on histograms beats chance by far and stays below 78 %: position matters."""
    forests = pytest.importorskip("sklearn.ensemble")
    train, train_labels = draw_many(0, "train", 6000, 48)
    held_out, held_out_labels = draw_many(0, "val", 2000, 48)
    forest = forests.RandomForestClassifier(200, n_jobs=2, random_state=0)
    forest.fit(np.stack([_histograms(image) for image in train]), train_labels)
    accuracy = forest.score(np.stack([_histograms(image) for image in held_out]), held_out_labels)
    assert 0.5 < accuracy < 0.78
