"""Groups against tables written out by hand, and what can't be pruned, refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from networks import Odd
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

from course_lib.pruning import Group, PruningError, find_groups
from course_lib.pruning.tracing import called_in_training
from course_lib.resnet import ResNet, resnet_config

# size producers > readers; 1.0.c2 stands for layer1.0.conv2, 1.0.s for the projection there. Every
# convolution has a batch norm: bn1 belongs to conv1, shortcut.1 to shortcut.0.
RESNET18_INNER = """
64 1.0.c1 > 1.0.c2;   64 1.1.c1 > 1.1.c2
128 2.0.c1 > 2.0.c2;  128 2.1.c1 > 2.1.c2
256 3.0.c1 > 3.0.c2;  256 3.1.c1 > 3.1.c2
512 4.0.c1 > 4.0.c2;  512 4.1.c1 > 4.1.c2
"""
RESNET18_ALL = """
64 conv1 > 1.0.c1 1.0.s
64 1.0.c2 1.0.s > 1.1.c1 1.1.s;   64 1.1.c2 1.1.s > 2.0.c1 2.0.s
128 2.0.c2 2.0.s > 2.1.c1 2.1.s;  128 2.1.c2 2.1.s > 3.0.c1 3.0.s
256 3.0.c2 3.0.s > 3.1.c1 3.1.s;  256 3.1.c2 3.1.s > 4.0.c1 4.0.s
512 4.0.c2 4.0.s > 4.1.c1 4.1.s;  512 4.1.c2 4.1.s > fc
"""
RESNET18_NEEDED = """
64 conv1 1.0.c2 1.1.c2 > 1.0.c1 1.1.c1 2.0.c1 2.0.s
128 2.0.c2 2.0.s 2.1.c2 > 2.1.c1 3.0.c1 3.0.s
256 3.0.c2 3.0.s 3.1.c2 > 3.1.c1 4.0.c1 4.0.s
512 4.0.c2 4.0.s 4.1.c2 > 4.1.c1 fc
"""
RESNET50_INNER = """
64 conv1 > 1.0.c1 1.0.s
64 1.0.c1 > 1.0.c2;  64 1.0.c2 > 1.0.c3;   64 1.1.c1 > 1.1.c2;  64 1.1.c2 > 1.1.c3
64 1.2.c1 > 1.2.c2;  64 1.2.c2 > 1.2.c3
128 2.0.c1 > 2.0.c2; 128 2.0.c2 > 2.0.c3;  128 2.1.c1 > 2.1.c2; 128 2.1.c2 > 2.1.c3
128 2.2.c1 > 2.2.c2; 128 2.2.c2 > 2.2.c3;  128 2.3.c1 > 2.3.c2; 128 2.3.c2 > 2.3.c3
256 3.0.c1 > 3.0.c2; 256 3.0.c2 > 3.0.c3;  256 3.1.c1 > 3.1.c2; 256 3.1.c2 > 3.1.c3
256 3.2.c1 > 3.2.c2; 256 3.2.c2 > 3.2.c3;  256 3.3.c1 > 3.3.c2; 256 3.3.c2 > 3.3.c3
256 3.4.c1 > 3.4.c2; 256 3.4.c2 > 3.4.c3;  256 3.5.c1 > 3.5.c2; 256 3.5.c2 > 3.5.c3
512 4.0.c1 > 4.0.c2; 512 4.0.c2 > 4.0.c3;  512 4.1.c1 > 4.1.c2; 512 4.1.c2 > 4.1.c3
512 4.2.c1 > 4.2.c2; 512 4.2.c2 > 4.2.c3
"""
RESNET50_ALL = """
256 1.0.c3 1.0.s > 1.1.c1 1.1.s;   256 1.1.c3 1.1.s > 1.2.c1 1.2.s
256 1.2.c3 1.2.s > 2.0.c1 2.0.s
512 2.0.c3 2.0.s > 2.1.c1 2.1.s;   512 2.1.c3 2.1.s > 2.2.c1 2.2.s
512 2.2.c3 2.2.s > 2.3.c1 2.3.s;   512 2.3.c3 2.3.s > 3.0.c1 3.0.s
1024 3.0.c3 3.0.s > 3.1.c1 3.1.s;  1024 3.1.c3 3.1.s > 3.2.c1 3.2.s
1024 3.2.c3 3.2.s > 3.3.c1 3.3.s;  1024 3.3.c3 3.3.s > 3.4.c1 3.4.s
1024 3.4.c3 3.4.s > 3.5.c1 3.5.s;  1024 3.5.c3 3.5.s > 4.0.c1 4.0.s
2048 4.0.c3 4.0.s > 4.1.c1 4.1.s;  2048 4.1.c3 4.1.s > 4.2.c1 4.2.s
2048 4.2.c3 4.2.s > fc
"""
RESNET50_NEEDED = """
256 1.0.c3 1.0.s 1.1.c3 1.2.c3 > 1.1.c1 1.2.c1 2.0.c1 2.0.s
512 2.0.c3 2.0.s 2.1.c3 2.2.c3 2.3.c3 > 2.1.c1 2.2.c1 2.3.c1 3.0.c1 3.0.s
1024 3.0.c3 3.0.s 3.1.c3 3.2.c3 3.3.c3 3.4.c3 3.5.c3 > 3.1.c1 3.2.c1 3.3.c1 3.4.c1 3.5.c1 \
4.0.c1 4.0.s
2048 4.0.c3 4.0.s 4.1.c3 4.2.c3 > 4.1.c1 4.2.c1 fc
"""
TABLES = {
    (18, "all"): RESNET18_INNER + RESNET18_ALL,
    (18, "needed"): RESNET18_INNER + RESNET18_NEEDED,
    (50, "all"): RESNET50_INNER + RESNET50_ALL,
    (50, "needed"): RESNET50_INNER + RESNET50_NEEDED,
}


def long_name(short: str, shortcut: str) -> str:
    if short in ("conv1", "fc"):
        return short
    stage, block, layer = short.split(".")
    return f"layer{stage}.{block}." + (f"{shortcut}.0" if layer == "s" else f"conv{layer[1]}")


def groups_by_hand(table: str, shortcut: str = "shortcut") -> dict[str, Group]:
    groups = {}
    for line in table.replace(";", "\n").split("\n"):
        if line.strip():
            made, _, read = line.partition(">")
            size, *short = made.split()
            producers = [long_name(name, shortcut) for name in short]
            norms = [
                name.replace("conv", "bn").replace(f"{shortcut}.0", f"{shortcut}.1")
                for name in producers
            ]
            readers = [(long_name(name, shortcut), 1) for name in read.split()]
            groups[producers[0]] = Group(
                producers[0], int(size), tuple(producers), tuple(norms), tuple(readers)
            )
    return groups


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """A network without weights, which is made in no time."""
    with torch.device("meta"):
        return make()


IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(("depth", "projection"), list(TABLES))
def test_groups_of_our_resnets(depth: int, projection: str, norm: bool) -> None:
    config = resnet_config(depth, 10, projection=projection, projection_norm=norm)
    expected = groups_by_hand(TABLES[depth, projection])
    if not norm:
        expected = {
            name: Group(
                *(name, group.size, group.producers),
                tuple(n for n in group.norms if "shortcut" not in n),
                group.readers,
            )
            for name, group in expected.items()
        }
    assert find_groups(on_meta(lambda: ResNet(config)), IMAGE) == expected


@pytest.mark.parametrize("depth", [18, 50])
def test_groups_of_torchvisions_resnets(depth: int) -> None:
    network = on_meta(getattr(torchvision.models, f"resnet{depth}"))
    expected = groups_by_hand(TABLES[depth, "needed"], "downsample")
    assert find_groups(network, IMAGE) == expected


def test_groups_come_in_the_order_of_computation() -> None:
    network = on_meta(lambda: ResNet(resnet_config(18, 10, projection="needed")))
    names = list(find_groups(network, IMAGE))
    assert names[:4] == ["conv1", "layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1"]
    assert names[-2:] == ["layer4.0.conv2", "layer4.1.conv1"]


@pytest.mark.parametrize(
    ("projection", "indices", "filters", "convolutions"),
    [("all", 3904, 5824, 25), ("needed", 2880, 4800, 20)],
)
def test_resnet18s_indices_and_filters(
    projection: str, indices: int, filters: int, convolutions: int
) -> None:
    """ "needed": 1,920 indices inside blocks and 960 of the four stages' outputs."""
    network = on_meta(lambda: ResNet(resnet_config(18, 10, projection=projection)))
    groups = find_groups(network, IMAGE).values()
    assert sum(group.size for group in groups) == indices
    assert sum(group.size * len(group.producers) for group in groups) == filters
    assert sum(len(group.producers) for group in groups) == convolutions


