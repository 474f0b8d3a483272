"""What scoring costs, and how far OBD's estimates lie from the exact saliency.

    python benchmarks/criteria_cost.py

Trains a ResNet-18 of a quarter of the width on generated vehicles for 300 batches, then scores its
filters on 512 training images: each criterion in turn with a forward pass, five times over. OBD's
estimates are compared with the exact saliency: one backward pass per image and class, which for
ReLU is the second derivative itself. Under three minutes on one core; writes
data/recorded_runs/criteria_cost.json.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import torch
import torch.nn.functional as F
from recording import record
from torch import Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from course_lib import data
from course_lib.pruning import CRITERIA, Group, find_groups, obd
from course_lib.pruning.criteria.curvature import over_groups, weights_of
from course_lib.report import machine
from course_lib.resnet import ResNet, resnet_config
from course_lib.training import Augmentation, Loader, accuracy, one_cycle, place, predict

COMMAND = "python benchmarks/criteria_cost.py"
CPU = torch.device("cpu")
BATCHES, IMAGES, PASSES = 300, 512, 5
ELSEWHERE = ("critical",)  # has a benchmark of its own

Scores = dict[str, Tensor]
Batches = list[tuple[Tensor, Tensor]]


def trained(loader: Loader) -> nn.Module:
    """The small network, trained for as long as it takes to learn most of the task."""
    torch.manual_seed(0)
    network = place(ResNet(resnet_config(18, len(data.vehicles.CLASSES), base_width=16)), CPU)
    batches = tqdm(loader.training_batches("base", 0, BATCHES), "train", BATCHES, unit="batch")
    for _ in one_cycle(network, batches, BATCHES, 0.1):
        pass
    return network.eval()


def timed(action: Callable[[], Any]) -> float:
    """The seconds that a call takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def costs(network: nn.Module, groups: dict[str, Group], batches: Batches) -> dict[str, Any]:
    """Seconds of a forward pass and of each criterion; forward passes each takes, by the median
    over the passes of the ratio within one.
    """
    names = [name for name in CRITERIA if name not in ELSEWHERE]
    readings: dict[str, list[float]] = {name: [] for name in ["forward", *names]}
    for number in tqdm(range(PASSES + 1), "time", unit="pass"):
        pass_of: dict[str, float] = {"forward": timed(lambda: predict(network, batches))}
        for name in names:
            draws = torch.Generator().manual_seed(number)
            score = CRITERIA[name]
            pass_of[name] = timed(
                lambda score=score, draws=draws: score(network, groups, batches, generator=draws)
            )
        if number:  # the first one warms up
            for name, seconds in pass_of.items():
                readings[name].append(seconds)
    forward = readings.pop("forward")
    return {
        "forward_seconds": statistics.median(forward),
        "criteria": [
            {
                "name": name,
                "seconds": statistics.median(seconds),
                "forward_passes": statistics.median(
                    mine / whole for mine, whole in zip(seconds, forward, strict=True)
                ),
            }
            for name, seconds in readings.items()
        ],
    }


def every_class(network: nn.Module, groups: dict[str, Group], batches: Batches) -> Scores:
    """OBD's saliency by every class's part of the curvature of every image: nothing is drawn."""
    weights = weights_of(network, groups)
    sums = {name: torch.zeros(len(weight)).double() for name, weight in weights.items()}
    for images, _ in tqdm(batches, "exact", unit="batch"):
        for image in images.split(1):
            logits = functional_call(network, weights, (image,))[0]
            p = logits.detach().softmax(0)
            for number in range(len(p)):
                part = p[number].sqrt() * (F.one_hot(torch.tensor(number), len(p)) - p)
                gradients = torch.autograd.grad(
                    logits @ part, list(weights.values()), retain_graph=True
                )
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                    sums[name] += (weight * gradient).detach().flatten(1).square().sum(1)
    images_seen = sum(len(images) for images, _ in batches)
    return over_groups(groups, {name: total / 2 / images_seen for name, total in sums.items()})


