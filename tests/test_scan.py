from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from image_folders import colours, counts, draw, fill, load, raises, trees

from course_lib.images.scan import scan_folder

LAYOUTS: dict[str, tuple[dict[str, int], dict[str, list[int]], str]] = {
    "three": ({"train": 10, "val": 4, "test": 2}, {"train": [10, 10], "val": [4, 4]}, ""),
    "valid": ({"train": 10, "valid": 4, "test": 2}, {"val": [4, 4], "test": [2, 2]}, ""),
    "capitals": ({"Train": 9, "Validation": 4, "TEST": 2}, {"val": [4, 4], "test": [2, 2]}, ""),
    "words": (
        {"training_set": 10, "Validation Data": 4, "test-images": 2},
        {"train": [10, 10], "val": [4, 4], "test": [2, 2]},
        "",
    ),
    "no val": ({"train": 20, "test": 2}, {"train": [17, 17], "val": [3, 3]}, "val is cut from tr"),
    "no test": ({"train": 9, "val": 4}, {"val": [2, 2], "test": [2, 2]}, "test is cut from val"),
    "train only": ({"train": 20}, {"train": [14, 14], "test": [3, 3]}, "only train"),
    "unpacked": ({"photos/train": 9, "photos/val": 4}, {"val": [2, 2]}, "photos is the only"),
    "all in training_data": (
        {"training_data/train": 9, "training_data/val": 4},
        {"train": [9, 9], "val": [2, 2], "test": [2, 2]},
        "test is cut from val",
    ),
    "unpacked, one tree": ({"one/two": 20}, {"train": [14, 14]}, "two is the only folder in"),
    "validate": (
        {"train": 10, "validate": 4, "test": 2},
        {"train": [10, 10], "val": [4, 4], "test": [2, 2]},
        "",
    ),
    "dev": (
        {"train": 10, "dev": 4, "test": 2},
        {"train": [10, 10], "val": [4, 4], "test": [2, 2]},
        "dev counts as val.",
    ),
    "evaluation": ({"train": 9, "evaluation": 4}, {"val": [2, 2]}, "evaluation counts as val."),
    "unpacked twice": (
        {"training_set/training_set": 20, "test_set/test_set": 2},
        {"train": [17, 17], "test": [2, 2]},
        "val is cut from train",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path: Path, name: str) -> None:
    trees, expected, note = LAYOUTS[name]
    for i, (tree, count) in enumerate(trees.items()):
        fill(tmp_path / "in" / tree, {"a": count, "b": count}, start=100 * i)
    found = load(tmp_path / "in")
    assert {part: counts(found)[part] for part in expected} == expected
    assert note in " ".join(found.notes)
    if len(trees) > 1:
        held_out = [number // 100 for _, number in colours(found, "test")]
        assert set(held_out) == {len(trees) - 1}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    scan = scan_folder(fill(tmp_path / "in", {"bus": 3, "train": 3, "tram": 3}))
    assert scan.classes == ("bus", "train", "tram")


@pytest.mark.parametrize(
    "names",
    [
        *[("seg_train", "seg_test"), ("val", "test"), ("my val", "train")],
        *[("train", "holdout"), ("dev", "eval"), ("fold1", "fold2_eval")],
        ("seg_train/seg_train", "seg_test/seg_test"),
    ],
)
def test_parts_are_not_taken_for_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    for i, name in enumerate(names):
        fill(tmp_path / "in" / name, {"cats": 5, "dogs": 5}, start=100 * i)
    message = raises(tmp_path / "in")
    assert "both hold a folder cats" in message and "name them train, val and test" in message


@pytest.mark.parametrize("names", [("tr", "va", "te"), ("fold1", "fold2", "fold3")])
def test_parts_with_other_names_get_a_note(tmp_path: Path, names: tuple[str, ...]) -> None:
    for i, name in enumerate(names):
        fill(tmp_path / "in" / name, {"cats": 5, "dogs": 5}, start=100 * i)
    scan = scan_folder(tmp_path / "in")
    assert scan.classes == tuple(sorted(names))
    assert scan.notes == (
        f"The classes {', '.join(sorted(names))} hold the same folders (cats, dogs): if those are"
        " the classes, make train, val and test folders of them.",
    )


@pytest.mark.parametrize(
    "inside",
    [
        {"cat": ["2022", "2023"], "dog": ["2022", "2024"]},  # not all the same
        {"cat": ["images"], "dog": ["images"]},  # one folder alone can't be the classes
    ],
)
def test_folders_inside_the_classes_need_no_note(
    tmp_path: Path, inside: dict[str, list[str]]
) -> None:
    for i, (name, folders) in enumerate(inside.items()):
        fill(tmp_path / "in" / name, dict.fromkeys(folders, 3), start=100 * i)
    assert scan_folder(tmp_path / "in").notes == ()


def test_a_division_inside_the_classes_is_not_ignored(tmp_path: Path) -> None:
    for i, name in enumerate(("cat", "dog")):
        fill(tmp_path / "in" / name, {"test": 2, "train": 5}, start=100 * i)
    assert raises(tmp_path / "in") == (
        f"The folders test and train lie inside the classes of {tmp_path / 'in'}: put them"
        " outside, as test/cat and train/cat."
    )


def test_two_that_could_be_val(tmp_path: Path) -> None:
    """One that is called val comes first; what is left out is named, and refused with images."""
    for part, start in (("train", 0), ("val", 100), ("test", 200)):
        fill(tmp_path / "in" / part, {"cat": 3, "dog": 3}, start=start)
    (tmp_path / "in" / "dev" / "tools").mkdir(parents=True)
    assert scan_folder(tmp_path / "in").notes == ("Left out beside train and val and test: dev.",)
    fill(tmp_path / "in" / "dev", {"cat": 3, "dog": 3}, start=300)
    assert raises(tmp_path / "in") == (
        f"dev in {tmp_path / 'in'} would be left out, but holds the same folders (cat, dog) as"
        " train and val and test: merge it with one of them or take it out."
    )


def test_a_folder_of_the_same_classes_is_not_left_out(tmp_path: Path) -> None:
    for part, start in (("train", 0), ("test", 100), ("holdout", 200)):
        fill(tmp_path / "in" / part, {"cat": 3, "dog": 3}, start=start)
    assert "holdout in" in raises(tmp_path / "in")


def test_what_is_left_out_need_not_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, start in (("train", 0), ("val", 100), ("test", 200)):
        fill(tmp_path / "in" / part, {"cat": 3, "dog": 3}, start=start)
    (tmp_path / "in" / "lost+found").mkdir()
    scandir = os.scandir

    def refusing(folder: str | Path) -> object:
        if Path(folder).name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert scan_folder(tmp_path / "in").notes[0].endswith("test: lost+found.")


def test_a_class_folder_that_cannot_be_entered_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a folder (mode 644) can be listed, but what lies in it not be looked at."""
    root = fill(tmp_path / "in", {"cat": 3, "dog": 3})
    scandir = os.scandir

    class Entry:
        """An entry of such a folder; os.DirEntry can't be subclassed."""

        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.path = entry.name, entry.path
            self.is_dir, self.is_file = entry.is_dir, entry.is_file
            self.is_symlink = entry.is_symlink

        def stat(self) -> object:
            raise PermissionError(errno.EACCES, "Permission denied", self.path)

    @contextmanager
    def listing_only(folder: str | Path) -> Iterator[object]:
        with scandir(folder) as entries:
            yield map(Entry, entries) if Path(folder).name == "dog" else entries

    monkeypatch.setattr(os, "scandir", listing_only)
    assert raises(root) == (
        f"The folder {root / 'dog'} can't be read (Permission denied): change its permissions"
        " or take it out."
    )


def test_a_class_that_alone_has_test_images_is_not_looked_into(tmp_path: Path) -> None:
    fill(tmp_path / "in" / "train", {"cats": 5, "dogs": 5})
    fill(tmp_path / "in" / "test" / "cats", {"day": 2, "night": 2}, start=100)
    assert scan_folder(tmp_path / "in").classes == ("cats", "dogs")


def test_iphone_photographs_are_named(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "IMG_1.HEIC").write_bytes(b"x")
    words = "2 .heic files can't be read here (convert them to .jpg): cat/IMG_1.HEIC, dog"
    assert words in raises(tmp_path / "in")
    fill(tmp_path / "in", {"cat": 5, "dog": 2})
    message = raises(tmp_path / "in")
    assert "'dog' has 2 different" in message and words in message
    fill(tmp_path / "in", {"cat": 5, "dog": 5})
    assert words in scan_folder(tmp_path / "in").notes[0]


def test_one_file_is_spoken_of_as_one(tmp_path: Path) -> None:
    fill(tmp_path / "in", {"cat": 5, "dog": 5})
    (tmp_path / "in" / "cat" / "IMG_1.HEIC").write_bytes(b"x")
    (tmp_path / "in" / "cat" / "notes.txt").write_bytes(b"x")
    phone, other = scan_folder(tmp_path / "in").notes
    assert phone.startswith("1 .heic file can't be read here (convert it to .jpg): cat/IMG_1.HEIC")
    assert other.startswith("1 file was left out, having no image's ending")


def test_nested_hidden_linked_and_strange_files(tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"a": 5, "b": 5})
    draw(root / "a" / "deep" / "er" / "1.png", 0, 1000)
    (root / "a" / "0.png").rename(root / "a" / "0.PNG")
    for hidden in (".hidden/x.png", "a/.thumb.png", "a/._1.png", "__MACOSX/a/x.png"):
        draw(root / hidden, 0, 2000)
    draw(root / "loose.png", 0, 2000)
    (root / "a" / "notes.txt").write_text("mine")
    scan = scan_folder(root)
    assert len(scan.files) == 11
    assert scan.notes == (
        "2 files were left out, having no image's ending or no class folder: a/notes.txt,"
        " loose.png.",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links(tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"a": 5, "b": 5})
    (root / "a" / "up").symlink_to(root, target_is_directory=True)
    (root / "a" / "self").symlink_to(root / "a", target_is_directory=True)
    (root / "a" / "round").symlink_to(root / "a" / "round")
    (root / "a" / "gone.png").symlink_to(tmp_path / "gone.png")
    (root / "loop").symlink_to(root, target_is_directory=True)
    elsewhere = fill(tmp_path / "elsewhere", {"c": 4})
    (root / "c").symlink_to(elsewhere / "c", target_is_directory=True)
    scan = scan_folder(root)
    assert scan.classes == ("a", "b", "c")
    assert len(scan.files) == 14


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_text(tmp_path: Path) -> None:
    root = fill(tmp_path / "in", {"a": 5, "b": 5})
    odd = os.fsdecode(b"b\xff")
    (root / "b").rename(root / odd)
    (root / odd / os.fsdecode(b"\xfe.png")).write_bytes(b"")
    found = load(root)
    assert counts(found)["train"] == [3, 3]
    assert "could not be read" in found.notes[0]
    found.notes[0].encode("utf-8")  # can be written to a report


def only(counts: dict[str, int]) -> Callable[[Path], object]:
    return lambda root: fill(root, counts)


def with_broken(root: Path) -> None:
    fill(root, {"a": 2, "b": 5})
    (root / "a" / "bad.jpg").write_text("bad")


def all_the_same(root: Path) -> None:
    fill(root, {"a": 5})
    for i in range(5):
        draw(root / "b" / f"{i}.png", 99, 0)


def all_broken(root: Path) -> None:
    trees(train={"a": 5, "b": 5}, test={})(root)
    for name in ("a", "b"):
        (root / "test" / name).mkdir(parents=True)
        (root / "test" / name / "1.jpg").write_text("bad")


PROBLEMS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no folder": (lambda root: None, ["no folder", "check the path", "DIR/red/photo.jpg"]),
    "a file": (lambda root: root.write_text("x"), ["is a file", "unpack", "sub-folder of images"]),
    "empty": (lambda root: root.mkdir(), ["holds no images", "sub-folder of images per class"]),
    "no images": (
        lambda root: [(root / n).mkdir(parents=True) for n in "ab"],
        ["holds no images"],
    ),
    "something else": (
        lambda root: [root.mkdir(), (root / "mail.txt").write_text("x")],
        ["holds no images"],
    ),
    "loose images": (lambda root: draw(root / "1.png", 1, 1), ["loose images", "DIR/red/photo"]),
    "one folder and a list": (
        lambda root: [fill(root, {"images": 5}), (root / "labels.csv").write_text("1.png,cat")],
        ["only one class, 'images'", "labels.csv isn't read: sort the images into a folder per"],
    ),
    "a list of loose images": (
        lambda root: [draw(root / "1.png", 1, 1), (root / "Labels.CSV").write_text("1.png,cat")],
        ["loose images", "Labels.CSV isn't read: sort the images into a folder per class."],
    ),
    "one class": (only({"a": 5}), ["only one class, 'a'"]),
    "one class, below": (trees(a={"old": 5}), ["only one class, 'old'"]),
    "an empty class": (
        only({"a": 5, "b": 0, "c": 5}),
        ["'b' has 0 different readable images", "folder out"],
    ),
    "one image": (only({"a": 5, "b": 1}), ["'b' has 1 different readable image in", "at least 3"]),
    "two images": (only({"a": 5, "b": 2}), ["'b' has 2 different readable images"]),
    "too few are whole": (with_broken, ["'a' has 2", "not readable: a/bad.jpg (not an image"]),
    "the same image": (all_the_same, ["'b' has 1 different"]),
    "class not in train": (
        trees(train={"a": 3, "b": 3}, test={"a": 1, "c": 1}),
        ["'c' has images in another part", "take the class's folder out"],
    ),
    "one image, val to be cut": (
        trees(train={"a": 3, "b": 1}, test={"a": 1, "b": 1}),
        ["'b' has 1", "(train, val)"],
    ),
    "empty test": (
        trees(train={"a": 3, "b": 3}, test={"a": 0}),
        ["test has too few different readable images", "take the folder out"],
    ),
    "broken test": (all_broken, ["test", "too few different readable images", "a/1.jpg"]),
    "two vals": (
        trees(train={"a": 3}, val={"a": 3}, valid={"a": 3}),
        ["two folders for val, val and valid"],
    ),
}

