"""Notebook 02, the two layers of a block: convolution and batch norm by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.lessons.compare import tensors
from course_lib.lessons.exercise import Case, Exercise, Mistake


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Slide a kernel [k, k] over an image [H, W]: [H − k + 1, W − k + 1]."""
    size = len(kernel)
    rows, columns = image.shape[0] - size + 1, image.shape[1] - size + 1
    out = torch.zeros(rows, columns)
    for row in range(rows):
        for column in range(columns):
            window = image[row : row + size, column : column + size]
            out[row, column] = (window * kernel).sum()
    return out


def output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Positions along one side that a kernel takes: the height or width of the output."""
    return (size + 2 * padding - kernel) // stride + 1


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Batch norm in training mode; x of shape [N, C, H, W], weight and bias of shape [C]."""
    return _norm(x, weight, bias, eps, (0, 2, 3))


def _norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, dims: tuple[int, ...], correction: int = 0
) -> Tensor:
    mean = x.mean(dim=dims, keepdim=True)
    variance = x.var(dim=dims, keepdim=True, correction=correction)
    shape = (1, -1, 1, 1)
    return (x - mean) / (variance + eps).sqrt() * weight.view(shape) + bias.view(shape)


def _grid(size: int) -> Tensor:
    """Distinct small whole numbers, without symmetry."""
    return ((torch.arange(size * size) * 7 + 2) % 10 - 3.0).reshape(size, size)


def _images() -> list[Case]:
    return [
        (_grid(3), torch.tensor([[1.0, 2.0], [0.0, -1.0]])),
        (_grid(5), torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [3.0, 0.0, -2.0]])),
        (_grid(5)[:3], torch.tensor([[1.0, 2.0], [0.0, -1.0]])),
    ]


def _batches() -> list[Case]:
    random = torch.Generator().manual_seed(0)
    first = torch.tensor([1.0, 3.0, 5.0, 11.0]).reshape(2, 1, 1, 2)
    second = torch.randn(3, 2, 2, 3, generator=random) * torch.tensor([1.0, 4.0]).view(1, 2, 1, 1)
    one, two = torch.tensor([2.0]), torch.tensor([0.5, 3.0])
    return [(first, one, torch.tensor([1.0]), 1e-5), (second, two, torch.tensor([-1.0, 2.0]), 0.1)]


def _without_root(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    return (x - mean) / (variance + eps) * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def _eps_outside(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    return (x - mean) / (variance.sqrt() + eps) * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


CONVOLUTION = (
    Exercise(
        id="02.1",
        title="a convolution by hand",
        solution=convolve,
        cases=_images,
        compare=tensors,
        praise="Every convolution of a ResNet is this, summed over its input channels.",
        mistakes=(
            Mistake(
                lambda image, kernel: convolve(image, kernel.flip(0, 1)),
                "You flipped the kernel. Mathematicians do that; the convolution of neural networks"
                " uses it as it is.",
            ),
            Mistake(
                lambda image, kernel: convolve(image, kernel.T),
                "Rows and columns of the kernel are swapped.",
            ),
            Mistake(
                lambda image, kernel: convolve(image, kernel) / kernel.numel(),
                "You took the mean of the products: they are summed.",
            ),
            Mistake(
                lambda image, kernel: F.conv2d(
                    image[None, None], kernel[None, None], stride=len(kernel)
                )[0, 0],
                "Your windows don't overlap: the kernel moves by one position at a time.",
            ),
            Mistake(
                lambda image, kernel: convolve(image[:, : len(image)], kernel),
                "You took the image to be square: it has image.shape[0] rows and image.shape[1]"
                " columns.",
            ),
        ),
    ),
    Exercise(
        id="02.2",
        title="how large is the output?",
        solution=output_size,
        cases=lambda: [
            (5, 3, 1, 0),
            (7, 3, 2, 0),  # the last start is a multiple of the stride
            (5, 3, 1, 1),
            (56, 3, 2, 1),
            (56, 1, 2, 0),
            (224, 7, 2, 3),
        ],
        praise="You can follow a shape through any chain of convolutions.",
        mistakes=(
            Mistake(
                lambda size, kernel, stride, padding: (size + 2 * padding - kernel) // stride,
                "One position is missing: a kernel as large as the image still fits once.",
            ),
            Mistake(
                lambda size, kernel, stride, padding: (size + 2 * padding - kernel) / stride + 1,
                "You divided with /: a position is whole, so round down with //.",
            ),
            Mistake(
                lambda size, kernel, stride, padding: (size + padding - kernel) // stride + 1,
                "The padding was added on one side only: it is on both.",
            ),
            Mistake(
                lambda size, kernel, stride, padding: (size - kernel) // stride + 1,
                "The padding is left out: it makes the image larger by itself on each side.",
            ),
            Mistake(
                lambda size, kernel, stride, padding: (
                    -(-(size + 2 * padding - kernel) // stride) + 1
                ),
                "You rounded up: a last step that would leave the image is not taken.",
            ),
            Mistake(
                lambda size, kernel, stride, padding: (size + 2 * padding) // stride,
                "The kernel's own size is missing: the window has to lie inside as a whole.",
            ),
            Mistake(
                lambda size, kernel, stride, padding: (size + 2 * padding - kernel + 1) // stride,
                "You added the 1 before you divided: it stands for the start at 0, so add it to the"
                " number of steps.",
            ),
        ),
    ),
    Exercise(
        id="02.3",
        title="batch norm by hand",
        solution=batch_norm,
        cases=_batches,
        compare=tensors,
        praise="Each channel has one mean and one variance, over all images and positions.",
        mistakes=(
            Mistake(
                lambda x, weight, bias, eps: _norm(x, weight, bias, eps, (2, 3)),
                "You took mean and variance of each image by itself: take them over the batch too.",
            ),
            Mistake(
                lambda x, weight, bias, eps: _norm(x, weight, bias, eps, (0,)),
                "You took mean and variance at each position by itself: take them over height and"
                " width too.",
            ),
            Mistake(
                lambda x, weight, bias, eps: _norm(x, weight, bias, eps, (0, 1, 2, 3)),
                "You took one mean for all channels: each channel has its own.",
            ),
            Mistake(
                lambda x, weight, bias, eps: _norm(x, weight, bias, eps, (0, 2, 3), 1),
                "Your variance divides by n − 1, which is var()'s default: batch norm divides by n"
                " here (correction=0).",
            ),
            Mistake(
                _without_root,
                "You divided by the variance: the spread is its square root.",
            ),
            Mistake(_eps_outside, "ε belongs under the root, added to the variance."),
            Mistake(
                lambda x, weight, bias, eps: _norm(
                    x, torch.ones_like(weight), torch.zeros_like(bias), eps, (0, 2, 3)
                ),
                "Standardised, but weight (γ) and bias (β) are not applied.",
            ),
        ),
    ),
)