def test_a_plain_chain_with_flatten_counts_columns_per_channel() -> None:
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(5 * 2 * 3, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 2)),
    )
    assert list(find_groups(network, torch.zeros(2, 3, 8, 12)).values()) == [
        Group("0", 4, ("0",), ("1",), (("4", 1),)),
        Group("4", 5, ("4",), (), (("8", 6),)),
        Group("8", 7, ("8",), ("9",), (("12", 1),)),
    ]


def test_a_batch_norm_called_with_a_keyword_is_found() -> None:
    network = Net(lambda n, x: n.next(n.norm(input=n.conv(x))))
    assert find_groups(network, torch.zeros(2, 3, 4, 4))["conv"].norms == ("norm",)


@pytest.mark.parametrize(("name", "count"), [("vgg11_bn", 10), ("vgg11", 10), ("alexnet", 7)])
def test_torchvisions_plain_chains(name: str, count: int) -> None:
    groups = find_groups(on_meta(getattr(torchvision.models, name)), torch.zeros(1, 3, 64, 64))
    assert len(groups) == count
    flattened = [group for group in groups.values() if group.readers[0][1] > 1]
    assert [g.readers for g in flattened] == [
        (("classifier.0" if "vgg" in name else "classifier.1", 49 if "vgg" in name else 36),)
    ]


