from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_folders import SIZE, all_colours, colours, counts, draw, fill, load, trees
from PIL import Image

from course_lib.errors import CourseError
from course_lib.images.folder import default_image_size, stratified_order
from course_lib.images.layout import PARTS
from course_lib.images.scan import scan_folder
from course_lib.lessons.photo_folder import make_photos


def test_one_tree_is_divided_by_class(tmp_path: Path) -> None:
    scan = scan_folder(fill(tmp_path / "in", {"cat": 20, "ant": 40, "bee": 3}))
    assert scan.classes == ("ant", "bee", "cat")
    found = load(tmp_path / "in")
    assert counts(found) == {"train": [28, 1, 14], "val": [6, 1, 3], "test": [6, 1, 3]}
    for part in PARTS:
        images, labels = found.parts[part]
        assert images.dtype == np.uint8
        assert images.shape == (len(labels), SIZE, SIZE, 3)
        assert labels.dtype == np.int64
        assert [red for red, _ in colours(found, part)] == (10 * labels).tolist()
    everything = all_colours(found)
    drawn = [(0, i) for i in range(40)] + [(10, i) for i in range(3)] + [(20, i) for i in range(20)]
    assert sorted(everything) == drawn


def test_division_depends_on_the_seed_and_nothing_else(tmp_path: Path) -> None:
    amounts = {"a": 30, "b": 12}
    first = load(fill(tmp_path / "one" / "in", amounts))
    other = tmp_path / "two" / "in"
    for name in ("b", "a"):  # written the other way round, so listed in another order
        for i in reversed(range(amounts[name])):
            draw(other / name / f"{i}.png", 10 * (name == "b"), i)
    again, reseeded = load(other), load(other, seed=1)
    for part in PARTS:
        assert colours(first, part) == colours(again, part)
    assert set(colours(first, "test")) != set(colours(reseeded, "test"))
    assert counts(first) == counts(reseeded)


def test_identical_files_stay_in_one_part(tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"a": 40, "b": 40})
    for i in range(30):
        shutil.copy(root / "a" / f"{i}.png", root / "a" / f"copy{i}.png")
    shutil.copy(root / "a" / "0.png", root / "b" / "wrong.png")
    found = load(root)
    parts = [set(colours(found, part)) for part in PARTS]
    assert sum(len(part) for part in parts) == 80
    assert len(set.union(*parts)) == 80
    assert sum(len(found.parts[part][1]) for part in PARTS) == 111
    assert "31 images are exact copies" in found.notes[0]
    assert "1 image lies in more than one class: " in found.notes[1]
    assert "b/wrong.png = a/" in found.notes[1]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_every_prefix_is_stratified(labels: list[int]) -> None:
    order = stratified_order(labels)
    assert sorted(order) == list(range(len(labels)))
    total = Counter(labels)
    for end in range(1, len(labels) + 1):
        seen = Counter(labels[i] for i in order[:end])
        for label, count in total.items():
            # Half an image for the class's own rounding, and its share of the other classes'.
            share = count / len(labels)
            assert abs(seen[label] - share * end) <= 0.5 + share * len(total) / 2
    for label in total:
        assert sorted(members := [i for i in order if labels[i] == label]) == members


def test_the_first_images_of_a_part_are_a_fair_sample(tmp_path: Path) -> None:
    found = load(fill(tmp_path / "in", {"a": 30, "b": 60}))
    images, labels = found.parts["train"]
    assert np.bincount(labels[:12]).tolist() == [4, 8]
    assert [red for red, _ in colours(found, "train")][:12] == (10 * labels[:12]).tolist()
    assert len(images) == 63


def test_copies_across_the_users_own_parts_are_reported_and_left(tmp_path: Path) -> None:
    for tree in ("train", "val", "test"):
        fill(tmp_path / "in" / tree, {"a": 4, "b": 4})
    found = load(tmp_path / "in")
    assert counts(found)["test"] == [4, 4]
    assert found.notes[0].startswith("8 images lie in more than one of train, val and test")


def test_broken_images_are_named_and_the_rest_is_used(tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"a": 10, "b": 10})
    (root / "a" / "zero.jpg").write_bytes(b"")
    (root / "a" / "text.jpg").write_text("text")
    (root / "b" / "short.png").write_bytes((root / "b" / "0.png").read_bytes()[:50])
    found = load(root)
    assert sum(len(found.parts[part][1]) for part in PARTS) == 20
    assert len(found.notes) == 1
    assert found.notes[0].startswith("3 of 23 images could not be read and were left out: ")
    for name in ("a/zero.jpg (the file is empty)", "a/text.jpg (not an image", "b/short.png ("):
        assert name in found.notes[0]


@pytest.mark.parametrize("seed", range(6))
def test_broken_images_leave_no_part_without_a_class(tmp_path: Path, seed: int) -> None:
    root = fill(tmp_path / "in", {"a": 3, "b": 12})
    for i in range(4):
        (root / "a" / f"broken{i}.png").write_bytes(b"broken")
    assert {part: c[0] for part, c in counts(load(root, seed)).items()} == dict.fromkeys(PARTS, 1)


def test_class_absent_from_test_is_a_note(tmp_path: Path) -> None:
    trees(train={"a": 3, "b": 3}, val={"a": 1, "b": 1}, test={"a": 2})(tmp_path / "in")
    found = load(tmp_path / "in")
    assert counts(found)["test"] == [2]
    assert found.notes[-1] == "test has no image of b."


@pytest.mark.parametrize(
    ("side", "expected"), [(10, 32), (47, 32), (48, 48), (95, 80), (128, 96), (3000, 96)]
)
def test_default_image_size(tmp_path: Path, side: int, expected: int) -> None:
    for i in range(6):
        (tmp_path / "in" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("1", (side + i, side)).save(tmp_path / "in" / "ab"[i % 2] / f"{i}.png")
    (tmp_path / "in" / "a" / "bad.png").write_text("bad")
    assert default_image_size(scan_folder(tmp_path / "in"), largest=96) == expected


def test_the_drawn_folder_is_drawn_anew_but_for_what_is_somebodys(tmp_path: Path) -> None:
    folder, wanted = tmp_path / "photos", {"blue": 10, "red": 10}
    odd = make_photos(folder, wanted)
    assert all((folder / name).is_file() for name in odd)
    assert make_photos(folder, wanted) == odd
    mine = folder / "blue" / "my van.jpg"
    mine.write_bytes(b"a photograph")
    with pytest.raises(CourseError, match=r"my van\.jpg isn't the course's"):
        make_photos(folder, wanted)
    assert mine.read_bytes() == b"a photograph"
    with pytest.raises(CourseError, match="isn't a folder that the course drew"):
        make_photos(tmp_path, wanted)
