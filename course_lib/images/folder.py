"""The user's own images: decoded once, divided into parts, and mapped into memory ever after."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from course_lib.errors import CourseError
from course_lib.images.cache import RowWriter, built_once
from course_lib.images.decode import DECODER_VERSION, UndecodableImage, decode, short_side
from course_lib.images.layout import PARTS, named
from course_lib.images.scan import ImageFile, Scan, require_enough

FORMAT = 1  # raise it when what is stored, or the way images are divided, changes


@dataclass(frozen=True)
class Copies:
    """Files of one tree with the same bytes; `content` tells their bytes from others'."""

    content: str
    files: tuple[ImageFile, ...]

    @property
    def stratum(self) -> tuple[str, str]:
        """The tree and the class that the copies count for."""
        return self.files[0].tree, self.files[0].class_name


@dataclass(frozen=True)
class FolderImages:
    """Images uint8 [N, size, size, 3] (memory-mapped) and labels int64 [N] of every part.

    The classes take turns: the first n images of a part hold them in about the proportions of the
    whole part.
    """

    parts: Mapping[str, tuple[np.ndarray, np.ndarray]]
    notes: tuple[str, ...]


def load_folder(
    scan: Scan, size: int, seed: int, cache: Path, *, progress: bool = True
) -> FolderImages:
    """Decode the images of `scan` at `size` pixels, or map what an earlier call has decoded.

    What is stored is keyed by every file's path, size and time, so that any change rebuilds it.
    Raises CourseError where too few images of a class are readable or the cache can't be written.
    """
    seed = seed if scan.is_cut else 0
    root = str(scan.root).encode("utf-8", "surrogatepass")
    family = f"{hashlib.sha256(root).hexdigest()[:8]}-{size}px-seed{seed}"
    target = cache / "folders" / f"{family}-{_key(scan)}"

    def build(aside: Path) -> None:
        for older in target.parent.glob(f"{family}-*"):  # the same folder before it changed
            shutil.rmtree(older, ignore_errors=True)
        _build(scan, size, seed, aside, progress)

    needs = len(scan.files) * size * size * 3
    stored = built_once(target, _open, build, family=family, needs=needs, progress=progress)
    return FolderImages(stored.parts, scan.notes + stored.notes)


