"""What lies in a folder of images: its layout, its classes and its files, none of them opened.

Two layouts are understood: `DIR/<class>/…/image.jpg`, which is divided into parts later, and the
same below `DIR/train`, `DIR/val` and `DIR/test`, of which train and one of the others must exist.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from course_lib.errors import CourseError
from course_lib.images.layout import PARTS, entries_of, find_trees, is_image, named, unreadable

LAYOUT = "expected is one sub-folder of images per class, such as DIR/red/photo.jpg"


@dataclass(frozen=True)
class ImageFile:
    """A file with an image's ending, and what `stat` says of it."""

    path: str  # below the root, with forward slashes
    tree: str  # "train", "val" or "test"; "" where there is one tree
    class_name: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Scan:
    """The files of a folder, sorted by path, and how each tree is shared out among the parts."""

    root: Path
    files: tuple[ImageFile, ...]
    classes: tuple[str, ...]
    places: Mapping[str, Path]  # tree → the folder of its classes
    shares: Mapping[str, Mapping[str, float]]  # tree → part → share
    notes: tuple[str, ...]

    @property
    def is_cut(self) -> bool:
        """Whether a tree is divided by us, so that the outcome depends on the seed."""
        return any(len(parts) > 1 for parts in self.shares.values())


def scan_folder(folder: str | Path) -> Scan:
    """List the images below `folder`, which must be in one of the two layouts.

    Raises CourseError where it isn't, and where a class has too few images.
    """
    root = Path(folder).expanduser()
    if not root.exists():
        raise CourseError(f"There is no folder {root}: check the path; {LAYOUT}.")
    if not root.is_dir():
        raise CourseError(f"{root} is a file, not a folder (unpack an archive first): {LAYOUT}.")
    root = root.resolve()
    trees, notes = find_trees(root)
    files: list[ImageFile] = []
    skipped: list[str] = []
    for tree, place in trees.items():
        files += _tree_files(root, tree, place, skipped)
    phone = [path for path in skipped if path.lower().endswith((".heic", ".heif"))]
    file, them = ("file", "it") if len(phone) == 1 else ("files", "them")
    convert = (
        f"{len(phone)} .heic {file} can't be read here (convert {them} to .jpg): {named(phone)}."
    )
    notes += [convert] if phone else []
    if other := [path for path in skipped if path not in set(phone)]:
        were = "file was" if len(other) == 1 else "files were"
        notes.append(
            f"{len(other)} {were} left out, having no image's ending or no class folder:"
            f" {named(other)}."
        )
    try:
        classes, shares = _classes(root, trees, files, skipped), _shares(tuple(trees))
        scan = Scan(root, tuple(files), classes, trees, shares, tuple(notes))
        require_enough(scan, Counter((file.tree, file.class_name) for file in files))
    except CourseError as error:
        if phone:  # they may be what is lacking
            raise CourseError(f"{error} {convert}") from None
        raise
    return scan


def require_enough(scan: Scan, have: Mapping[tuple[str, str], int]) -> None:
    """Raise CourseError where a class, or a whole tree, has fewer images than it has parts.

    `have`: (tree, class) → number of images. A class may be absent from val and test trees.
    """
    for tree, parts in scan.shares.items():
        place = scan.places[tree]
        if sum(have.get((tree, name), 0) for name in scan.classes) < len(parts):
            raise CourseError(
                f"{place} has too few different readable images in class folders: add some or take"
                f" the folder out; {LAYOUT}."
            )
        if "train" not in parts:
            continue
        for name in scan.classes:
            count = have.get((tree, name), 0)
            if count < len(parts):
                raise CourseError(
                    f"Class {name!r} has {count} different readable image{'s' * (count != 1)}"
                    f" in {place} where at least {len(parts)} are needed ({', '.join(parts)}):"
                    " add images or take the class's folder out."
                )


def _shares(trees: tuple[str, ...]) -> dict[str, dict[str, float]]:
    if trees == ("",):
        return {"": {"train": 0.70, "val": 0.15, "test": 0.15}}
    if trees == ("train", "test"):
        return {"train": {"train": 0.85, "val": 0.15}, "test": {"test": 1.0}}
    if trees == ("train", "val"):
        return {"train": {"train": 1.0}, "val": {"val": 0.5, "test": 0.5}}
    return {part: {part: 1.0} for part in PARTS}


def _tree_files(root: Path, tree: str, place: Path, skipped: list[str]) -> list[ImageFile]:
    files = []
    for entry in entries_of(place):
        if not entry.is_dir():
            skipped.append(_below(root, entry.path))
            continue
        # Each real folder is entered once per class, so links that go round come to an end.
        seen = {os.path.realpath(root), os.path.realpath(place)}
        for file in _walk(entry.path, seen):
            path = _below(root, file.path)
            if is_image(file.name):
                try:
                    stat = file.stat()
                except PermissionError as error:  # the folder may be listed, but not entered
                    raise unreadable(os.path.dirname(file.path), error) from error
                files.append(ImageFile(path, tree, entry.name, stat.st_size, stat.st_mtime_ns))
            else:
                skipped.append(path)
    return sorted(files, key=lambda file: file.path)


def _walk(folder: str, seen: set[str]) -> Iterator[os.DirEntry[str]]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in entries_of(folder):
        if entry.is_dir():
            yield from _walk(entry.path, seen)
        elif entry.is_file():
            yield entry


def _below(root: Path, path: str) -> str:
    return path[len(os.path.join(root, "")) :].replace(os.sep, "/")


def _classes(
    root: Path, trees: Mapping[str, Path], files: Sequence[ImageFile], skipped: Sequence[str]
) -> tuple[str, ...]:
    """The class names, sorted; raises CourseError where they can't be told."""
    first = next(iter(trees.values()))
    csv = _unread_list(root, first)
    if not files:
        loose = [path for path in skipped if is_image(path)]
        what = "has loose images, not sorted into classes" if loose else "holds no images"
        raise CourseError(f"{first} {what}: {LAYOUT}.{csv}")
    loops = {os.path.realpath(root), os.path.realpath(first)}
    folders = [entry for entry in entries_of(first) if entry.is_dir()]
    classes = sorted(e.name for e in folders if os.path.realpath(e.path) not in loops)
    strangers = sorted({file.class_name for file in files} - set(classes))
    if strangers:
        raise CourseError(
            f"Class {strangers[0]!r} has images in another part but not in {first}:"
            " add some there or take the class's folder out."
        )
    if len(classes) < 2:
        one = f"{first} has only one class, {classes[0]!r}"
        raise CourseError(f"{one}: {LAYOUT}, for two or more.{csv}")
    return tuple(classes)


def _unread_list(*folders: Path) -> str:
    """A sentence about the first .csv file: many data sets come with their classes in one."""
    for entry in (entry for folder in folders for entry in entries_of(folder)):
        if entry.name.lower().endswith(".csv"):
            return f" {entry.name} isn't read: sort the images into a folder per class."
    return ""