class Net(nn.Module):
    """Four channels from conv, which other layers may read, put together by a function."""

    def __init__(self, body: Callable[[Net, Tensor], object]) -> None:
        super().__init__()
        self.conv, self.next = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.doubled = nn.Conv2d(4, 8, 3, padding=1, groups=4)
        self.late = nn.BatchNorm1d(64)
        self.flatly = nn.Conv1d(2, 2, 1, groups=2)
        self.up = nn.ConvTranspose2d(4, 4, 1)
        self.layernorm, self.groupnorm = nn.LayerNorm(4), nn.GroupNorm(2, 4)
        self.instancenorm, self.prelu = nn.InstanceNorm2d(4), nn.PReLU(4)
        self.fc, self.pool, self.pool1d = nn.Linear(4, 4), nn.AdaptiveAvgPool2d(1), nn.MaxPool1d(2)
        self.softmax, self.scale = nn.Softmax(1), nn.Parameter(torch.ones(4, 1, 1))
        self.sync, self.part = nn.SyncBatchNorm(4), nn.Flatten(2)
        self.norm, self.wide = nn.BatchNorm2d(4), nn.BatchNorm2d(5)
        self.one, self.same = nn.Conv2d(3, 1, 3, stride=2, padding=1), nn.Conv2d(3, 3, 1)
        self.body = body

    def forward(self, x: Tensor) -> object:
        return self.body(self, x)