# Those that show only when the images are read; nothing is decoded in vain for the others.
FOUND_LATE = {"too few are whole", "the same image", "broken test"}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_are_named_with_their_mend(tmp_path: Path, name: str) -> None:
    make, parts = PROBLEMS[name]
    root = tmp_path / "in"
    make(root)
    message = raises(root)
    for part in [*parts, str(root)]:
        assert part in message
    assert (tmp_path / "cache").exists() == (name in FOUND_LATE)
    assert not list(tmp_path.glob("cache/folders/*px*/"))  # nothing half-built is left


def test_only_a_folder_with_heic_hears_of_them(tmp_path):
    assert ".heic" not in raises(fill(tmp_path / "in", {"a": 5, "b": 1}))


def test_a_readme_beside_the_classes_of_an_unpacked_archive(tmp_path):
    fill(tmp_path / "in" / "photos", {"a": 5, "b": 5})
    (tmp_path / "in" / "photos" / "README.txt").write_text("x")
    assert scan_folder(tmp_path / "in").classes == ("a", "b")


def test_parts_are_told_from_classes_whatever_else_is_there(tmp_path):
    for name in ("seg_pred", "seg_test", "seg_train"):
        fill(tmp_path / "in" / name, {"forest": 4, "sea": 4} if name != "seg_pred" else {"pred": 4})
    assert "look like parts" in raises(tmp_path / "in")


def test_classes_may_hold_folders_of_the_same_name(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / "in" / name, {"2023": 4, "2024": 4}, start=0 if name == "cat" else 50)
    assert scan_folder(tmp_path / "in").classes == ("cat", "dog")
