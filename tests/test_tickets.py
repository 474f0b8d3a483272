"""Tickets against what is worked by hand, and against PyTorch's own pruning."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import prune as theirs

from course_lib import tickets
from course_lib.pruning import find_groups, l1, prune, select
from course_lib.resnet import ResNet, resnet_config
from course_lib.training import make_optimizer, make_schedule, train

IMAGES = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 4


def network() -> ResNet:
    torch.manual_seed(3)
    return ResNet(resnet_config(18, 4, base_width=4, small_images=True))


def trained(net: nn.Module, steps: int, masks: tickets.Masks) -> nn.Module:
    optimizer = make_optimizer(net, 0.1, 0.9, 5e-4)
    schedule = make_schedule(optimizer, 0.1, steps, 0.2)
    losses = train(net, optimizer, schedule, [(IMAGES, LABELS)] * steps)
    assert len(list(tickets.held(losses, net, masks))) == steps
    return net


def test_masks_are_those_of_pytorch():
    net = network()
    masks = tickets.magnitude_masks(tickets.weights_of(net), 0.1)
    layers = [(m, "weight") for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    theirs.global_unstructured(layers, theirs.L1Unstructured, amount=0.9)
    for name, mask in masks.items():
        layer = net.get_submodule(name.removesuffix(".weight"))
        assert torch.equal(mask.float(), layer.weight_mask)


def test_masks_of_masks_are_nested_since_zeros_come_last():
    net = network()
    first = tickets.magnitude_masks(tickets.weights_of(net), 0.3)
    tickets.apply_masks(net, first)
    second = tickets.magnitude_masks(tickets.weights_of(net), 0.1)
    assert sum(int(mask.sum()) for mask in second.values()) > 0
    assert not any((second[name] & ~first[name]).any() for name in first)


def test_removed_weights_stay_zero_only_when_they_are_held():
    masks = tickets.magnitude_masks(tickets.weights_of(network()), 0.2)
    free, held = network(), network()
    for net, during in ((free, {}), (held, masks)):
        tickets.apply_masks(net, masks)
        trained(net, 3, during)
    assert all((held.get_parameter(name)[~mask] == 0).all() for name, mask in masks.items())
    assert any((free.get_parameter(name)[~mask] != 0).any() for name, mask in masks.items())


def test_a_remembered_state_does_not_train_along():
    net = network()
    state = tickets.remember(net)
    trained(net, 2, {})
    again = tickets.rewound(net, state).state_dict()
    fresh = network().state_dict()
    assert all(torch.equal(again[name], fresh[name]) for name in fresh)
    assert not torch.equal(net.state_dict()["conv1.weight"], fresh["conv1.weight"])


def test_two_rounds_are_one_cut_of_the_first_network():
    net, example = network(), IMAGES[:1]
    groups = find_groups(net, example)
    first = select(l1(net, groups), fraction=0.3)
    narrow = prune(net, groups, first)
    then = select(l1(narrow, find_groups(narrow, example)), fraction=0.3)
    narrower = prune(narrow, find_groups(narrow, example), then)
    at_once = prune(net, groups, tickets.in_first_network(first, then))
    for name, value in narrower.state_dict().items():
        assert torch.equal(value, at_once.state_dict()[name])


def test_a_group_that_the_second_round_left_whole_stays():
    first = {"a": torch.tensor([1, 3, 5]), "b": torch.tensor([0, 2])}
    both = tickets.in_first_network(first, {"a": torch.tensor([0, 2])})
    assert both["a"].tolist() == [1, 5]
    assert both["b"].tolist() == [0, 2]


def test_equal_compute_by_hand():
    # 10 × 9 + 5 × 4 = 110; a network of 3 does that in 36 batches and a part of one.
    assert tickets.equal_compute_batches([(10, 9), (5, 4)], 3) == 36


def test_masks_and_indices_may_lie_on_another_device_than_the_network():
    """As on a GPU, with the meta device in its place: masks are made where the weights are, others
    are brought there, and a network that has moved is cut by indices that haven't.
    """
    net = network()
    groups = find_groups(net, IMAGES)
    keep = select(l1(net, groups), fraction=0.5)
    masks = tickets.magnitude_masks(tickets.weights_of(net), 0.1)
    net.to("meta")
    assert find_groups(net, IMAGES) == groups
    there = tickets.magnitude_masks(tickets.weights_of(net), 0.1)
    assert {mask.device.type for mask in there.values()} == {"meta"}
    tickets.apply_masks(net, masks)
    narrow = prune(net, groups, keep)
    assert narrow.conv1.weight.shape[0] == len(keep["conv1"])
    assert {p.device.type for p in narrow.parameters()} == {"meta"}
    assert {p.dtype for p in narrow.parameters()} == {torch.float32}, "MPS has no float64"