# Every body works on images [2, 3, 4, 4], and is named after what must stand in the message.
REFUSED: list[tuple[str, Callable[[Net, Tensor], object]]] = [
    ("doubled, a grouped Conv2d", lambda n, x: n.doubled(n.conv(x))),
    ("groups where each makes as many channels as it", lambda n, x: n.doubled(n.conv(x))),
    ("flatly, a grouped Conv1d", lambda n, x: n.flatly(n.conv(x).flatten(1).relu())),
    ("up, a ConvTranspose2d", lambda n, x: n.next(n.up(n.conv(x)))),
    ("layernorm, a LayerNorm", lambda n, x: n.next(n.layernorm(n.conv(x)))),
    ("groupnorm, a GroupNorm", lambda n, x: n.next(n.groupnorm(n.conv(x)))),
    ("instancenorm, a Instance", lambda n, x: n.next(n.instancenorm(n.conv(x)))),
    ("pad", lambda n, x: n.next(F.pad(n.one(x), (0, 0, 0, 0, 1, 2)))),
    ("getitem", lambda n, x: n.next(n.conv(x)[:, [1, 0, 2, 3]])),
    ("getitem", lambda n, x: n.next(n.conv(x)[:1])),
    ("squeeze", lambda n, x: n.fc(n.pool(n.conv(x)).squeeze())),
    ("write torch.flatten", lambda n, x: n.fc(n.pool(n.conv(x)).squeeze())),
    ("prelu, a PReLU", lambda n, x: n.next(n.prelu(n.conv(x)))),
    ("softmax, a Softmax", lambda n, x: n.next(n.softmax(n.conv(x)))),
    ("fc, a Linear", lambda n, x: n.fc(n.conv(x))),
    ("part, a Flatten", lambda n, x: n.part(n.conv(x))),
    ("pool1d, a MaxPool1d", lambda n, x: n.pool1d(n.fc(torch.flatten(n.pool(n.conv(x)), 1)))),
    ("avg_pool1d", lambda n, x: F.avg_pool1d(n.fc(n.pool(n.conv(x)).flatten(1)), 1)),
    ("max_pool2d", lambda n, x: n.next(F.max_pool2d(n.conv(x), 2, return_indices=True)[0])),
    ("cat", lambda n, x: n.next(torch.cat([n.conv(x), x], 1)[:, :4])),
    ("stack", lambda n, x: torch.stack([y := n.conv(x), n.next(y)])),
    ("flip", lambda n, x: n.next(n.conv(x).flip(1))),
    ("what a shape says of channels", lambda n, x: n.next((y := n.conv(x)) * y.shape[1])),
    ("what a shape says of channels", lambda n, x: n.next((y := n.conv(x)) * y.size(0))),
    (
        "what a shape says of channels",
        lambda n, x: n.fc((y := n.pool(n.conv(x))).view(-1, y.size(1))),
    ),
    ("scale", lambda n, x: n.next(n.conv(x) + n.scale)),
    ("next.weight", lambda n, x: F.conv2d(n.conv(x), n.next.weight)),
    ("add of the shapes", lambda n, x: n.next(F.avg_pool2d(n.conv(x), 2) + n.one(x))),
    ("mul of the shapes", lambda n, x: n.next(F.avg_pool2d(n.conv(x), 2) * n.one(x))),
    (
        "flattened differently",
        lambda n, x: n.fc(n.pool(n.conv(x)).flatten(1) + n.one(x).flatten(1)),
    ),
    ("view", lambda n, x: n.fc(n.pool(n.conv(x)).view(-1, 4))),
    ("reshape", lambda n, x: n.fc(torch.reshape(n.pool(n.conv(x)), (2, 4)))),
    ("size", lambda n, x: n.fc((y := n.pool(n.conv(x))).view(y.size(0), 4))),
    ("write torch.flatten", lambda n, x: n.fc((y := n.pool(n.conv(x))).view(y.size(0), 4))),
    ("permute", lambda n, x: n.fc(n.conv(x).permute(0, 2, 3, 1))),
    ("mean", lambda n, x: n.next((y := n.conv(x)) + y.mean(1, keepdim=True))),
    ("conv is called twice", lambda n, x: n.next(n.conv(x) + n.conv(x.relu()))),
    ("control flow", lambda n, x: n.next(n.conv(x)) if x.sum() > 0 else n.conv(x)),
    ("fc fails", lambda n, x: n.fc(n.conv(x).flatten(1))),
    ("wide fails", lambda n, x: n.next(n.wide(n.conv(x)))),
    ("behind a flatten", lambda n, x: n.late(n.conv(x).flatten(1))),
    ("norm fails", lambda n, x: n.fc(n.norm(n.pool(n.conv(x)).flatten(1)))),
]


@pytest.mark.parametrize(("says", "body"), REFUSED, ids=[says for says, _ in REFUSED])
def test_other_layers_are_refused_by_name(says: str, body: Callable, capfd) -> None:
    with pytest.raises(PruningError) as caught:
        find_groups(Net(body), torch.zeros(2, 3, 4, 4))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_how_to_flatten_is_told_where_that_is_what_the_network_wants() -> None:
    scaled = Net(lambda n, x: n.next((y := n.conv(x)) / y.shape[1]))
    with pytest.raises(PruningError) as caught:
        find_groups(scaled, torch.zeros(2, 3, 4, 4))
    assert "To flatten" not in str(caught.value)


