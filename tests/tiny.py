"""A data set and a run so small that a test can afford the whole loop."""

from __future__ import annotations

import numpy as np

from course_lib.config import Config
from course_lib.data import Data, Split

TINY = Config(
    image_size=16,
    base_width=4,
    stem="small",
    batches=24,
    rate=0.05,
    batch_size=16,
    rounds=3,
    finetune_batches=6,
    fraction=0.2,
    tolerance=0.9,
    curve_every=4,
    curve_images=32,
    checkpoint_every=5,
)


def split_of(count: int, seed: int, size: int = 16) -> Split:
    """Noise with one of three channels brighter: the brighter channel is the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    images = random.integers(0, 160, (count, size, size, 3))
    images[np.arange(count), :, :, labels] += 60
    return Split(images.astype(np.uint8), labels.astype(np.int64))


def tiny_data() -> Data:
    """100 training, 64 validation and 80 test images in three classes."""
    return Data(
        "tiny",
        ("red", "green", "blue"),
        split_of(100, 1),
        split_of(64, 2),
        split_of(80, 3),
        mean=(0.4, 0.4, 0.4),
        std=(0.2, 0.2, 0.2),
    )
