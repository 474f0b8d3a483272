"""Images per second of the training loop against two others, and how long it waits for data.

    python benchmarks/training_loop.py [--cifar10 DIR]

Against a bare loop: generated vehicles in memory as standardised floats, channels-last, nothing but
the same network, augmentation, optimiser and schedule; beside it the phase of a run with its curve
and checkpoints. Against `ImageFolder` and `DataLoader`, in this process and with two workers: one
start and one epoch over a folder of photographs, ours from the second start on, when they lie
decoded in the cache. The photographs are generated vehicles as JPEG files of two sizes; `--cifar10`
(with train/ and a folder per class) adds real images. All ways take turns, there and back again.
About twelve minutes on two idle cores; what was interrupted goes on when the command is given
again, and to measure anew remove runs/bench-training. Writes data/recorded_runs/training_loop.json.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from recording import RECORDED, ROOT, in_parts, record, source
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from tqdm import tqdm

from course_lib import vehicles
from course_lib.config import Config
from course_lib.data import Data, load
from course_lib.iterate import iterate, make_loader
from course_lib.report import machine
from course_lib.resnet import ResNet
from course_lib.training import Augmentation, make_optimizer, make_schedule, place, train

COMMAND = "python benchmarks/training_loop.py"
CPU = torch.device("cpu")
WIDTHS = {16: 7, 64: 5}  # of the stem: a quarter and all of ResNet-18's; passes
BATCHES = 51  # the first isn't counted; at the 50th a run writes a checkpoint
PHOTOS = {"320×240": (320, 1_024), "1280×960": (1_280, 512)}  # pixels wide, images
CIFAR = 3_200
BATCH = 64  # images
SCENE = 320  # pixels of a scene that photographs are made of
Batch = tuple[Tensor, Tensor]
Fit = Callable[[nn.Module, Iterable[Batch], int], None]
Reading = dict[str, float]


class Clock:
    """When each batch was asked for and when it was there."""

    def __init__(self) -> None:
        self.started = perf_counter()
        self.asked: list[float] = []
        self.got: list[float] = []

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        self.asked.append(perf_counter())
        for batch in batches:
            self.got.append(perf_counter())
            yield batch
            self.asked.append(perf_counter())

    def reading(self, whole: bool) -> Reading:
        """Images per second, of all with the start or of those after the first batch; the seconds
        to the first batch; the share of the time in which a batch was waited for.
        """
        end, steps = self.asked[-1], len(self.got)
        since = self.started if whole else self.asked[1]
        waited = [got - asked for got, asked in zip(self.got[1:], self.asked[1:-1], strict=True)]
        return {
            "images_per_second": BATCH * (steps if whole else steps - 1) / (end - since),
            "start_seconds": self.got[0] - self.started,
            "waiting": sum(waited) / (end - self.asked[1]),
        }


def parts_of(network: nn.Module, batches: int) -> tuple[torch.optim.Optimizer, Any]:
    """The optimiser and the schedule of a run."""
    config = Config()
    optimizer = make_optimizer(network, config.rate, config.momentum, config.weight_decay)
    return optimizer, make_schedule(optimizer, config.rate, batches, config.warm_up)


def our_fit(network: nn.Module, batches: Iterable[Batch], count: int) -> None:
    """The library's loop."""
    optimizer, schedule = parts_of(network, count)
    for _ in train(network, optimizer, schedule, batches):
        pass


def bare_fit(network: nn.Module, batches: Iterable[Batch], count: int) -> None:
    """What everybody writes."""
    optimizer, schedule = parts_of(network, count)
    network.train()
    for images, labels in batches:
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()


def timed(
    fit: Fit, batches: Callable[[], Iterable[Batch]], data: Data, config: Config, whole: bool
) -> Reading:
    """A reading of one way to train for the config's batches; `whole`: with its start."""
    torch.manual_seed(0)
    shape = config.network(len(data.classes), 3, data.train.images.shape[1])
    network, clock = place(ResNet(shape), CPU), Clock()
    fit(network, clock(islice(batches(), config.batches)), config.batches)
    return clock.reading(whole)


