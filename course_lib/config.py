"""Everything a run depends on, in one frozen dataclass; the command line makes an option of every
field.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from course_lib.errors import CourseError

if TYPE_CHECKING:
    from course_lib.resnet import ResNetConfig

# Written out here rather than imported from where they are used: help and the refusal of a wrong
# option then come at once, without waiting for PyTorch, and come even where it is broken. A test
# holds them to what those modules offer.
DEPTHS = (18, 34, 50)
CRITERIA = (
    *("l1", "l2", "linf", "bn_scale", "random"),
    *("cosine", "cosine_outputs", "apoz", "taylor", "fisher", "obd", "critical"),
)
SCOPES = ("layer", "network")
COSTS = ("none", "macs")
IMAGE_SIZES = (16, 1024)
LARGEST = 2**63 - 1  # what PyTorch can count to

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")
PROJECTIONS = ("all", "needed")
STEMS = ("auto", "imagenet", "small")
SMALL_IMAGE = 40  # pixels; below, the ImageNet stem would leave the last stage a single position


def _option(default: Any, help: str, **limits: Any) -> Any:
    """A field with its help text and its limits: `choices`, `low`, `high` (both inclusive),
    `above`, `below`.
    """
    return field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True)
class Config:
    """One run: data, network, training, pruning, gate. Equal configs give equal networks on the
    same CPU, with the same versions and number of threads.
    """

    data: str = _option("generated", "generated, cifar10, fashion-mnist, or a folder of images")
    image_size: int | None = _option(
        None,
        "pixels on a side (default: the data's own, for a folder at most 64)",
        low=IMAGE_SIZES[0],
        high=IMAGE_SIZES[1],
    )
    train_images: int | None = _option(None, "use at most so many training images", low=2)
    val_images: int | None = _option(None, "use at most so many validation images", low=1)
    test_images: int | None = _option(None, "use at most so many test images", low=1)
    seed: int = _option(0, "decides every random draw", low=0)

    start: str | None = _option(
        None,
        "file to begin with: a network that a run wrote, or weights of torchvision's ResNet; "
        "depth, width and stem are then the file's (default: random weights)",
    )
    depth: int = _option(18, "ResNet-18, 34 or 50", choices=DEPTHS)
    base_width: int = _option(
        64, "filters of the stem; stages have 1, 2, 4, 8 times as many", low=1, high=1024
    )
    stem: str = _option(
        "auto", "imagenet (7x7, pooled) or small (3x3); auto: by size", choices=STEMS
    )
    projection: str = _option("all", "blocks with a projection shortcut", choices=PROJECTIONS)
    projection_norm: bool = _option(True, "batch norm on the projections")

    batches: int = _option(
        450,
        "batches of training before the first pruning; 0 with --start: prune it as it is",
        low=0,
    )
    batch_size: int = _option(64, "images per batch", low=2)
    rate: float = _option(0.1, "highest learning rate of the first training", above=0)
    finetune_batches: int = _option(50, "batches of fine-tuning per round", low=1)
    final_batches: int = _option(
        0,
        "further batches of fine-tuning in the last round; one that doesn't recover takes them, "
        "and is the last",
        low=0,
    )
    finetune_rate: float = _option(0.03, "highest learning rate of a round's fine-tuning", above=0)
    distill: float = _option(
        0.0, "share of the fine-tuning loss that follows the full network", low=0, high=1
    )
    warm_up: float = _option(0.2, "share of each cycle in which the rate rises", above=0, below=1)
    momentum: float = _option(0.9, "momentum of SGD", above=0, below=1)
    weight_decay: float = _option(5e-4, "weight decay of SGD", low=0)
    label_smoothing: float = _option(0.0, "label smoothing", low=0, below=1)
    flip: bool = _option(True, "mirror half of the training images")
    shift: float = _option(0.1, "shift training images by up to this share", low=0, below=1)
    zoom: float = _option(0.15, "zoom training images by up to this share", low=0, below=1)
    precision: str = _option("auto", "auto: bfloat16 on CUDA, else float32", choices=PRECISIONS)

    rounds: int = _option(16, "rounds of pruning", low=0)
    fraction: float = _option(0.05, "share of the filters removed per round", above=0, below=1)
    criterion: str = _option("l1", "how filters are scored (docs/criteria.md)", choices=CRITERIA)
    criterion_images: int = _option(512, "training images that a criterion looks at", low=1)
    scope: str = _option("layer", "rank within each layer or across the network", choices=SCOPES)
    normalise: bool = _option(True, "network scope: divide scores by their layer's mean")
    cost: str = _option("none", "network scope: divide scores by MACs per filter", choices=COSTS)
    floor: int = _option(2, "filters that every layer keeps at least", low=1)
    cap: float = _option(0.2, "network scope: most a layer loses a round", above=0, high=1)
    multiple: int = _option(1, "round widths up to a multiple of this", low=1)

    gate: bool = _option(True, "stop when accuracy doesn't recover")
    tolerance: float = _option(0.02, "drop in validation accuracy that passes", low=0, below=1)
    retries: int = _option(1, "further fine-tunings before giving up", low=0)

    curve_every: int = _option(10, "batches between two points of the accuracy curve", low=1)
    curve_images: int = _option(256, "validation images behind a point of the curve", low=1)
    checkpoint_every: int = _option(50, "batches between two checkpoints", low=1)

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            _check_type(option.name, value, str(option.type))
            _check_option(option.name, value, option.metadata)
        if self.batches == 0 and self.start is None:
            raise CourseError(
                "--batches can't be 0 without --start: give it at least 1, or name a trained "
                "network to begin with."
            )

    def network(self, classes: int, channels: int, image_size: int) -> ResNetConfig:
        """The full network for this data."""
        from course_lib.resnet import resnet_config  # here, since it imports PyTorch

        small = self.stem == "small" or (self.stem == "auto" and image_size < SMALL_IMAGE)
        return resnet_config(
            self.depth,
            classes,
            base_width=self.base_width,
            channels=channels,
            small_images=small,
            projection=self.projection,
            projection_norm=self.projection_norm,
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary for JSON and checkpoints."""
        return asdict(self)

    def differences(self, other: Config) -> list[str]:
        """The fields in which two configs differ, as "name: mine, theirs"."""
        pairs = [(f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return [f"{name}: {mine}, not {theirs}" for name, mine, theirs in pairs if mine != theirs]


KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "str | None": ((str, type(None)), "a text"),
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "int | None": ((int, type(None)), "a whole number"),
    "float": ((int, float), "a number"),
}


def _check_type(name: str, value: Any, kind: str) -> None:
    """Raise CourseError for a value of another type, which a config.json may hold."""
    types, words = KINDS[kind]
    # To Python, True is the number 1.
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "bool"):
        raise CourseError(f"{_named(name)} can't be {value!r}: it must be {words}.")


