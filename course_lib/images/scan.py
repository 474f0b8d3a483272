"""What lies in a folder of images: its layout, its classes and its files, none of them opened.

Two layouts are understood: `DIR/<class>/…/image.jpg`, which is divided into parts later, and the
same below `DIR/train`, `DIR/val` and `DIR/test`, of which train and one of the others must exist.
Where an archive was unpacked to a folder in a folder, as in DIR/train/train, the inner one counts.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from course_lib.errors import CourseError

PARTS = ("train", "val", "test")
# train, training, train_set, "Training Data", valid, validation-images, …
PART_OF_FOLDER = re.compile(
    r"(?P<part>train|val|test)(?:ing|id|idation)?(?:[ _-]?(?:set|data|images))?", re.IGNORECASE
)
LIKE_A_PART = re.compile(r"(^|[^a-z])(train|val|test)", re.IGNORECASE)
JPEG_ENDINGS = {".jpg", ".jpeg", ".jpe", ".jfif"}
OTHER_ENDINGS = {".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".tga", ".avif"}
ENDINGS = frozenset(JPEG_ENDINGS | OTHER_ENDINGS)
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
    trees, notes = _trees(root)
    files: list[ImageFile] = []
    skipped: list[str] = []
    for tree, place in trees.items():
        files += _tree_files(root, tree, place, skipped)
    phone = [path for path in skipped if path.lower().endswith((".heic", ".heif"))]
    convert = f"{len(phone)} .heic files can't be read here (convert them to .jpg): {named(phone)}."
    notes += [convert] if phone else []
    if other := [path for path in skipped if path not in set(phone)]:
        notes.append(
            f"{len(other)} files were left out, having no image's ending or no class folder:"
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


def named(items: Sequence[str], most: int = 5) -> str:
    """Return the first few items as text, and how many more there are."""
    # Names that aren't valid text (odd bytes on Linux) must not stop a report from being written.
    shown = ", ".join(items[:most]).encode("utf-8", "replace").decode()
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")


def _trees(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Return tree → path, or {"": path} where the folder isn't divided yet; and notes."""
    found: dict[str, Path] = {}
    others = []
    for entry in _entries(root):
        named_so = PART_OF_FOLDER.fullmatch(entry.name)
        if not entry.is_dir():
            continue
        if named_so is None:
            others.append(entry.name)
        elif (part := named_so["part"].lower()) in found:
            raise CourseError(
                f"{root} has two folders for {part}, {found[part].name} and {entry.name}:"
                " merge them or rename one."
            )
        else:
            found[part] = root / entry.name
    if "train" in found and len(found) > 1:
        notes = [f"Left out beside {' and '.join(found)}: {named(others)}."] if others else []
        for part in PARTS:
            if part not in found:
                source = "train" if part == "val" else "val"
                notes.append(f"There is no folder {part}: {part} is cut from {source}.")
        return {part: _same_inside(found[part]) for part in PARTS if part in found}, notes
    if found.keys() == {"train"} and not others:
        trees, notes = _trees(_same_inside(found["train"]))  # "Training Data" may hold all parts
        cut = "There is only train: val and test are cut from it."
        return trees, notes if "train" in trees else [cut, *notes]
    inner = _inner(root)
    if inner != root:
        trees, notes = _trees(inner)
        return trees, [f"{inner.name} is the only folder in {root}: its folders count.", *notes]
    _refuse_parts_as_classes(root)
    return {"": root}, []


def _inner(folder: Path) -> Path:
    """The only folder in this one, if that holds folders and no images; else this one."""
    folders = [entry for entry in _entries(folder) if entry.is_dir()]
    if len(folders) != 1:
        return folder
    entries = _entries(folders[0].path)
    nested = any(entry.is_dir() for entry in entries)
    loose = any(_is_image(entry.name) for entry in entries)
    return Path(folders[0].path) if nested and not loose else folder


def _same_inside(folder: Path) -> Path:
    """DIR/train/train, where there is no more in DIR/train; else DIR/train."""
    inner = _inner(folder)
    return inner if inner.name == folder.name else folder


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in ENDINGS


def _refuse_parts_as_classes(root: Path) -> None:
    """Raise CourseError for parts whose names aren't understood, such as seg_train and seg_test: a
    network would learn to tell the parts of a data set from each other.
    """
    owner: dict[str, str] = {}
    for entry in _entries(root):
        if not entry.is_dir() or not LIKE_A_PART.search(entry.name):
            continue
        for inner in filter(os.DirEntry.is_dir, _entries(_same_inside(Path(entry.path)))):
            first = owner.setdefault(inner.name, entry.name)
            if first != entry.name:
                raise CourseError(
                    f"{first} and {entry.name} in {root} both hold a folder {inner.name}, so they "
                    "look like parts, not like classes: name them train, val and test (train and "
                    "one more at least)."
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
    for entry in _entries(place):
        if not entry.is_dir():
            skipped.append(_below(root, entry.path))
            continue
        # Each real folder is entered once per class, so links that go round come to an end.
        seen = {os.path.realpath(root), os.path.realpath(place)}
        for file in _walk(entry.path, seen):
            path = _below(root, file.path)
            if _is_image(file.name):
                stat = file.stat()
                files.append(ImageFile(path, tree, entry.name, stat.st_size, stat.st_mtime_ns))
            else:
                skipped.append(path)
    return sorted(files, key=lambda file: file.path)


def _walk(folder: str, seen: set[str]) -> Iterator[os.DirEntry[str]]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _walk(entry.path, seen)
        elif entry.is_file():
            yield entry


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without hidden ones and links that lead nowhere."""
    try:
        with os.scandir(folder) as entries:
            kept = [e for e in entries if not e.name.startswith((".", "__MACOSX", "@eaDir"))]
    except OSError as error:
        raise CourseError(
            f"The folder {folder} can't be read ({error.strerror}): change its permissions"
            " or take it out."
        ) from error
    return sorted((entry for entry in kept if _leads_somewhere(entry)), key=lambda e: e.name)


def _leads_somewhere(entry: os.DirEntry[str]) -> bool:
    return not entry.is_symlink() or os.path.exists(entry.path)


def _below(root: Path, path: str) -> str:
    return path[len(os.path.join(root, "")) :].replace(os.sep, "/")


def _classes(
    root: Path, trees: Mapping[str, Path], files: Sequence[ImageFile], skipped: Sequence[str]
) -> tuple[str, ...]:
    """The class names, sorted; raises CourseError where they can't be told."""
    first = next(iter(trees.values()))
    if not files:
        loose = [path for path in skipped if _is_image(path)]
        what = "has loose images, not sorted into classes" if loose else "holds no images"
        raise CourseError(f"{first} {what}: {LAYOUT}.")
    loops = {os.path.realpath(root), os.path.realpath(first)}
    folders = [entry for entry in _entries(first) if entry.is_dir()]
    classes = sorted(e.name for e in folders if os.path.realpath(e.path) not in loops)
    strangers = sorted({file.class_name for file in files} - set(classes))
    if strangers:
        raise CourseError(
            f"Class {strangers[0]!r} has images in another part but not in {first}:"
            " add some there or take the class's folder out."
        )
    if len(classes) < 2:
        raise CourseError(f"{first} has only one class, {classes[0]!r}: {LAYOUT}, for two or more.")
    return tuple(classes)
