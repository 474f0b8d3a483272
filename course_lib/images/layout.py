"""Where the parts of a folder of images lie: train, val and test, or one tree to be divided.

Where an archive was unpacked to a folder in a folder, as in DIR/train/train, the inner one counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from course_lib.errors import CourseError

PARTS = ("train", "val", "test")
# train, training, train_set, "Training Data", valid, validation-images, dev, evaluation, …
PART_OF_FOLDER = re.compile(
    r"(?P<part>train|val|test|dev|eval)(?:ing|id|idate|idation|uation)?"
    r"(?:[ _-]?(?:set|data|images))?",
    re.IGNORECASE,
)
LIKE_A_PART = re.compile(r"(^|[^a-z])(train|val|test|dev|eval)", re.IGNORECASE)
JPEG_ENDINGS = {".jpg", ".jpeg", ".jpe", ".jfif"}
OTHER_ENDINGS = {".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".tga", ".avif"}
ENDINGS = frozenset(JPEG_ENDINGS | OTHER_ENDINGS)


def find_trees(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Return tree → path, or {"": path} where the folder isn't divided yet; and notes."""
    found, others = _parts(root)
    if "train" in found and len(found) > 1:
        trees = {part: _same_inside(found[part]) for part in PARTS if part in found}
        _refuse_more_of_the_same(root, trees, others)
        beside = " and ".join(found[part].name for part in trees)
        notes = [f"Left out beside {beside}: {named(others)}."] if others else []
        if "val" in found and found["val"].name.lower().startswith(("dev", "eval")):
            notes.append(f"{found['val'].name} counts as val.")
        for part in PARTS:
            if part not in found:
                source = "train" if part == "val" else "val"
                notes.append(f"There is no folder {part}: {part} is cut from {source}.")
        return trees, notes
    if found.keys() == {"train"} and not others:
        # "Training Data" may hold all parts.
        trees, notes = find_trees(_same_inside(found["train"]))
        cut = "There is only train: val and test are cut from it."
        return trees, notes if "train" in trees else [cut, *notes]
    inner = _inner(root)
    if inner != root:
        trees, notes = find_trees(inner)
        return trees, [f"{inner.name} is the only folder in {root}: its folders count.", *notes]
    return {"": root}, _look_for_parts(root)


def _parts(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Return train, val and test → the folder that is called so; and the other folders' names."""
    found: dict[str, Path] = {}
    others, spare = [], []
    for name in _folders(root):
        named_so = PART_OF_FOLDER.fullmatch(name)
        part = named_so["part"].lower() if named_so else ""
        if part in ("dev", "eval"):
            spare.append(name)
        elif part in found:
            raise CourseError(
                f"{root} has two folders for {part}, {found[part].name} and {name}:"
                " merge them or rename one."
            )
        elif part:
            found[part] = root / name
        else:
            others.append(name)
    if spare and "val" not in found:
        found["val"] = root / spare.pop(0)
    return found, sorted(others + spare)


def _refuse_more_of_the_same(root: Path, trees: Mapping[str, Path], others: Sequence[str]) -> None:
    """Raise CourseError where a folder that would be left out holds the classes' folders too."""
    classes = {name for place in trees.values() for name in _folders(place)}
    for other in others:
        try:
            shared = sorted(classes & set(_folders(_same_inside(root / other))))
        except CourseError:
            continue  # what can't be read, as lost+found, needn't be
        if shared:
            raise CourseError(
                f"{other} in {root} would be left out, but holds the same folders"
                f" ({named(shared)}) as {' and '.join(trees)}: merge it with one of them or take"
                " it out."
            )


def _inner(folder: Path) -> Path:
    """The only folder in this one, if that holds folders and no images; else this one."""
    folders = [entry for entry in entries_of(folder) if entry.is_dir()]
    if len(folders) != 1:
        return folder
    entries = entries_of(folders[0].path)
    nested = any(entry.is_dir() for entry in entries)
    loose = any(is_image(entry.name) for entry in entries)
    return Path(folders[0].path) if nested and not loose else folder


def _same_inside(folder: Path) -> Path:
    """DIR/train/train, where there is no more in DIR/train; else DIR/train."""
    inner = _inner(folder)
    return inner if inner.name == folder.name else folder


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in entries_of(folder) if entry.is_dir()]


def is_image(path: str) -> bool:
    """Whether a file's name has an image's ending."""
    return os.path.splitext(path)[1].lower() in ENDINGS


def _look_for_parts(root: Path) -> list[str]:
    """Raise CourseError for parts that aren't where or called as expected, such as seg_train and
    seg_test, or cat/train: a network would learn to tell the parts of a data set from each other.

    Return a note where the names don't tell.
    """
    inside = {name: _folders(_same_inside(root / name)) for name in _folders(root)}
    owners: dict[str, list[str]] = {}
    for name, inner_names in inside.items():
        for inner in inner_names:
            owners.setdefault(inner, []).append(name)
    for inner, names in owners.items():
        if len(names) > 1 and (like := [name for name in names if LIKE_A_PART.search(name)]):
            first, second = sorted([like[0], next(name for name in names if name != like[0])])
            raise CourseError(
                f"{first} and {second} in {root} both hold a folder {inner}, so they look like "
                "parts, not like classes: name them train, val and test (train and one more at "
                "least), or rename those inside if they are classes."
            )
    parts = {name: list(filter(PART_OF_FOLDER.fullmatch, inside[name])) for name in inside}
    if parts and all(len(inner_names) > 1 for inner_names in parts.values()):
        one, within = next(iter(parts.items()))
        raise CourseError(
            f"The folders {' and '.join(within)} lie inside the classes of {root}: put them"
            f" outside, as {' and '.join(f'{part}/{one}' for part in within)}."
        )
    alike = list(inside.values())
    if len(alike) < 2 or len(alike[0]) < 2 or any(names != alike[0] for names in alike):
        return []
    return [
        f"The classes {named(list(inside))} hold the same folders ({named(alike[0])}): if those"
        " are the classes, make train, val and test folders of them."
    ]


def entries_of(folder: str | Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without hidden ones and links that lead nowhere."""
    try:
        with os.scandir(folder) as entries:
            kept = [e for e in entries if not e.name.startswith((".", "__MACOSX", "@eaDir"))]
    except OSError as error:
        raise unreadable(folder, error) from error
    return sorted((entry for entry in kept if _leads_somewhere(entry)), key=lambda e: e.name)


def unreadable(folder: str | Path, error: OSError) -> CourseError:
    """What is said of a folder that can't be listed, or whose files can't be reached."""
    return CourseError(
        f"The folder {folder} can't be read ({error.strerror}): change its permissions"
        " or take it out."
    )


def _leads_somewhere(entry: os.DirEntry[str]) -> bool:
    return not entry.is_symlink() or os.path.exists(entry.path)


def named(items: Sequence[str], most: int = 5) -> str:
    """Return the first few items as text, and how many more there are."""
    # Names that aren't valid text (odd bytes on Linux) must not stop a report from being written.
    shown = ", ".join(items[:most]).encode("utf-8", "replace").decode()
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