def chain(first: nn.Module) -> nn.Module:
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(4, 2, 1))


def tied() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    network[1].weight = network[0].weight
    return network


def shared() -> nn.Module:
    conv = nn.Conv2d(3, 3, 1)
    return nn.Sequential(conv, nn.ReLU(), conv)


BOUND: list[tuple[str, Callable[[], nn.Module]]] = [
    ("1.weight and 0.weight are the same", tied),
    ("2.weight and 0.weight are the same", shared),
    ("0 computes its weight", lambda: chain(parametrizations.weight_norm(nn.Conv2d(3, 4, 1)))),
    ("0 computes its weight", lambda: chain(parametrizations.spectral_norm(nn.Conv2d(3, 4, 1)))),
    ("0 computes its weight", lambda: chain(nn.utils.spectral_norm(nn.Conv2d(3, 4, 1)))),
    (
        "0 computes its weight",
        lambda: chain(torch_prune.l1_unstructured(nn.Conv2d(3, 4, 1), "weight", 0.5)),
    ),
    (
        "0 computes its bias",
        lambda: chain(torch_prune.l1_unstructured(nn.Conv2d(3, 4, 1), "bias", 0.5)),
    ),
]


@pytest.mark.parametrize(("says", "make"), BOUND)
def test_weights_that_are_not_one_layers_own_are_refused(says: str, make: Callable) -> None:
    with pytest.raises(PruningError, match=says):
        find_groups(make(), IMAGE)


def hooked(register: str) -> Callable[[nn.Module], object]:
    return lambda layer: getattr(layer, register)(lambda *given: None)


@pytest.mark.parametrize(
    ("says", "change"),
    [
        ("1 has a hook, .* take it off", hooked("register_forward_hook")),
        ("1 has a hook, .* take it off", hooked("register_forward_pre_hook")),
        ("1 has a forward of its own", lambda layer: setattr(layer, "forward", torch.abs)),
    ],
)
@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)])
@pytest.mark.parametrize("strict", [True, False])
def test_layers_that_may_compute_something_else_are_refused(says, change, layer, strict) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), copy.deepcopy(layer), nn.Conv2d(4, 2, 1))
    find_groups(network, IMAGE, strict=strict)
    change(network[1])
    with pytest.raises(PruningError, match=says):
        find_groups(network, IMAGE, strict=strict)


class Helped(nn.Module):
    """With an auxiliary head, which training alone asks, and a layer that nothing asks."""

    def __init__(self, helped: bool) -> None:
        super().__init__()
        self.conv, self.fc, self.unused = nn.Conv2d(3, 4, 1), nn.Linear(4, 2), nn.Linear(4, 2)
        self.helper = nn.Linear(4, 2) if helped else None

    def forward(self, x: Tensor) -> object:
        y = self.conv(x).mean((2, 3))
        asked = self.training and self.helper is not None
        return (self.fc(y), self.helper(y)) if asked else self.fc(y)


def test_layers_that_training_alone_calls_are_refused() -> None:
    assert list(find_groups(Helped(False), IMAGE)) == ["conv"]
    with pytest.raises(PruningError, match="helper isn't called in evaluation, but in training"):
        find_groups(Helped(True), IMAGE)
    assert list(find_groups(Helped(True), IMAGE, strict=False)) == ["conv"]


def test_a_network_with_a_forward_of_its_own_is_refused() -> None:
    network = chain(nn.Conv2d(3, 4, 1))
    network.forward = network[0].forward  # type: ignore[method-assign]
    for strict in (True, False):
        with pytest.raises(PruningError, match="Sequential has a forward of its own"):
            find_groups(network, IMAGE, strict=strict)


