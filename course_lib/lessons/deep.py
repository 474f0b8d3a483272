"""A deep convolutional network, plain or residual, for notebook 03 and its recorded run."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import vehicles

WIDTH, CLASSES = 8, len(vehicles.CLASSES)


class Deep(nn.Module):
    """A stem, `depth` 3×3 convolutions of one width, and a linear classifier.

    norm: a batch norm after each of them. skip: the input of every second one is added to the
    output of the next, as in a residual block of two convolutions; it has no weights.
    """

    def __init__(self, depth: int, norm: bool = False, skip: bool = False) -> None:
        super().__init__()
        self.skip = skip
        self.stem = nn.Conv2d(3, WIDTH, 3, stride=2, padding=1)
        layers = []
        for _ in range(depth):
            after = nn.BatchNorm2d(WIDTH) if norm else nn.Identity()
            layers.append(nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), after))
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(WIDTH, CLASSES)

    def outputs(self, x: Tensor) -> list[Tensor]:
        """What each layer hands on, the stem first: [N, 8, H/2, W/2] each."""
        x = torch.relu(self.stem(x))
        found = [x]
        for number, layer in enumerate(self.layers):
            out = layer(x)
            if self.skip and number % 2:
                out = out + found[-2]  # what came into the pair
            x = torch.relu(out)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.outputs(x)[-1].mean((2, 3)))


def he_std(weight: Tensor) -> float:
    """The spread of He et al.'s initialisation (arXiv 1502.01852): sqrt(2 / inputs of a filter)."""
    return (2 / weight[0].numel()) ** 0.5


def spread(network: nn.Module, gain: float) -> nn.Module:
    """Draw every convolution's weights anew, with a spread of gain / sqrt(inputs); no bias."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=gain / module.weight[0].numel() ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def scenes(count: int, size: int = 24) -> tuple[Tensor, Tensor]:
    """The first `count` street scenes, standardised by colour, [count, 3, size, size]; labels."""
    drawn = [vehicles.draw(0, "train", number, size=size) for number in range(count)]
    pixels = torch.stack([torch.from_numpy(image) for image, _ in drawn])
    images = pixels.permute(0, 3, 1, 2).float()
    mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    labels = torch.tensor([int(label) for _, label in drawn])
    return ((images - mean) / std).contiguous(), labels


def losses(
    network: nn.Module, images: Tensor, labels: Tensor, steps: int, rate: float = 0.05
) -> list[float]:
    """The training loss at each of `steps` steps of SGD with momentum on all the images."""
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    found = []
    for _ in range(steps):
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found
