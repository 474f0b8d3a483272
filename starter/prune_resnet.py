"""Train a torchvision ResNet on a folder of images, prune it in rounds, fine-tune, save.

    python prune_resnet.py photos --out pruned.pt

`photos` holds train/, val/ and, where there is one, test/, each with a folder of images per class.
The file needs torch and torchvision alone: copy it and change what you like.
"""

import argparse
import copy
import os
import sys
import timeit
from collections import namedtuple
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, models
from torchvision.datasets.folder import IMG_EXTENSIONS as ENDINGS
from torchvision.transforms import v2

# Filters that only go together: convolutions that make channel i, norms on it, layers that read it.
Group = namedtuple("Group", ["makers", "norms", "readers"])


def find_groups(network: models.ResNet) -> list[Group]:
    """The groups of a torchvision ResNet: along each stage's shortcuts, and inside blocks."""
    stream = Group(["conv1"], ["bn1"], [])  # the channels that the shortcuts carry on
    groups = [stream]
    for name, block in network.named_modules():
        if isinstance(block, models.resnet.BasicBlock | models.resnet.Bottleneck):
            last = 3 if isinstance(block, models.resnet.Bottleneck) else 2
            stream.readers.append(f"{name}.conv1")
            for i in range(1, last):
                groups += [Group([f"{name}.conv{i}"], [f"{name}.bn{i}"], [f"{name}.conv{i + 1}"])]
            if block.downsample is not None:  # a projection: from here on, channels of their own
                stream.readers.append(f"{name}.downsample.0")
                stream = Group([f"{name}.downsample.0"], [f"{name}.downsample.1"], [])
                groups.append(stream)
            stream.makers.append(f"{name}.conv{last}")
            stream.norms.append(f"{name}.bn{last}")
    stream.readers.append("fc")
    return groups


def score(network: models.ResNet, group: Group) -> Tensor:
    """The L1 norm of the weights behind each index, all makers' together: small goes first."""
    weights = [network.get_parameter(f"{maker}.weight").flatten(1) for maker in group.makers]
    return torch.cat(weights, dim=1).detach().abs().sum(dim=1)


def prune(network: models.ResNet, counts: list[int]) -> models.ResNet:
    """A new network with the `counts` strongest indices of each group; the old one is untouched."""
    narrow = copy.deepcopy(network)
    for group, count in zip(find_groups(network), counts, strict=True):
        keep = torch.argsort(score(network, group), stable=True)[-count:].sort().values
        for name in group.makers + group.norms + group.readers:
            layer, dimension = narrow.get_submodule(name), int(name in group.readers)
            for tensor in (*layer.parameters(), *layer.buffers()):
                if tensor.dim() > dimension:  # a reader's bias, a norm's count of batches stay
                    tensor.data = tensor.data.index_select(dimension, keep)
            if isinstance(layer, nn.Conv2d):
                layer.out_channels, layer.in_channels = layer.weight.shape[:2]
            elif isinstance(layer, nn.BatchNorm2d):
                layer.num_features = len(layer.weight)
    narrow.fc.in_features = narrow.fc.weight.shape[1]
    return narrow


