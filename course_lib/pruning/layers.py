"""Which layers and operations the walk through a network knows, by what they do with channels."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
FROZEN = "FrozenBatchNorm2d"  # torchvision's, in its detectors; it isn't needed here otherwise
# Layers that treat every channel by itself: removing one leaves the others as they were.
PER_CHANNEL_MODULES = (
    *(nn.Identity, nn.Dropout, nn.Dropout2d),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.LogSigmoid, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.Threshold),
    nn.PReLU,  # with one slope for all channels
    *(nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.Upsample, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d),
    *(nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d),
)
PER_CHANNEL_FUNCTIONS: set[Any] = {
    *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh, F.relu, F.relu6, F.leaky_relu, F.elu),
    *(F.selu, F.celu, F.gelu, F.silu, F.mish, F.hardtanh, F.hardswish, F.hardsigmoid),
    *(F.softplus, F.dropout, F.dropout2d, F.interpolate),
    *(F.max_pool1d, F.max_pool2d, F.avg_pool1d, F.avg_pool2d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
    *(torch.clamp, torch.abs, torch.exp, operator.neg),
    *("relu", "relu_", "sigmoid", "tanh", "clamp", "clamp_", "abs", "exp", "contiguous"),
}
PER_CHANNEL_NAMES = {"stochastic_depth"}  # torchvision's
# Of two values, channel by channel: a shortcut adds, squeeze-and-excitation multiplies.
ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
ARITHMETIC = ADDITIONS | {
    "expand_as",
    *(operator.sub, operator.isub, torch.sub, "sub", "sub_"),
    *(operator.mul, operator.imul, torch.mul, "mul", "mul_"),
    *(operator.truediv, operator.itruediv, torch.div, "div", "div_"),
}
# Over positions only, they leave channels apart.
OVER_POSITIONS: set[Any] = {torch.mean, torch.sum, torch.amax, torch.squeeze, torch.unsqueeze}
OVER_POSITIONS |= {"mean", "sum", "amax", "squeeze", "unsqueeze"}
FLATTENS = {torch.flatten, "flatten"}
WEIGHTED = (*CONVOLUTIONS, *NORMS, nn.Linear)  # what can be made narrower
KNOWN_LAYERS = {*WEIGHTED, *PER_CHANNEL_MODULES}


def kind_of(layer: nn.Module) -> type[nn.Module]:
    """The class whose computation a layer does: of a subclass that has an `__init__` of its own,
    say, but neither `forward` nor what calls it or is called by it, the known layer that it is.
    """
    if type(layer).__name__ == FROZEN:
        return nn.BatchNorm2d
    own = set[str]()
    for kind in type(layer).__mro__:
        if kind in KNOWN_LAYERS:
            return type(layer) if own & {"__call__", "forward", "_conv_forward"} else kind
        own |= vars(kind).keys()
    return type(layer)


def is_grouped(layer: nn.Module) -> bool:
    """Whether it is a convolution in groups, each of which makes as many channels as it reads: one
    channel if it is depthwise, as MobileNet's are; a few in ResNeXt and RegNet.
    """
    if not isinstance(layer, CONVOLUTIONS):
        return False
    return layer.groups > 1 and layer.in_channels == layer.out_channels
