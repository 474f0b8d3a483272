"""The figures of a run draw what they were given, and say it in words."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from course_lib import plots
from course_lib.plots.criteria import clusters_figure
from course_lib.plots.from_scratch import plan_figure
from course_lib.plots.knobs import loop_figure
from course_lib.pruning.criteria.cosine import absorption_heights, merges

Records = list[dict[str, Any]]

# A run made up for these tests: three rounds, of which the last didn't pass. The ratios are worked
# by hand: 750/1000 = 75 %, 500/1000 = 50 %, 240/1000 = 24 %; images per second 1.5, 2.0, 4.0.
HISTORY: Records = [
    {
        "round": number,
        "filters": filters,
        "parameters": parameters,
        "bytes": 4 * parameters + 100,
        "macs": macs,
        "images_per_second": speed,
        "val_accuracy_pruned": pruned,
        "val_accuracy": accuracy,
        "batches": batches,
        "seconds": 1.0,
        "passed": passed,
    }
    for number, filters, parameters, macs, speed, pruned, accuracy, batches, passed in [
        (0, 40, 1000, 8000, 100.0, None, 0.96, 50, True),
        (1, 36, 750, 5000, 150.0, 0.81, 0.955, 70, True),
        (2, 32, 500, 3200, 200.0, 0.73, 0.948, 90, True),
        (3, 28, 240, 1600, 400.0, 0.42, 0.90, 110, False),
    ]
]
CURVE: Records = [
    {"batches": batches, "phase": phase, "accuracy": accuracy}
    for batches, phase, accuracy in [
        (0, "base", 0.12),
        (50, "base", 0.95),
        (50, "round 1", 0.80),
        (70, "round 1", 0.95),
        (70, "round 2", 0.74),
        (90, "round 2", 0.94),
        (90, "round 3", 0.41),
        (110, "round 3", 0.90),
    ]
]
FIGURES = {
    "accuracy": lambda history: plots.accuracy_figure(CURVE, history),
    "size": plots.size_figure,
    "throughput": plots.throughput_figure,
}


def line(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    """The x and y of the line with that label, read back from the axes."""
    (found,) = [item for item in axes.lines if item.get_label() == label]
    return list(np.asarray(found.get_xdata())), list(np.asarray(found.get_ydata()))


def title(figure: Figure) -> str:
    return figure.axes[0].get_title(loc="left")


def test_accuracy_draws_the_curve_and_both_ends_of_every_round() -> None:
    axes = plots.accuracy_figure(CURVE, HISTORY).axes[0]
    batches, accuracies = line(axes, "during training")
    assert batches == [point["batches"] for point in CURVE]
    assert accuracies == [point["accuracy"] for point in CURVE]
    assert line(axes, "right after pruning") == ([50, 70, 90], [0.81, 0.73, 0.42])
    assert line(axes, "after fine-tuning") == ([70, 90, 110], [0.955, 0.948, 0.90])
    assert line(axes, "full network")[1] == [0.96, 0.96]
    assert line(axes, "failed the gate") == ([110], [0.90])


def test_accuracy_marks_each_pruning_moment_once() -> None:
    axes = plots.accuracy_figure(CURVE, HISTORY).axes[0]
    # What axvline draws reaches from the bottom (0) to the top (1) of the axes.
    upright = [item for item in axes.lines if list(np.asarray(item.get_ydata())) == [0, 1]]
    assert [np.asarray(item.get_xdata())[0] for item in upright] == [50, 70, 90]


def test_a_run_of_a_few_batches_has_whole_ones_on_its_axis() -> None:
    curve = [{"batches": n, "accuracy": 0.5} for n in (4, 5)]
    figure = plots.accuracy_figure(curve, [dict(HISTORY[0], batches=4)])
    figure.draw_without_rendering()
    labels = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert {"4", "5"} <= set(labels) and len(set(labels)) == len(labels)


@pytest.mark.parametrize("last", [25, 425])
def test_numbers_of_short_rounds_do_not_touch(last: int) -> None:
    """Sixteen rounds of 25 batches after 450; the last one may be longer."""
    rounds = [dict(HISTORY[0], round=n, batches=450 + 25 * n, passed=True) for n in range(17)]
    rounds[16]["batches"] += last - 25
    for record in rounds[1:]:
        record["val_accuracy_pruned"] = 0.9
    figure = plots.accuracy_figure(CURVE, rounds)
    figure.draw_without_rendering()
    (top,) = figure.axes[0].child_axes
    labels = [label.get_window_extent() for label in top.get_xticklabels()]
    assert [label.get_text() for label in top.get_xticklabels()][:: len(labels) - 1] == ["1", "16"]
    assert all(before.x1 + 2 < after.x0 for before, after in pairwise(labels))


def test_accuracy_axis_holds_every_drop_but_not_the_start_of_base_training() -> None:
    floor, top = plots.accuracy_figure(CURVE, HISTORY).axes[0].get_ylim()
    assert 0.12 < floor < 0.41
    assert 1.0 < top < 1.05


def test_size_draws_shares_of_the_full_network() -> None:
    axes = plots.size_figure(HISTORY).axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == [1.0, 0.75, 0.5, 0.24]
    assert line(axes, "bytes")[1] == [1.0, 3100 / 4100, 2100 / 4100, 1060 / 4100]
    assert line(axes, "filters") == ([0, 1, 2, 3], [1.0, 0.9, 0.8, 0.7])
    assert [text.get_text() for text in axes.texts] == ["100%", "75%", "50%", "24%"]
    assert line(axes, "failed the gate") == ([3], [0.24])


def test_throughput_draws_speed_and_what_the_macs_allow() -> None:
    axes = plots.throughput_figure(HISTORY).axes[0]
    assert line(axes, "measured images per second") == ([0, 1, 2, 3], [1.0, 1.5, 2.0, 4.0])
    assert line(axes, "if time followed the MACs") == ([0, 1, 2, 3], [1.0, 1.6, 2.5, 5.0])
    assert line(axes, "failed the gate") == ([3], [4.0])
    assert [text.get_text() for text in axes.texts] == ["1.0", "1.5", "2.0", "4.0"]


def test_throughput_leaves_out_rounds_that_were_not_timed() -> None:
    untimed = [dict(record) for record in HISTORY]
    untimed[1]["images_per_second"] = None
    axes = plots.throughput_figure(untimed).axes[0]
    assert line(axes, "measured images per second")[0] == [0, 2, 3]
    none = [record | {"images_per_second": None} for record in HISTORY]
    figure = plots.throughput_figure(none)
    assert [item.get_label() for item in figure.axes[0].lines] == ["if time followed the MACs"]
    assert "weren't measured" in title(figure)


def test_titles_are_computed_from_the_last_network_that_passed() -> None:
    # Round 3 failed, so all speak of round 2: 94.8 − 96.0 = −1.2 points; 500 / 1000; 200 / 100.
    assert title(plots.accuracy_figure(CURVE, HISTORY)) == (
        "After 2 rounds: 94.8% validation accuracy, 1.2 points under the full network's 96.0%"
    )
    assert title(plots.size_figure(HISTORY)) == (
        "After 2 rounds, 50.0% of the full network's parameters are left"
    )
    assert title(plots.throughput_figure(HISTORY)) == (
        "After 2 rounds: 2.00 times the images per second with 40.0% of the MACs"
    )
    passed = [*HISTORY[:3], HISTORY[3] | {"passed": True, "val_accuracy": 0.97}]
    assert "97.0% validation accuracy, 1.0 points over" in title(
        plots.accuracy_figure(CURVE, passed)
    )


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("accuracy", ["96.0%", "94.8%", "2 rounds", "110 batches", "round 3, at 42.0%"]),
        ("size", ["1,000 parameters", "50.0%", "(500)", f"{2100 / 4100:.1%}", "80.0%"]),
        ("throughput", ["100 images", "200", "2.00 times", "40.0%", "2.50 times"]),
    ],
)
def test_alt_text_holds_the_numbers(name: str, numbers: list[str]) -> None:
    text = plots.alt_text(FIGURES[name](HISTORY))
    assert [number for number in numbers if number not in text] == []
    assert text.endswith("Round 3 did not pass the gate.")
    assert "did not pass" not in plots.alt_text(FIGURES[name](HISTORY[:3]))


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_short_histories_are_drawn(name: str, rounds: int, tmp_path: Path) -> None:
    figure = FIGURES[name](HISTORY[:rounds])
    plots.save(figure, tmp_path / "figure.png")
    wanted = {0: "no round has ended yet", 1: "full network", 2: "1 round"}
    assert wanted[rounds] in title(figure).lower()
    assert plots.alt_text(figure)


def test_accuracy_without_a_curve_still_draws_the_rounds() -> None:
    axes = plots.accuracy_figure([], HISTORY).axes[0]
    assert line(axes, "after fine-tuning")[0] == [70, 90, 110]
    assert "during training" not in [item.get_label() for item in axes.lines]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("rounds", [4, 16, 60])
def test_labels_are_legible_and_stay_inside(name: str, rounds: int) -> None:
    long = [
        HISTORY[1]
        | {"round": r, "batches": 50 + 20 * r, "parameters": 1000 - 10 * r, "macs": 8000 - 90 * r}
        for r in range(1, rounds)
    ]
    figure = FIGURES[name]([HISTORY[0], *long])
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 9
    assert len(figure.axes[0].texts) <= plots.rounds.MOST_LABELS
    width = figure.bbox.width
    outer = figure.axes[0].get_tightbbox()
    assert outer is not None
    for box in (outer, figure.legends[0].get_window_extent()):
        assert box.x0 >= 0 and box.x1 <= width


def test_saved_png_is_800_wide_carries_its_alt_text_and_repeats_exactly(tmp_path: Path) -> None:
    for name in ("one", "two"):
        plots.save(plots.size_figure(HISTORY), tmp_path / f"{name}.png")
    with Image.open(tmp_path / "one.png") as image:
        assert image.size == (800, 450)
        assert image.info["Description"] == plots.alt_text(plots.size_figure(HISTORY))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


# ---- drawings of the notebooks


def test_a_plan_is_drawn_from_counted_macs() -> None:
    """By hand: 10·100 + 5·60 + 5·20 = 1400 for pruning, 20·20 = 400 for the small network: 29 %."""
    figure = plan_figure([(10, 100), (5, 60), (5, 20)])
    pruning, small = figure.axes
    assert [bar.get_height() for bar in pruning.patches] == [1.0, 0.6, 0.2]
    assert [bar.get_x() for bar in pruning.patches] == [0, 10, 15]
    assert [(bar.get_width(), bar.get_height()) for bar in small.patches] == [(20, 0.2)]
    assert "2 rounds of 5 batches, each cheaper, the last at 20%" in figure.get_label()
    assert "all 20 batches at 20%, 29% of that area" in figure.get_label()


@pytest.mark.parametrize("seed", range(5))
def test_a_dendrogram_says_which_filter_of_a_cluster_stays(seed: int) -> None:
    vectors = torch.randn(6, 2, generator=torch.Generator().manual_seed(seed))
    merged, heights = merges(vectors), absorption_heights(vectors)
    # A cut between the third and the fourth of five merges leaves three clusters.
    cut = (merged[2][2] + merged[3][2]) / 2
    stay = [name for name, height in zip("ABCDEF", heights, strict=True) if height > cut]
    label = clusters_figure("ABCDEF", vectors.numpy(), merged, cut).get_label()
    assert f"leaves 3 clusters, and of each the longest filter stays: {', '.join(stay)}." in label
    gone, keeps, height = merged[0]
    assert f"merging: {'ABCDEF'[gone]} into {'ABCDEF'[keeps]} at {height:.2f}, " in label


def test_the_loop_has_its_steps_and_its_three_ways_on() -> None:
    figure = loop_figure()
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words[:6] == ["train", "score", "select", "remove", "fine-tune", "check"]
    assert {"within the tolerance: next round", "not yet: fine-tune once more", "still not"} <= set(
        words
    )
    assert len(figure.axes[0].patches) == 5 + 3