class Keeping(nn.Module):
    """Keeps a value that it computes, makes a tensor on the way, and counts its calls in training,
    which are looked at for a layer that nothing calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.spare = nn.Conv2d(3, 4, 1), nn.Linear(4, 2), nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        self.kept = self.conv(x).relu()
        return self.fc((self.kept + torch.ones(1, 4, 1, 1)).mean((2, 3)))


def test_nothing_is_left_behind_in_the_network(tmp_path) -> None:
    network = Keeping()
    before = {name: dict(vars(module)) for name, module in network.named_modules()}
    with pytest.raises(PruningError, match="_tensor_constant"):
        find_groups(network, IMAGE)
    assert called_in_training(network) == {"conv", "fc"}
    assert list(find_groups(network, IMAGE, strict=False)) == []
    assert network.calls == 0
    assert {name: dict(vars(module)) for name, module in network.named_modules()} == before
    torch.save(network, tmp_path / "whole.pt")

    masked = chain(torch_prune.l1_unstructured(nn.Conv2d(3, 4, 1), "weight", 0.5))
    find_groups(masked, IMAGE, strict=False)
    assert masked[0].weight.device.type == "cpu" and (masked[0].weight == 0).sum() == 6


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_scripted_network_gets_a_sentence() -> None:
    with pytest.raises(PruningError, match="can't be traced"):
        find_groups(torch.jit.script(chain(nn.Conv2d(3, 4, 1))), IMAGE)


WRAPPERS = (nn.DataParallel, torch.compile, torch.optim.swa_utils.AveragedModel)


@pytest.mark.parametrize(
    ("wrap", "inside"), [*zip(WRAPPERS, ("module", "_orig_mod", "module"), strict=True)]
)
def test_of_a_wrapper_the_network_inside_is_asked_for(wrap, inside) -> None:
    network = wrap(chain(nn.Conv2d(3, 4, 1)))
    with pytest.raises(PruningError, match=rf"give that one: its \.{inside}$"):
        find_groups(network, IMAGE)
    assert list(find_groups(getattr(network, inside), IMAGE)) == ["0"]


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.sum() > 0 else x


def test_the_module_that_cannot_be_traced_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(Deciding()))
    with pytest.raises(PruningError, match=r"1\.0: symbolically traced"):
        find_groups(network, IMAGE)


def test_an_image_without_its_batch_is_refused() -> None:
    with pytest.raises(PruningError, match=r"0, a Conv2d on a value of shape \(3, 32, 32\)"):
        find_groups(chain(nn.Conv2d(3, 4, 1)), IMAGE[0])


# What is fine: [2, 3, 4, 4] → groups of conv, by their readers.
ACCEPTED: list[tuple[Callable[[Net, Tensor], object], dict[str, list[tuple[str, int]]]]] = [
    (lambda n, x: n.next((y := n.conv(x)) + y), {"conv": [("next", 1)]}),
    (lambda n, x: n.next(n.conv(x).relu_() + 1), {"conv": [("next", 1)]}),
    (lambda n, x: n.next((y := n.conv(x)) + n.pool(y)), {"conv": [("next", 1)]}),
    (lambda n, x: n.next((y := n.conv(x)) * torch.sigmoid(n.pool(y))), {"conv": [("next", 1)]}),
    (lambda n, x: n.conv(n.same(x) * x), {}),  # a factor of the images: as many as these
    (
        lambda n, x: n.fc((y := n.conv(x)).mul(n.next(y.mean((2, 3), keepdim=True))).mean((2, 3))),
        {"conv": [("next", 1), ("fc", 1)]},
    ),
    (lambda n, x: n.fc(n.conv(x).mean((2, 3))), {"conv": [("fc", 1)]}),
    (lambda n, x: n.fc(n.conv(x).mean([-1, -2])), {"conv": [("fc", 1)]}),
    (
        lambda n, x: n.fc(torch.add(y := n.conv(x), n.next(y), alpha=2).mean((2, 3))),
        {"conv": [("next", 1), ("fc", 1)]},
    ),
    (lambda n, x: {"logits": n.fc(n.conv(x).mean((2, 3)))}, {"conv": [("fc", 1)]}),
    (lambda n, x: ((y := n.conv(x)), n.next(y)), {}),
    (lambda n, x: n.conv(x), {}),
    (lambda n, x: n.conv(n.same(x) + x), {}),  # tied to the images, of which nothing may go
    (lambda n, x: n.conv(x + n.same(x)), {}),
    (lambda n, x: (y := n.conv(x)) + n.next(y), {}),
    (lambda n, x: n.next(n.sync(n.conv(x))), {"conv": [("next", 1)]}),
    (lambda n, x: n.fc((y := n.pool(n.conv(x))).view(y.size(0), -1)), {"conv": [("fc", 1)]}),
    (lambda n, x: n.fc(n.pool(n.conv(x)).view(x.size(dim=0), -1)), {"conv": [("fc", 1)]}),
    (lambda n, x: n.fc(n.pool(n.conv(x)).reshape(x.shape[0], -1)), {"conv": [("fc", 1)]}),
    (lambda n, x: n.fc(n.pool(n.conv(x)).view(x.size()[0], -1)), {"conv": [("fc", 1)]}),
    (lambda n, x: F.softplus(F.max_pool2d(n.next(F.gelu(n.conv(x))), 2)), {"conv": [("next", 1)]}),
]


@pytest.mark.parametrize(("body", "expected"), ACCEPTED)
def test_other_ways_of_writing_it(body: Callable, expected: dict) -> None:
    groups = find_groups(Net(body), torch.zeros(2, 3, 4, 4))
    assert {name: list(group.readers) for name, group in groups.items()} == expected


class WithMask(Net):
    """A network whose forward takes more than images."""

    def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: float = 1.0) -> object:
        x = x if mask is None else x * mask
        return super().forward(x if scale == 1.0 else x * scale)


def test_further_arguments_keep_their_defaults() -> None:
    groups = find_groups(WithMask(lambda n, x: n.next(n.conv(x))), torch.zeros(2, 3, 4, 4))
    assert list(groups) == ["conv"]


def test_what_is_refused_is_placed_in_its_layer() -> None:
    inner = Net(lambda n, x: n.next(n.conv(x).flip(1)))
    network = nn.Sequential(nn.Conv2d(3, 3, 1), inner)
    with pytest.raises(PruningError, match=r"the operation flip \(node flip in 1\)"):
        find_groups(network, torch.zeros(2, 3, 4, 4))


CAN_TELL = [(says, body) for says, body in REFUSED if not says.endswith(("fails", "flow"))]


@pytest.mark.parametrize(("says", "body"), CAN_TELL, ids=[says for says, _ in CAN_TELL])
def test_the_rest_is_pruned_where_it_need_not_be_all(says: str, body: Callable) -> None:
    """`conv` is read by what isn't understood, but for the two where it is `fc`; the layer before
    it can lose filters in any case.
    """
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 3, 1), Net(body))
    groups = find_groups(network, torch.zeros(2, 3, 4, 4), strict=False)
    assert groups.pop("0") == Group("0", 5, ("0",), (), (("1", 1),))
    found = any("2.conv" in group.producers for group in groups.values())
    assert found == ("pool1d" in says)


@pytest.mark.parametrize(("says", "make"), BOUND)
def test_weights_that_are_not_one_layers_own_keep_their_size(says: str, make: Callable) -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 3, 1), make())
    groups = find_groups(network, IMAGE, strict=False)
    assert list(groups) == ["0"]


@pytest.mark.parametrize(
    ("name", "count", "in_groups"),
    [
        ("resnext50_32x4d", 21, 16),
        ("regnet_y_400mf", 37, 16),
        ("mobilenet_v2", 25, 17),
        ("mobilenet_v3_small", 27, 11),
        ("mnasnet0_5", 25, 17),
        ("efficientnet_b0", 40, 16),
    ],
)
def test_torchvisions_networks_of_grouped_convolutions(name, count, in_groups) -> None:
    """All of each: one group per other convolution, less those tied by sums and, of
    squeeze-and-excitation, by products.
    """
    network = getattr(torchvision.models, name)()
    groups = find_groups(network, torch.zeros(1, 3, 224, 224))
    assert len(groups) == count
    layers = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    apart = [n for n in layers if getattr(network.get_submodule(n), "groups", 1) > 1]
    assert sorted(n for group in groups.values() for n in group.grouped) == sorted(apart)
    assert len(apart) == in_groups
    rest = set(layers) - set(apart)
    assert {n for group in groups.values() for n in group.producers} == rest - {layers[-1]}
    assert {n for group in groups.values() for n, _ in group.readers} == rest - {layers[0]}


class Padded(nn.Conv2d):
    """Only set up in its own way."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, 3, padding=1)


