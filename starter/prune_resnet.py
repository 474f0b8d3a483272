"""Train a torchvision ResNet on a folder of images, prune it in rounds, fine-tune, save.

    python prune_resnet.py photos --out pruned.pt

`photos` holds train/ and val/ (and test/, where there is one, for one last check), each with a
folder of images per class. Copy this file and change it: it needs torch and torchvision alone.
"""

import argparse
import copy
import math
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageOps  # comes with torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import models
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what torchvision's weights expect
FLOOR = 2  # filters that every layer keeps


class Group(NamedTuple):
    """Filters that can only go together, index by index: additions tie their channels."""

    makers: list[str]  # convolutions whose i-th filter makes channel i
    norms: list[str]  # batch norms on those channels
    readers: list[str]  # layers with weights that read them


def find_groups(network: models.ResNet) -> list[Group]:
    """The groups of a torchvision ResNet: along each stage's shortcuts, and inside blocks."""
    stream = Group(["conv1"], ["bn1"], [])  # the channels that the shortcuts carry on
    groups = [stream]
    for name, block in network.named_modules():
        if not isinstance(block, models.resnet.BasicBlock | models.resnet.Bottleneck):
            continue
        last = 3 if isinstance(block, models.resnet.Bottleneck) else 2
        stream.readers.append(f"{name}.conv1")
        for i in range(1, last):
            groups.append(Group([f"{name}.conv{i}"], [f"{name}.bn{i}"], [f"{name}.conv{i + 1}"]))
        if block.downsample is not None:  # a projection: from here on, channels of their own
            stream.readers.append(f"{name}.downsample.0")
            stream = Group([], [], [])
            groups.append(stream)
        stream.makers.append(f"{name}.conv{last}")
        stream.norms.append(f"{name}.bn{last}")
        if block.downsample is not None:
            stream.makers.append(f"{name}.downsample.0")
            stream.norms.append(f"{name}.downsample.1")
    stream.readers.append("fc")
    return groups


def count(network: models.ResNet) -> int:
    """Learned numbers: weights and biases."""
    return sum(parameter.numel() for parameter in network.parameters())


def score(network: models.ResNet, group: Group) -> Tensor:
    """The L1 norm of the weights behind each index, all makers' together: small goes first."""
    weights = [
        network.get_parameter(f"{maker}.weight").detach().flatten(1) for maker in group.makers
    ]
    return torch.linalg.vector_norm(torch.cat(weights, dim=1), 1, dim=1)


def fill(network: models.ResNet, state: dict[str, Tensor]) -> models.ResNet:
    """Put tensors of whatever width into the layers, and set the layers' own widths to theirs."""
    for name, tensor in state.items():
        path, _, attribute = name.rpartition(".")
        layer = network.get_submodule(path)
        learned = attribute in ("weight", "bias")
        setattr(layer, attribute, nn.Parameter(tensor) if learned else tensor)
        if isinstance(layer, nn.Conv2d):
            layer.out_channels, layer.in_channels = layer.weight.shape[:2]
        elif isinstance(layer, nn.BatchNorm2d):
            layer.num_features = len(layer.weight)
    network.fc.out_features, network.fc.in_features = network.fc.weight.shape
    return network


def prune(network: models.ResNet, counts: list[int]) -> models.ResNet:
    """A new network with the `counts` strongest indices of each group; the old one is untouched."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for group, count in zip(find_groups(network), counts, strict=True):
        keep = torch.argsort(score(network, group), stable=True)[-count:].sort().values
        for name, tensor in state.items():
            path, _, attribute = name.rpartition(".")
            if path in (*group.makers, *group.norms) and tensor.dim():  # all but a count of batches
                tensor = tensor.index_select(0, keep)
            if path in group.readers and attribute == "weight":
                tensor = tensor.index_select(1, keep)
            state[name] = tensor
    return fill(copy.deepcopy(network), state)


def train(network: models.ResNet, batches: DataLoader, epochs: int, rate: float) -> None:
    """SGD; the learning rate rises to `rate` and falls to nothing."""
    # A new optimiser each time: an old one would hold the parameters of the wider network.
    optimizer = torch.optim.SGD(network.parameters(), rate, 0.9, weight_decay=5e-4, nesterov=True)
    steps = max(2, epochs * len(batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for images, labels in batches:
            logits = network(images.to(network.fc.weight.device))
            loss = nn.functional.cross_entropy(logits, labels.to(logits.device))
            if not math.isfinite(loss.item()):
                raise ValueError(f"The loss became {loss.item()}: begin again with a lower rate.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.inference_mode()
def accuracy(network: models.ResNet, batches: DataLoader) -> float:
    """The share of images that are given their class."""
    network.eval()
    device = network.fc.weight.device
    right = [(network(images.to(device)).argmax(1).cpu() == labels) for images, labels in batches]
    return torch.cat(right).double().mean().item()


def read(path: str) -> Image.Image:
    """A picture the right way up, in three channels."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def readable(path: str) -> bool:
    """Tried once for every picture, so that none stops the training later."""
    try:
        return path.lower().endswith(IMG_EXTENSIONS) and read(path) is not None
    except Exception as error:  # broken files make readers raise nearly anything
        print(f"Left out: {path} ({error or type(error).__name__}).")
        return False