def train(network: models.ResNet, batches: DataLoader, epochs: int, rate: float) -> None:
    """SGD; the learning rate rises to `rate` and falls to nothing."""
    # A new optimiser each time: an old one would hold the parameters of the wider network.
    optimizer = torch.optim.SGD(network.parameters(), rate, 0.9, weight_decay=5e-4, nesterov=True)
    steps = max(2, epochs * len(batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, cycle_momentum=False)
    device = network.train().fc.weight.device
    for images, labels in (batch for _ in range(epochs) for batch in batches):
        loss = nn.functional.cross_entropy(network(images.to(device)), labels.to(device))
        if not loss.isfinite():
            raise ValueError(f"The loss became {loss.item()}: begin again with a lower --rate.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(network: models.ResNet, batches: DataLoader) -> float:
    """The share of images that are given their class."""
    device = network.eval().fc.weight.device
    right = [network(images.to(device)).argmax(1).cpu() == labels for images, labels in batches]
    return torch.cat(right).double().mean().item()


@torch.no_grad()
def measure(network: models.ResNet, size: int) -> str:
    """Parameters, multiply-accumulates (MACs) of an image, images per second, 32 at a time."""
    images = torch.randn(32, 3, size, size, device=network.eval().fc.weight.device)
    with FlopCounterMode(display=False) as counter:
        network(images[:1])
    passes = timeit.repeat(lambda: network(images).cpu(), number=1, repeat=6)  # one warms up
    speed = 32 / min(passes)  # behind .cpu() a GPU is done, too
    learned = sum(parameter.numel() for parameter in network.parameters())
    return f"{learned:,} parameters, {counter.get_total_flops() // 2:,} MACs, {speed:,.0f} images/s"


def read_image(path: str) -> Image.Image:
    """A picture as it is meant to be seen: upright, as the camera has noted, and in RGB."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
        darkest, brightest = image.getextrema() if image.mode == "I" else (0, 0)
        if image.mode == "F" or darkest < 0 or brightest > 2**16 - 1:  # type: ignore[operator]
            raise ValueError("which of its numbers is white isn't known")
        if image.mode.startswith("I"):  # 16-bit grey: convert alone would clip all above 255
            image = image.convert("I").point(lambda grey: grey / 257 + 0.5).convert("L")
            image.info.pop("transparency", None)  # a 16-bit number, which no longer means anything
        if image.has_transparency_data:  # on white: what lies below it isn't meant to be seen
            page = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(page, image.convert("RGBA"))
        return image.convert("RGB")
    except Exception as error:  # of many kinds, few of which name the file
        raise ValueError(f"{path} can't be read ({error}): take it out.") from error


def meant(path: str | Path) -> bool:
    """Whether a path isn't of what systems add: .ipynb_checkpoints, ._photo.jpg, __MACOSX."""
    return not any(name.startswith((".", "__MACOSX")) for name in Path(path).parts)


class Photographs(datasets.ImageFolder):
    """ImageFolder, but for the folders that systems add."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names = [name for name in super().find_classes(directory)[0] if meant(name)]
        return names, {name: label for label, name in enumerate(names)}


def load_images(part: Path, size: int, batch_size: int) -> DataLoader:
    """The batches of train/, val/ or test/; training images are cut out differently each time."""
    training = part.name == "train"
    steps = models.ResNet18_Weights.DEFAULT.transforms(crop_size=size, resize_size=size)
    if training:
        steps = v2.Compose([v2.RandomResizedCrop(size, (0.6, 1)), v2.RandomHorizontalFlip(), steps])
    for link in filter(Path.is_symlink, part.rglob("*")):  # or it is followed, round and round
        if link.parent.resolve().is_relative_to(os.path.realpath(link)):
            raise ValueError(f"{link} leads back to where it lies: take the link out.")
    ours = [str(p) for p in part.glob("*/**/*") if p.is_file() and meant(p.relative_to(part))]
    if rest := [path for path in ours if not path.lower().endswith(ENDINGS)]:
        print(f"Passed over, having no image's ending: {', '.join(rest[:5])} ({len(rest)} in all).")

    def wanted(path: str) -> bool:
        return path.lower().endswith(ENDINGS) and meant(Path(path).relative_to(part))

    images = Photographs(part, steps, loader=read_image, is_valid_file=wanted)
    if len({os.path.realpath(path) for path, _ in images.samples}) < len(images):
        raise ValueError(f"{part} holds a file twice, by a link: take the link out.")
    # A last batch of one image would leave batch norm nothing to average.
    return DataLoader(images, min(batch_size, len(images)), training, drop_last=training)


def save(network: models.ResNet, path: Path, **about: object) -> None:
    """Write the network and what is beside it, whole: aside first, then under its name."""
    aside = path.with_name(f"{path.name}.part")
    try:
        with open(aside, "wb") as file:
            torch.save({"state_dict": network.state_dict(), **about}, file)
        aside.replace(path)
    except (OSError, RuntimeError) as error:  # torch's own is a RuntimeError
        raise ValueError(f"{path} can't be written ({error}): make room.") from error
    finally:
        aside.unlink(missing_ok=True)


def load(path: str | Path) -> tuple[models.ResNet, dict]:
    """A saved network, ready to use, and what is beside it in the file: arch, classes, size."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    network = models.get_model(saved["arch"], weights=None, num_classes=len(saved["classes"]))
    network = prune(network, saved["counts"])  # to its widths; then its weights
    network.load_state_dict(saved["state_dict"])
    return network.eval(), saved


NUMBERS = [  # option, default, least, most, meaning
    ("size", 224, 32, 1024, "pixels on a side"),
    ("batch-size", 32, 2, 4096, "images per batch, over which batch norm averages"),
    ("epochs", 10, 0, 9999, "before the first pruning"),
    ("rate", 0.01, 1e-6, 1e6, "highest learning rate; fine-tuning has half"),
    ("rounds", 15, 0, 999, "of pruning"),
    ("fraction", 0.05, 0.001, 0.99, "of the filters, per round"),
    ("finetune-epochs", 2, 0, 9999, "after each pruning"),
    ("tolerance", 0.02, 0.0, 1.0, "drop in validation accuracy that passes"),
]


def main() -> None:
    """The command line; raises ValueError or OSError, in a sentence, for what a user can fix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folder", type=Path, help="holds train/ and val/, a folder of images per class in each")
    add("--out", type=Path, default="pruned.pt", help="file to write (%(default)s)")
    add("--arch", default="resnet18", choices=["resnet18", "resnet34", "resnet50"])
    add("--random", action="store_true", help="start from random weights, not from ImageNet's")
    for name, default, _, most, meaning in NUMBERS:
        add(f"--{name}", type=type(most), default=default, help=f"{meaning} (%(default)s)")
    o = parser.parse_args()
    for name, _, least, most, _ in NUMBERS:
        if not least <= vars(o)[name.replace("-", "_")] <= most:  # nan isn't, either
            parser.error(f"--{name} goes from {least:g} to {most:g}")
    if not o.out.parent.is_dir():
        raise ValueError(f"{o.out.parent} isn't a folder: make it, or give another --out.")
    for path in (o.out, o.out.with_name(f"{o.out.name}.part")):
        if path.exists():
            raise ValueError(f"{path} is there already: move it, or give another --out.")
    torch.manual_seed(0)
    parts = ["train", "val"] + ["test"] * (o.folder / "test").is_dir()
    if not all((o.folder / part).is_dir() for part in parts):
        raise ValueError(
            f"{o.folder} must hold train/ and val/, a folder of images per class in each."
        )
    data = {part: load_images(o.folder / part, o.size, o.batch_size) for part in parts}
    found: list = [batches.dataset for batches in data.values()]
    classes = found[0].classes
    if any(images.classes != classes for images in found):
        raise ValueError(f"{' and '.join(parts)} must have the same classes.")
    print(f"{sum(1 for images in found for _ in images):,} images can be read.")  # or one is named
    try:
        network = models.get_model(o.arch, weights=None if o.random else "DEFAULT")
    except OSError as error:
        raise ValueError(
            f"ImageNet's weights can't be had ({error}): connect, or add --random."
        ) from error
    network.fc = nn.Linear(network.fc.in_features, len(classes))
    full = best = network.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    train(full, data["train"], o.epochs, o.rate)
    needed = max(0.0, accuracy(full, data["val"]) - o.tolerance)
    counts = [len(score(full, group)) for group in find_groups(full)]
    about = {"arch": o.arch, "classes": classes, "size": o.size}
    save(full, o.out, counts=counts, **about)  # so that an interrupted run leaves what it reached
    for number in range(1, o.rounds + 1):  # from the start: small layers neither stall nor drift
        tried = [max(2, int(n * (1 - o.fraction) ** number + 0.5)) for n in counts]
        network = prune(best, tried)
        train(network, data["train"], o.finetune_epochs, o.rate / 2)
        reached = accuracy(network, data["val"])
        print(f"Round {number}: validation {reached:.3f}, {needed:.3f} needed.")
        if reached < needed:
            break  # it did not recover: the network before it is kept
        best = network
        save(best, o.out, counts=tried, **about)
    for name, one in {"full": full, "pruned": best}.items():
        tested = f"test {accuracy(one, data['test']):.3f}, " if "test" in data else ""
        print(f"The {name} network: {tested}{measure(one, o.size)}.")
    print(f"Saved in {o.out}: load it again with prune_resnet.load.")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"prune_resnet: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        words = "interrupted: what was reached until then is in the file of --out, if there is one."
        print(f"prune_resnet: {words}", file=sys.stderr)
        sys.exit(130)