def in_turn(ways: Mapping[str, Callable[[], Reading]], passes: int, what: str) -> dict[str, Any]:
    """Every way in each pass, there and back again: medians, and the ratio of "ours" to each."""
    readings: dict[str, list[Reading]] = {name: [] for name in ways}
    for number in tqdm(range(passes), what, unit="pass"):
        for name in list(ways) if number % 2 == 0 else reversed(ways):
            readings[name].append(ways[name]())
    ours = [reading["images_per_second"] for reading in readings["ours"]]
    found = {}
    for name, mine in readings.items():
        rates = [reading["images_per_second"] for reading in mine]
        ratios = [a / b for a, b in zip(ours, rates, strict=True)]
        middles = {key: median(reading[key] for reading in mine) for key in mine[0]}
        found[name] = {**middles, "ours_faster": median(ratios)}
        found[name]["ours_faster_range"] = [min(ratios), max(ratios)]
    return found


# ---- in memory


def bare_batches(data: Data) -> Iterator[Batch]:
    """Whole epochs over standardised floats, augmented as ours are."""
    images = torch.from_numpy(data.train.images[:]).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
    labels, augment = torch.from_numpy(data.train.labels), Augmentation()
    draws = torch.Generator().manual_seed(0)
    while True:
        for chosen in torch.randperm(len(labels), generator=draws).split(BATCH):
            if len(chosen) == BATCH:
                yield augment(images[chosen], draws), labels[chosen]


def phase(data: Data, config: Config) -> Reading:
    """The training phase of a run, its curve and checkpoints in between; without its last check."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as out:
        iterate(
            config, data, Path(out), CPU, progress=False,
            after_batch=lambda state: times.append(perf_counter()),
        )  # fmt: skip
    return {"images_per_second": BATCH * (len(times) - 1) / (times[-1] - times[0])}


def memory(data: Data, width: int, passes: int, count: int) -> dict[str, Any]:
    """Ours, a run's phase and the bare loop on images in memory."""
    config = Config(base_width=width, batches=count, rounds=0)
    ours = partial(make_loader(config, data, CPU).training_batches, "base", 0, count)
    ways = {
        "ours": partial(timed, our_fit, ours, data, config, False),
        "ours, with curve and checkpoints": partial(phase, data, config),
        "bare loop": partial(timed, bare_fit, partial(bare_batches, data), data, config, False),
    }
    return in_turn(ways, passes, f"in memory, width {width}")


def drawing(count: int, size: int) -> dict[str, float]:
    """Seconds to draw an image, which is done once; not from the cache."""
    start = perf_counter()
    for index in range(count):
        vehicles.draw(0, "drawing", index, size=size)
    return {"images": count, "images_per_second": count / (perf_counter() - start)}


# ---- a folder