def hutchinson(network: nn.Module, groups: dict[str, Group], batches: Batches) -> Iterator[Scores]:
    """The usual estimate, u ⊙ Hu with random signs on all weights: the mean after each probe.

    Hu is the second derivative of the loss times u, by differentiating twice.
    """
    weights = weights_of(network, groups)
    draws = torch.Generator().manual_seed(0)
    sums = {name: torch.zeros(len(weight)).double() for name, weight in weights.items()}
    images_seen = sum(len(images) for images, _ in batches)
    for probe in count(1):
        u = {
            name: (torch.randint(0, 2, weight.shape, generator=draws) * 2 - 1) * weight.detach()
            for name, weight in weights.items()
        }
        for images, labels in batches:
            logits = functional_call(network, weights, (images,))
            loss = F.cross_entropy(logits, labels, reduction="sum")
            first = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            second = torch.autograd.grad(first, list(weights.values()), list(u.values()))
            for name, gradient in zip(weights, second, strict=True):
                sums[name] += (u[name] * gradient).flatten(1).sum(1)
        yield over_groups(
            groups, {name: total / 2 / images_seen / probe for name, total in sums.items()}
        )


def noise(estimate: Scores, exact: Scores) -> dict[str, float]:
    """Spearman's rank correlation within a layer, and the error as a share of the layer's mean
    saliency (root of the mean square); each averaged over the layers.
    """
    ranks, errors = [], []
    for name, truth in exact.items():
        orders = [scores.argsort().argsort().double() for scores in (estimate[name], truth)]
        ranks.append(torch.corrcoef(torch.stack(orders))[0, 1].item())
        errors.append(((estimate[name] - truth).square().mean().sqrt() / truth.mean()).item())
    return {
        "rank_correlation": sum(ranks) / len(ranks),
        "relative_error": sum(errors) / len(errors),
    }


def obd_noise(network: nn.Module, groups: dict[str, Group], batches: Batches) -> list[dict]:
    """How far the estimates lie from the exact saliency, and what they cost."""
    begin = time.perf_counter()
    exact = every_class(network, groups, batches)
    rows = [{"estimate": "every class", "probes": None, "seconds": time.perf_counter() - begin}]
    rows[0] |= noise(exact, exact)
    for probes in (1, 4, 16):
        draws = torch.Generator().manual_seed(1)
        begin = time.perf_counter()
        scores = obd(network, groups, batches, generator=draws, probes=probes)
        spent = time.perf_counter() - begin
        rows.append({"estimate": "obd", "probes": probes, "seconds": spent, **noise(scores, exact)})
    begin = time.perf_counter()
    for probe, scores in enumerate(islice(hutchinson(network, groups, batches), 16), 1):
        spent = time.perf_counter() - begin
        if probe in (1, 4, 16):
            row = {"estimate": "Hutchinson", "probes": probe, "seconds": spent}
            rows.append(row | noise(scores, exact))
    return rows


def main() -> None:
    """Train, measure, write down."""
    images = data.load("generated", image_size=None, train=4_000, val=1_000, test=100)
    loader = Loader(images, CPU, augmentation=Augmentation())
    network = trained(loader)
    size = images.train.images.shape[1]
    groups = find_groups(network, torch.zeros(1, 3, size, size))
    batches = list(loader.sample(IMAGES))
    content = {
        "network": f"ResNet-18 at a quarter of the width, {BATCHES} batches of training",
        "val_accuracy": accuracy(network, loader.batches("val")),
        "indices": sum(group.size for group in groups.values()),
        "images": IMAGES,
        "image_size": size,
        **costs(network, groups, batches),
        "obd": obd_noise(network, groups, batches),
        "machine": machine(CPU),
    }
    record("criteria_cost", COMMAND, content)


if __name__ == "__main__":
    main()