def _named(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_option(name: str, value: Any, limits: Any) -> None:
    """Raise CourseError, naming the option, for a value outside its limits."""
    option = _named(name)
    if "choices" in limits and value not in limits["choices"]:
        choices = ", ".join(map(str, limits["choices"]))
        raise CourseError(f"{option} can't be {value!r}: choose one of {choices}.")
    if value == "":
        raise CourseError(f"{option} is empty: give it a value or leave it away.")
    if value is None or isinstance(value, (str, bool)):
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise CourseError(f"{option} can't be {value}: give a finite number.")
    largest = LARGEST if isinstance(value, int) else math.inf
    bounds = [
        ("low", value < limits.get("low", -math.inf), "at least"),
        ("above", value <= limits.get("above", -math.inf), "more than"),
        ("high", value > limits.get("high", largest), "at most"),
        ("below", value >= limits.get("below", math.inf), "less than"),
    ]
    for bound, broken, words in bounds:
        if broken:
            limit = limits.get(bound, largest)
            raise CourseError(f"{option} can't be {value}: it must be {words} {limit}.")


PRESETS = {
    # Under 30 seconds on two cores: shows that everything works, not that pruning does. So the gate
    # is off.
    "smoke": Config(
        image_size=32,
        stem="imagenet",
        base_width=16,
        train_images=2_000,
        val_images=500,
        test_images=500,
        batches=120,
        rounds=3,
        finetune_batches=20,
        fraction=0.1,
        gate=False,
        curve_every=10,
        checkpoint_every=40,
    ),
    # Under 8 minutes on two cores. 16 rounds of 5 % leave 0.95^16 = 44 % of the filters and so
    # about 19 % of the parameters; after 15 it would be 21.5 %, just short of the article's 20.9 %.
    # Half of the 800 batches of fine-tuning come after the last cut: the network is smallest then,
    # and no further cut undoes what they repair (benchmarks/schedules.py).
    "laptop": Config(finetune_batches=25, final_batches=400),
    # As small, with as many batches: one cut, after which all of them go to the network that is
    # kept, at a higher rate. More accurate and quicker (benchmarks/schedules.py), but the size has
    # to be known.
    "one-cut": Config(rounds=1, fraction=0.56, finetune_batches=800, finetune_rate=0.1),
    # A few thousand photographs, some of them labelled wrongly: four times the training, and labels
    # smoothed, which pays once training is as long as that (benchmarks/photographs.py); fewer,
    # larger cuts with twice the batches in all, at a higher rate and with the full network as
    # teacher (benchmarks/schedules.py). They leave 0.81^4 = 43 % of the filters.
    "photos": Config(
        batches=1800,
        label_smoothing=0.1,
        rounds=4,
        fraction=0.19,
        finetune_batches=400,
        finetune_rate=0.1,
        distill=0.9,
    ),
    # The article's protocol, with its number of batches: for a GPU.
    "paper": Config(
        image_size=64,
        train_images=48_000,
        batches=40_000,
        finetune_batches=8_000,
        curve_every=500,
        curve_images=2_000,
        checkpoint_every=2_000,
    ),
}


def default_preset(data: str | None) -> str:
    """Where options start from if no preset is named: `data` as in Config, None for its default."""
    return "laptop" if data in (None, "generated") else "photos"


def make_config(preset: str, **options: Any) -> Config:
    """A preset with some of its fields changed. Raises CourseError for an unknown preset or a bad
    value.
    """
    if preset not in PRESETS:
        raise CourseError(f"There is no preset {preset!r}: choose one of {', '.join(PRESETS)}.")
    return replace(PRESETS[preset], **options)


def command_words(config: Config, out: str) -> list[str]:
    """The shortest command that runs `config`, word by word; `out` is its folder.

    It starts from the preset that differs in the fewest options. A preset with a limit that
    `config` doesn't have can't serve, since no option takes a limit away; `laptop` has none.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    for name, preset in PRESETS.items():
        other = {k: v for k, v in config.to_dict().items() if v != getattr(preset, k)}
        if None not in other.values():
            found.append((name, other))
    preset_name, other = min(found, key=lambda item: len(item[1]))
    words = ["python", "-m", "course_lib", "run", "--preset", preset_name]
    for key, value in other.items():
        words += _option_words(key, value)
    return [*words, *_option_words("out", out)]


def _option_words(name: str, value: Any) -> list[str]:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    # With a blank, argparse would take a value that begins with a dash for an option.
    return [f"--{option}={value}"] if str(value).startswith("-") else [f"--{option}", str(value)]