def load_images(part: Path, options: argparse.Namespace) -> DataLoader:
    """The batches of train/, val/ or test/; training images are cut out differently each time."""
    training, size = part.name == "train", options.size
    moved = [v2.RandomResizedCrop(size, (0.6, 1)), v2.RandomHorizontalFlip()]
    still = [v2.Resize(size), v2.CenterCrop(size)]
    numbers = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    steps = v2.Compose([*(moved if training else still), *numbers])
    if not part.is_dir():
        raise ValueError(f"There is no folder {part}: put a folder of images per class into it.")
    images = ImageFolder(str(part), steps, loader=read, is_valid_file=readable)
    # A last batch of one image would leave batch norm nothing to average.
    whole = training and len(images) > options.batch_size
    return DataLoader(images, options.batch_size, training, drop_last=whole)


def start_network(arch: str, weights: str, classes: int) -> models.ResNet:
    """ImageNet's weights, a file's, or random ones; a new last layer where the classes differ."""
    network = models.get_model(arch, weights=None, num_classes=classes)
    if weights == "none":
        return network
    try:
        if weights == "imagenet":
            state = models.get_model_weights(arch).DEFAULT.get_state_dict(check_hash=True)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        if len(state["fc.weight"]) != classes:
            state["fc.weight"], state["fc.bias"] = network.fc.weight.data, network.fc.bias.data
        network.load_state_dict(state)
    except Exception as error:  # no connection, no file, or a file of something else
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ValueError(
            f"The weights {weights!r} can't be used ({reason}): name a file with a state dict of "
            f"torchvision's {arch}, or begin with random ones by --weights none."
        ) from error
    return network


def load(path: str | Path) -> tuple[models.ResNet, dict]:
    """A saved network, ready to use, and what is beside it in the file: arch, classes, size."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    network = models.get_model(saved["arch"], weights=None, num_classes=len(saved["classes"]))
    return fill(network, saved["state_dict"]).eval(), saved


def run(options: argparse.Namespace) -> None:
    """All of it; raises ValueError or OSError, in a sentence, for what a user can mend."""
    if not options.out.parent.is_dir() or options.out.is_dir():
        raise ValueError(f"{options.out} can't be written: name a file in a folder that exists.")
    torch.manual_seed(options.seed)
    parts = ["train", "val", *(["test"] if (options.folder / "test").is_dir() else [])]
    data = {part: load_images(options.folder / part, options) for part in parts}
    found = [batches.dataset.classes for batches in data.values()]  # type: ignore[attr-defined]
    if any(classes != found[0] for classes in found) or len(found[0]) < 2:
        raise ValueError(f"{' and '.join(parts)} must have the same classes, two or more.")
    mps = torch.backends.mps.is_available()
    device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    network = start_network(options.arch, options.weights, len(found[0])).to(device)
    train(network, data["train"], options.epochs, options.rate)
    full, best = accuracy(network, data["val"]), network
    start = [len(score(network, group)) for group in find_groups(network)]
    print(f"The full network: {count(network):,} parameters, validation {full:.3f}.")
    for number in range(1, options.rounds + 1):
        left = (1 - options.fraction) ** number  # counted from the start: small layers don't stall
        network = prune(network, [min(n, max(FLOOR, int(left * n + 0.5))) for n in start])
        train(network, data["train"], options.finetune_epochs, options.finetune_rate)
        reached = accuracy(network, data["val"])
        print(f"Round {number}: {count(network):,} parameters, validation {reached:.3f}.")
        if reached < full - options.tolerance:
            print("It did not recover: the network before it is kept.")
            break
        best = network
    if "test" in data:
        print(f"Test, measured once: {accuracy(best, data['test']):.3f}.")
    about = {"arch": options.arch, "classes": found[0], "size": options.size}
    torch.save({"state_dict": best.cpu().state_dict(), **about}, options.out)
    print(f"Saved in {options.out}: load it again with prune_resnet.load.")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds train/ and val/, a folder per class each")
    parser.add_argument("--out", type=Path, default=Path("pruned.pt"), help="file to write")
    parser.add_argument("--arch", default="resnet18", choices=["resnet18", "resnet34", "resnet50"])
    parser.add_argument("--weights", default="imagenet", help="imagenet, none, or a file")
    for name, default, what in (
        ("size", 224, "pixels on a side"),
        ("batch-size", 32, "images per batch"),
        ("epochs", 10, "passes over the images before the first pruning"),
        ("rate", 0.01, "highest learning rate of that training"),
        ("rounds", 15, "rounds of pruning"),
        ("fraction", 0.05, "share of the filters that goes in each round"),
        ("finetune-epochs", 2, "passes over the images after each pruning"),
        ("finetune-rate", 0.005, "highest learning rate of those"),
        ("tolerance", 0.02, "validation accuracy that pruning may cost"),
        ("seed", 0, "decides every random draw"),
    ):
        words = f"{what} ({default})"
        parser.add_argument(f"--{name}", type=type(default), default=default, help=words)
    options = parser.parse_args()
    if min(options.size, options.batch_size, options.epochs, options.finetune_epochs) < 1:
        parser.error("sizes and epochs must be 1 or more.")
    if not 0 < options.fraction < 1 or min(options.rate, options.finetune_rate) <= 0:
        parser.error("--fraction must lie between 0 and 1, and rates above 0.")
    try:
        run(options)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        print(f"prune_resnet: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