class Standardised(Padded):
    """It computes something else: each filter has mean zero."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Flipped(Padded):
    """The same, by what nn.Conv2d's forward calls."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight.flip(2), bias)


class Doubled(Padded):
    """The same, by what calls nn.Conv2d's forward."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) * 2


class Norm(nn.BatchNorm2d):
    """A name of its own for batch norm."""


class Act(nn.ReLU):
    """A name of its own for ReLU."""


def test_a_subclass_that_computes_the_same_is_known() -> None:
    network = nn.Sequential(Padded(3, 5), Norm(5), Act(), Padded(5, 3))
    assert find_groups(network, IMAGE) == {"0": Group("0", 5, ("0",), ("1",), (("3", 1),))}
    video = on_meta(torchvision.models.video.r3d_18)  # its convolutions are such a subclass
    assert len(find_groups(video, torch.zeros(1, 3, 4, 32, 32))) == 12


@pytest.mark.parametrize("kind", [Standardised, Flipped, Doubled])
def test_a_subclass_that_computes_something_else_is_refused(kind: type[Padded]) -> None:
    network = nn.Sequential(Padded(3, 5), kind(5, 4), Padded(4, 3))
    with pytest.raises(PruningError, match=r"1\.weight"):
        find_groups(network, IMAGE)
    assert find_groups(network, IMAGE, strict=False) == {}


# Concatenations, channel shuffles, attention and layer norm.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("densenet121", 58), ("googlenet", 21), ("shufflenet_v2_x0_5", 18)),
        *(("convnext_tiny", 0), ("vit_b_16", 0)),
    ],
)
def test_torchvisions_other_networks(name: str, count: int) -> None:
    options = {"init_weights": False} if name == "googlenet" else {}
    network = on_meta(partial(getattr(torchvision.models, name), **options))
    image = torch.zeros(1, 3, 224, 224)
    with pytest.raises(PruningError, match="strict=False"):
        find_groups(network, image)
    assert len(find_groups(network, image, strict=False)) == count


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_untouched(training: bool) -> None:
    network = ResNet(resnet_config(18, 10, base_width=2)).train(training)
    network.layer1.eval()
    state = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    # A single position in the last stage: batch norm would refuse to train on one value.
    assert len(find_groups(network, IMAGE)) == 17
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
    assert all(type(module) is not torch.fx.GraphModule for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())


class Aux(nn.Module):
    """Whose forward can't be traced in training, where it also asks another head."""

    def __init__(self):
        super().__init__()
        self.conv, self.aux, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        y = torch.relu(self.conv(x)).mean((2, 3))
        if self.training and y.sum() > 0:
            return self.fc(y) + self.aux(y)
        return self.fc(y)


