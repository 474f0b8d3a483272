"""OBD against the whole matrix of second derivatives, and a case worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from networks import grouped, randomise
from torch import Tensor, nn
from torch.func import functional_call

from course_lib.pruning import Group, PruningError, find_groups, obd, obd_exact
from course_lib.pruning.criteria.curvature import in_chunks, random_curvature
from course_lib.resnet import ResNet, ResNetConfig, resnet_config


class Small(nn.Module):
    """A residual block in a few weights: its ends are coupled, its reader comes after a pooling."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), activation())
        self.conv1 = nn.Conv2d(2, 3, 1)
        self.conv2 = nn.Conv2d(3, 2, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(2)
        self.activation = activation()
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(2 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.bn(self.conv2(self.activation(self.conv1(x))))
        return self.fc(self.pool(self.activation(x)).flatten(1))


def case(activation: type[nn.Module]) -> tuple[nn.Module, dict[str, Group], Tensor, Tensor]:
    network = randomise(Small(activation).double(), seed=2)
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(5, 1, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (5,), generator=generator)
    return network, find_groups(network, images), images, labels


def slow_obd(
    network: nn.Module, groups: dict[str, Group], images: Tensor, labels: Tensor
) -> dict[str, list[float]]:
    """½ h w² summed, with h from the whole matrix of second derivatives of each producer."""
    network.eval()
    scores = {}
    for group in groups.values():
        sums = torch.zeros(group.size, dtype=torch.float64)
        for maker in group.makers:
            name = f"{maker}.weight"
            weight = network.get_submodule(maker).weight.detach()

            def loss(flat: Tensor, name: str = name, shape: torch.Size = weight.shape) -> Tensor:
                logits = functional_call(network, {name: flat.view(shape)}, (images,))
                return F.cross_entropy(logits, labels)

            matrix = torch.autograd.functional.hessian(loss, weight.flatten())
            saliency = matrix.diagonal().view(weight.shape) * weight.square() / 2
            sums += saliency.reshape(group.size, -1).sum(1)
        scores[group.name] = sums.tolist()
    return scores


def test_exact_obd_of_grouped_convolutions_against_the_whole_matrix() -> None:
    network, images = randomise(grouped().double(), seed=2), torch.randn(4, 3, 6, 6).double()
    groups, labels = find_groups(network, images), torch.tensor([0, 2, 1, 0])
    scores = obd_exact(network, groups, [(images, labels)])
    for name, expected in slow_obd(network, groups, images, labels).items():
        assert scores[name].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_exact_obd_against_the_whole_matrix(activation: type[nn.Module]) -> None:
    network, groups, images, labels = case(activation)
    expected = slow_obd(network, groups, images, labels)
    assert len(groups["stem.0"].producers) == 2, "coupled"
    for sizes in ([5], [2, 3]):
        batches = list(zip(images.split(sizes), labels.split(sizes), strict=True))
        scores = obd_exact(network, groups, batches)
        for name in groups:
            assert scores[name].tolist() == pytest.approx(expected[name], rel=1e-9, abs=1e-15)
    assert max(max(values) for values in expected.values()) > 1e-3


def test_the_estimate_goes_to_the_exact_saliency() -> None:
    """With ReLU and max pooling the logits are linear in any one weight, so nothing is left out."""
    network, groups, images, labels = case(nn.ReLU)
    exact = obd_exact(network, groups, [(images, labels)])
    generator = torch.Generator().manual_seed(0)
    estimates = obd(network, groups, [(images, labels)], generator=generator, probes=1000)
    for name in groups:
        torch.testing.assert_close(estimates[name], exact[name], rtol=0.1, atol=1e-6)
        assert (exact[name] >= 0).all()


def test_a_probe_has_the_curvature_of_the_cross_entropy() -> None:
    """Over all signs of three classes, the mean of vvᵀ is the matrix of second derivatives."""
    logits = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    expected = torch.autograd.functional.hessian(
        lambda z: F.cross_entropy(z[None], torch.tensor([1])), logits
    )
    found = torch.zeros(3, 3, dtype=torch.float64)
    seen = set()
    generator = torch.Generator().manual_seed(0)
    while len(seen) < 8:
        v = random_curvature(logits[None], generator)[0]
        key = tuple(v.tolist())
        if key not in seen:
            found += v[:, None] * v / 8
        seen.add(key)
    torch.testing.assert_close(found, expected)


def test_one_weight_worked_by_hand() -> None:
    """Logits (wx, 0): the loss's second derivative by w is p (1 − p) x², whatever the label."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False))
    network[0].weight.data = torch.tensor([[0.5]])
    network[1].weight.data = torch.tensor([[1.0], [0.0]])
    images, labels = torch.tensor([[2.0], [-4.0]]), torch.tensor([0, 1])
    groups = find_groups(network, images)
    p, q = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))
    h = (p * (1 - p) * 2**2 + q * (1 - q) * 4**2) / 2
    saliency = h * 0.5**2 / 2
    assert obd_exact(network, groups, [(images, labels)])["0"].item() == pytest.approx(saliency)
    # With two classes v is ±√(p(1 − p))·(1, −1) times a factor that depends on the signs.
    generator = torch.Generator().manual_seed(0)
    estimate = obd(network, groups, [(images, labels)], generator=generator, probes=8000)
    assert estimate["0"].item() == pytest.approx(saliency, rel=0.05)


def test_the_batch_size_does_not_change_the_estimate() -> None:
    """The same images in the same order draw the same signs."""
    network, groups, _, _ = case(nn.Tanh)
    images = torch.randn(70, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.zeros(70).long()

    def score(size: int, seed: int = 1) -> dict[str, Tensor]:
        batches = list(zip(images.split(size), labels.split(size), strict=True))
        return obd(network, groups, batches, generator=torch.Generator().manual_seed(seed))

    once = score(70)
    for size in (1, 31, 32, 33, 64):
        torch.testing.assert_close(score(size), once, rtol=1e-12, atol=0)
    assert not torch.equal(score(70, seed=2)["conv1"], once["conv1"])


def test_images_are_taken_in_chunks() -> None:
    batches = [
        (torch.arange(n, n + k), torch.zeros(k)) for n, k in ((0, 5), (5, 1), (6, 3), (9, 4))
    ]
    chunks = list(in_chunks(iter(batches), 4))
    assert [chunk.tolist() for chunk in chunks] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
        [12],
    ]
    assert list(in_chunks(iter([]), 4)) == []


def test_exact_obd_refuses_a_large_network() -> None:
    network = ResNet(resnet_config(18, 3, base_width=8))
    groups = find_groups(network, torch.zeros(1, 3, 32, 32))
    with pytest.raises(PruningError, match=r"obd_exact would need \d+,\d+ backward passes"):
        obd_exact(network, groups, [(torch.zeros(1, 3, 32, 32), torch.zeros(1).long())])


def test_obd_of_a_grey_bottleneck() -> None:
    blocks = [{"widths": [2, 2, 3], "projection": "norm"}]
    config = {"stem": 2, "stages": [blocks], "classes": 3, "channels": 1, "small_images": True}
    network = randomise(ResNet(ResNetConfig.from_dict(config)).double(), seed=1)
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.tensor([0, 1, 2, 0])
    groups = find_groups(network, images)
    exact = obd_exact(network, groups, [(images, labels)])
    slow = slow_obd(network, groups, images, labels)
    for name in groups:
        assert exact[name].tolist() == pytest.approx(slow[name], rel=1e-9, abs=1e-15)