def default_image_size(scan: Scan, largest: int) -> int:
    """Return the median short side, rounded down to a multiple of 16, from 32 to `largest`."""
    sides = []
    for file in scan.files[:: -(-len(scan.files) // 200)]:
        try:
            sides.append(short_side(scan.root / file.path))
        except UndecodableImage:
            continue
    median = int(np.median(sides)) if sides else largest
    return min(max(median // 16 * 16, 32), largest)


def stratified_order(labels: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the order of positions in which the classes take turns, each by its frequency.

    Every prefix then holds each class in nearly its proportion. Within a class the given order is
    kept: shuffle before.
    """
    labels = np.asarray(labels)
    turn = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        turn[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((labels, turn))


def _key(scan: Scan) -> str:
    rows = [(file.path, file.bytes, file.mtime_ns) for file in scan.files]
    text = json.dumps([FORMAT, DECODER_VERSION, scan.classes, dict(scan.shares), rows])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _open(folder: Path) -> FolderImages:
    parts = {}
    for part in PARTS:
        images = np.load(folder / f"{part}.npy", mmap_mode="c")
        parts[part] = images, np.load(folder / f"{part}-labels.npy")
    notes = json.loads((folder / "notes.json").read_text(encoding="utf-8"))
    return FolderImages(parts, tuple(notes))


def _build(scan: Scan, size: int, seed: int, aside: Path, progress: bool) -> None:
    """Decode every image of `scan` into the folder `aside`, one at a time."""
    groups = _groups(scan, seed)
    dealer = _Dealer(scan)
    bad: list[str] = []
    with ExitStack() as stack:
        writers = {
            part: stack.enter_context(RowWriter(aside / f"{part}.npy", (size, size, 3)))
            for part in PARTS
        }
        bar = tqdm(total=len(scan.files), desc="Decoding", unit="img", disable=not progress)
        stack.enter_context(bar)
        for group in groups:
            bar.update(len(group.files))
            try:
                image = decode(scan.root / group.files[0].path, size)
            except UndecodableImage as reason:
                bad += [f"{file.path} ({reason})" for file in group.files]
                continue
            writers[dealer.deal(group)].append(np.stack([image] * len(group.files)))
    _require_readable(scan, dealer, bad)
    for part in PARTS:
        np.save(aside / f"{part}-labels.npy", np.array(dealer.labels[part], dtype=np.int64))
    notes = _unreadable_notes(scan, bad) + _copy_notes(groups) + _absent_notes(scan, dealer)
    (aside / "notes.json").write_text(json.dumps(notes), encoding="utf-8")


class _Dealer:
    """Deals the groups of each class out to the parts, by the shares of the tree they lie in.

    Only readable images are dealt, so a class's broken files don't leave one part without it.
    """

    def __init__(self, scan: Scan) -> None:
        self.labels: dict[str, list[int]] = {part: [] for part in PARTS}
        self.groups: Counter[tuple[str, str]] = Counter()  # (tree, class) → groups dealt
        self._label = {name: label for label, name in enumerate(scan.classes)}
        self._shares = scan.shares
        self._dealt: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def deal(self, group: Copies) -> str:
        """Return the part the group goes to: an empty one, or the one furthest below its share."""
        shares, dealt = self._shares[group.stratum[0]], self._dealt[group.stratum]
        total = dealt.total() + len(group.files)
        part = max(shares, key=lambda part: (dealt[part] == 0, shares[part] * total - dealt[part]))
        dealt[part] += len(group.files)
        self.groups[group.stratum] += 1
        self.labels[part] += [self._label[file.class_name] for file in group.files]
        return part


def _groups(scan: Scan, seed: int) -> list[Copies]:
    """Files with the same bytes together, shuffled by the seed, the classes taking turns."""
    same_size = Counter(file.bytes for file in scan.files)
    found: dict[tuple[str, str], list[ImageFile]] = defaultdict(list)
    for file in sorted(scan.files, key=lambda file: _shuffled(file, seed)):
        # Files of different sizes differ: most of them needn't be read twice.
        content = file.path
        if file.bytes and same_size[file.bytes] > 1:
            content = _digest(scan.root / file.path) or content
        found[file.tree, content].append(file)
    groups = [Copies(content, tuple(files)) for (_, content), files in found.items()]
    strata = {stratum: i for i, stratum in enumerate(sorted({g.stratum for g in groups}))}
    order = stratified_order([strata[group.stratum] for group in groups])
    return [groups[i] for i in order]


def _shuffled(file: ImageFile, seed: int) -> bytes:
    """A sort key that is random, but the same on every machine and whatever else is there."""
    return hashlib.sha256(f"{seed}/{file.path}".encode("utf-8", "surrogatepass")).digest()


def _digest(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None  # decode says why it can't be read


def _require_readable(scan: Scan, dealer: _Dealer, bad: Sequence[str]) -> None:
    try:
        require_enough(scan, dealer.groups)
    except CourseError as error:
        if not bad:
            raise
        raise CourseError(f"{str(error).rstrip('.')}; not readable: {named(bad)}.") from None


def _unreadable_notes(scan: Scan, bad: Sequence[str]) -> list[str]:
    if not bad:
        return []
    return [
        f"{len(bad)} of {len(scan.files)} images could not be read and were left out: {named(bad)}."
    ]


def _copy_notes(groups: Sequence[Copies]) -> list[str]:
    """What is said of identical files: kept together, and reported where they contradict."""
    notes = []
    copies = sum(len(group.files) - 1 for group in groups)
    if copies:
        notes.append(f"{copies} images are exact copies of others and stay in the same part.")
    places = [{file.class_name: file.path for file in group.files} for group in groups]
    torn = [" = ".join(place.values()) for place in places if len(place) > 1]
    if torn:
        lie = "images lie" if len(torn) > 1 else "image lies"
        notes.append(f"{len(torn)} {lie} in more than one class: {named(torn)}.")
    trees = Counter(group.content for group in groups)
    first = {group.content: group.files[0].path for group in groups}
    leaks = sorted(first[content] for content, count in trees.items() if count > 1)
    if leaks:
        notes.append(
            f"{len(leaks)} images lie in more than one of train, val and test, so accuracy there"
            f" is flattered: {named(leaks)}."
        )
    return notes


def _absent_notes(scan: Scan, dealer: _Dealer) -> list[str]:
    notes = []
    for part in PARTS:
        present = set(dealer.labels[part])
        absent = [name for label, name in enumerate(scan.classes) if label not in present]
        if absent:
            notes.append(f"{part} has no image of {named(absent)}.")
    return notes