def test_a_training_that_cant_be_looked_into_is_refused():
    with pytest.raises(PruningError, match="aux isn't called in evaluation"):
        find_groups(Aux(), torch.zeros(1, 3, 4, 4))


class Viewed(nn.Module):
    def __init__(self, flat):
        super().__init__()
        self.conv, self.fc, self.flat = nn.Conv2d(3, 4, 1), nn.Linear(4, 3), flat

    def forward(self, x):
        return self.fc(self.flat(self.conv(x).mean((2, 3), keepdim=True)))


@pytest.mark.parametrize(
    "flat",
    [
        lambda y: y.view(4, -1),
        lambda y: y.view(y.shape[1], -1),
        lambda y: y.view(y.size(1), -1),
        lambda y: y.view(y.size(0) * 1, -1),
    ],
)
def test_a_view_over_anything_but_the_batch_is_refused(flat):
    with pytest.raises(PruningError, match="be pruned around"):
        find_groups(Viewed(flat), torch.zeros(4, 3, 4, 4))


def test_an_input_without_channels_is_refused():
    with pytest.raises(PruningError, match="has no channels"):
        find_groups(nn.Linear(3, 2), torch.zeros(3))


@pytest.mark.parametrize("kind", ["args", "kwargs"])
def test_further_arguments_without_defaults(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 3)

    def star(self, x, *rest):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))

    def stars(self, x, **rest):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))

    Net.forward = star if kind == "args" else stars
    assert list(find_groups(Net(), torch.zeros(1, 3, 4, 4), strict=False)) == ["conv"]


def test_a_layer_that_is_read_past_keeps_its_shape():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), Odd("read", 4), nn.Flatten(), nn.Linear(64, 2)
    )
    assert find_groups(network, torch.zeros(2, 3, 4, 4), strict=False) == {}