def make_photos(folder: Path, width: int, count: int) -> Path:
    """Generated vehicles as JPEG files, four to three, a folder per class; val and test as well."""
    if not folder.exists():
        aside = folder.with_name(folder.name + ".part")
        shutil.rmtree(aside, ignore_errors=True)
        for part, images in {"train": count, "val": 128, "test": 128}.items():
            for index in tqdm(range(images), f"{folder.name}, {part}", unit="img"):
                pixels, label = vehicles.draw(0, f"photo {part}", index, size=SCENE)
                crop = Image.fromarray(pixels[SCENE // 8 : -SCENE // 8])
                place = aside / part / vehicles.CLASSES[label]
                place.mkdir(parents=True, exist_ok=True)
                photo = crop.resize((width, width * 3 // 4), Image.Resampling.BICUBIC)
                photo.save(place / f"{index:05}.jpg", quality=90)
        aside.rename(folder)
    return folder


def copy_images(folder: Path, source_folder: Path, count: int) -> Path:
    """Some images of every class of a data set, as a tree of the same form."""
    if not folder.exists():
        aside = folder.with_name(folder.name + ".part")
        shutil.rmtree(aside, ignore_errors=True)
        classes = sorted(path for path in (source_folder / "train").iterdir() if path.is_dir())
        for kind in classes:
            files = iter(sorted(kind.iterdir()))
            for part, images in {"train": count // len(classes), "val": 13, "test": 13}.items():
                (aside / part / kind.name).mkdir(parents=True)
                for file in islice(files, images):
                    shutil.copy(file, aside / part / kind.name)
        aside.rename(folder)
    return folder


def folder_batches(folder: Path, cache: Path, config: Config) -> Iterator[Batch]:
    """Ours, from nothing but the folder's name."""
    data = load(str(folder), image_size=None, cache=cache, progress=False)
    yield from make_loader(config, data, CPU).training_batches("base", 0, config.batches)


def image_folder_batches(folder: Path, data: Data, workers: int) -> Iterator[Batch]:
    """torchvision's, with the same kinds of augmentation: one epoch."""
    size, augmentation = data.train.images.shape[1], Augmentation()
    prepare = transforms.Compose(
        [
            transforms.Resize(size),
            transforms.CenterCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(
                0,
                translate=(augmentation.shift, augmentation.shift),
                scale=(1 - augmentation.zoom, 1 + augmentation.zoom),
            ),
            transforms.ToTensor(),
            transforms.Normalize(data.mean, data.std),
        ]
    )
    images = ImageFolder(str(folder / "train"), prepare)
    loader = DataLoader(images, BATCH, shuffle=True, drop_last=True, num_workers=workers)
    for pictures, labels in loader:
        yield pictures.to(memory_format=torch.channels_last), labels


def from_folder(make: Callable[[], Path], out: Path, width: int, passes: int) -> dict[str, Any]:
    """Ours with a warm cache and torchvision's with no and with two workers."""
    folder = make()
    cache = out / f"cache-{folder.name}"
    shutil.rmtree(cache, ignore_errors=True)
    start = perf_counter()
    data = load(str(folder), image_size=None, cache=cache, progress=False)
    first, images = perf_counter() - start, len(data.train.labels)
    config = Config(base_width=width, batches=images // BATCH)
    ours = partial(folder_batches, folder, cache, config)
    ways = {"ours": partial(timed, our_fit, ours, data, config, True)}
    for workers in (0, 2):
        theirs = partial(image_folder_batches, folder, data, workers)
        way = partial(timed, bare_fit, theirs, data, config, True)
        ways[f"ImageFolder, {workers} workers"] = way
    about = {"images": images, "image_size": data.train.images.shape[1]}
    found = in_turn(ways, passes, f"{folder.name}, width {width}")
    return {**about, "first_start_seconds": first, "ways": found}


# ---- all of it


def parts(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    few = dict.fromkeys(("train", "val", "test"), options.images)
    data = load("generated", image_size=None, cache=options.cache, **few)
    passes = {width: options.passes or WIDTHS[width] for width in options.widths}
    found: dict[str, Callable[[], Any]] = {}
    for width, many in passes.items():
        found[f"memory {width}"] = partial(memory, data, width, many, options.batches)
    found["drawing"] = partial(drawing, 5 * options.batches, data.train.images.shape[1])
    made = {
        name: partial(make_photos, options.out / name, wide, options.photos or count)
        for name, (wide, count) in PHOTOS.items()
    }
    if options.cifar10 is not None:
        made["CIFAR-10"] = partial(
            copy_images, options.out / "CIFAR-10", options.cifar10, options.photos or CIFAR
        )
    for name, make in made.items():
        # Without its stem's pooling the full width would take a quarter of an hour on CIFAR-10.
        narrow = {width: many for width, many in passes.items() if width != max(WIDTHS)}
        for width, many in (narrow if name == "CIFAR-10" else passes).items():
            found[f"folder {width} {name}"] = partial(from_folder, make, options.out, width, many)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what isn't measured yet, then record it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", type=Path, help="a folder with train/<class>/*")
    parser.add_argument("--widths", type=int, nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--passes", type=int, help="rounds of turns; 7 and 5 if not given")
    parser.add_argument("--batches", type=int, default=BATCHES)
    parser.add_argument("--images", type=int, help="generated images of each part")
    parser.add_argument("--photos", type=int, help="images in each folder")
    parser.add_argument("--cache", type=Path, help="where generated images are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-training")
    parser.add_argument("--record", type=Path, default=RECORDED, help="folder of the JSON file")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    limits = {key: value for key, value in vars(options).items() if isinstance(value, int)}
    setting = {**limits, "commit": source("")["commit"]}
    done = in_parts(options.out / "parts.json", setting, parts(options))
    found: dict[str, Any] = {"memory": [], "folders": []}
    for name, part in done.items():
        kind, _, rest = name.partition(" ")
        if kind == "memory":
            found["memory"].append({"width": int(rest), "ways": part["result"]})
        elif kind == "folder":
            width, _, photos = rest.partition(" ")
            found["folders"].append({"width": int(width), "photos": photos, **part["result"]})
    content = {
        "batch_size": BATCH,
        "batches": options.batches,
        **found,
        "drawing": done["drawing"]["result"],
        "machine": machine(CPU),
    }
    command = COMMAND + (" --cifar10 DIR" if options.cifar10 is not None else "")
    record("training_loop", command, content, options.record)


if __name__ == "__main__":
    main()
