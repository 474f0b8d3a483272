"""report.html: what a run bought, on one page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from string import Template
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from course_lib import pictures
from course_lib.answers import changed
from course_lib.config import Config, command_words
from course_lib.data import Split
from course_lib.machine import quoted
from course_lib.markup import STYLE, Safe, element, escape, scrolling, table
from course_lib.plots import alt_text

Record = Mapping[str, Any]
Section = Sequence[Safe]

MOST_CLASSES = 24  # a confusion matrix of more classes than this can't be read
MOST_EXAMPLES = 6  # images shown of each kind of changed answer
MOST_MISTAKES = 20  # shown where there are too many classes for a matrix
DARKEST = 0.5  # of a shaded cell: its number stays readable, in dark mode too
CAPTIONS = {
    "accuracy": "The article's figure 6: accuracy right after each surgery and after its"
    " fine-tuning.",
    "size": "The article's figure 7: what is left of the network after each round.",
    "throughput": "The article's figure 8: images per second of each round's network, all timed"
    " in turn at the end, batch norm folded into the convolutions.",
    "widths": "Each bar is a group of filters that can only be removed together, named after its"
    " first convolution. Outline: the full network. Filled: what is left.",
}
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")


def report_page(
    summary: Record,
    history: Sequence[Record],
    figures: Mapping[str, Figure],
    test: Split,
    before: Tensor,
    after: Tensor,
) -> str:
    """The page as HTML.

    `figures`: by name, in their order; each with its alt text. `before`, `after`: int64 [N], what
    the full and the final network answered to the images of `test`.
    """
    title = f"Pruning report: ResNet-{summary['config']['depth']} on {summary['data']['name']}"
    sections = [
        [element("h1", title), element("p", finding(summary, history), class_="finding")],
        _comparison(summary),
        [element("h2", "The run in figures"), *(_figure(*item) for item in figures.items())],
        _rounds(history),
        _widths(history, summary["rounds_passed"]),
        _classes(summary),
        _examples(summary["data"]["classes"], test, before, after),
        _provenance(summary),
    ]
    body = "\n".join(part for section in sections for part in section)
    return PAGE.substitute(title=escape(title), style=STYLE, body=body)


def finding(summary: Record, history: Sequence[Record]) -> str:
    """What came out, in one sentence."""
    full, final, ratios = summary["full"], summary["final"], summary["ratios"]
    network, images = f"ResNet-{summary['config']['depth']}", summary["data"]["images"]["test"]
    rounds = summary["rounds_passed"]
    if not rounds:
        why = "no round of pruning recovered" if len(history) > 1 else "no pruning was asked for"
        return (
            f"The {network} was kept whole, since {why}; it names {full['test_accuracy']:.2%}"
            f" of {images:,} test images rightly."
        )
    points = round(100 * ratios["test_accuracy_change"], 2)
    against = "as many as"
    if points:
        against = f"{abs(points):.2f} points {'less' if points < 0 else 'more'} than"
    stopped = ""
    if not history[-1]["passed"]:
        stopped = f"; round {rounds + 1} did not recover"
    elif rounds < summary["config"]["rounds"]:
        stopped = f"; round {rounds} took the batches saved for the last round, and so was the last"
    return (
        f"After {rounds} {'round' if rounds == 1 else 'rounds'} of pruning, the {network} has"
        f" {ratios['parameters']:.1%} of its parameters, classifies"
        f" {ratios['images_per_second']:.2f} times as many images per second, and names"
        f" {final['test_accuracy']:.2%} of {images:,} test images rightly, {against} the full"
        f" network ({full['test_accuracy']:.2%}){stopped}."
    )


def _comparison(summary: Record) -> Section:
    full, final, ratios = summary["full"], summary["final"], summary["ratios"]
    rows: list[list[object]] = [
        [
            name,
            *(f"{network[key] / unit:,.{places}f}" for network in (full, final)),
            f"{ratios[key]:.1%}",
        ]
        for name, key, unit, places in [
            ("Removable filters", "filters", 1, 0),
            ("Parameters", "parameters", 1, 0),
            ("Megabytes", "bytes", 1e6, 2),
            ("Million MACs", "macs", 1e6, 1),
        ]
    ]
    low, high = ratios["images_per_second_range"]
    speeds = [f"{network['images_per_second']:,.0f}" for network in (full, final)]
    ratio = f"×{ratios['images_per_second']:.2f} ({low:.2f} to {high:.2f})"
    rows.append(["Images per second", *speeds, ratio])
    for name, key in [
        ("Validation accuracy", "val_accuracy"),
        ("Test accuracy", "test_accuracy"),
        ("Balanced test accuracy", "test_balanced_accuracy"),
    ]:
        points = 100 * (final[key] - full[key])
        rows.append([name, f"{full[key]:.2%}", f"{final[key]:.2%}", f"{points:+.2f} points"])
    columns = ("Measured", "Full network", "Pruned network", "Pruned against full")
    gate = " that passed the gate" if summary["config"]["gate"] else ""
    return [
        element("h2", "Full against pruned"),
        table(f"The full network and the last one{gate}", columns, rows),
        element(
            "p",
            "Balanced accuracy is the mean of the accuracies of the classes, so that a small class"
            " counts as much as a large one. MACs are the multiply-accumulates of convolutions and"
            " linear layers for one image. The range behind the speed is that of the passes in"
            " which all rounds were timed in turn.",
        ),
    ]


def _figure(name: str, figure: Figure) -> Safe:
    text = alt_text(figure)
    image = element("img", src=pictures.figure_uri(figure), alt=text, class_="plot")
    caption = element("figcaption", CAPTIONS[name])
    return element("figure", scrolling(image, f"Figure: {name}"), caption)


def _rounds(history: Sequence[Record]) -> Section:
    full = history[0]
    rows = [
        [
            line["round"],
            f"{line['filters']:,}",
            f"{line['parameters'] / full['parameters']:.1%}",
            f"{line['macs'] / full['macs']:.1%}",
            f"{line['images_per_second']:,.0f}",
            _percent(line["val_accuracy_pruned"]),
            _percent(line["val_accuracy"]),
            _percent(line.get("val_balanced_accuracy")),
            "yes" if line["passed"] else "no: rolled back",
        ]
        for line in history
    ]
    columns = [
        *("Round", "Filters", "Parameters", "MACs", "Images per second"),
        *("Right after pruning", "After fine-tuning", "Balanced", "Passed"),
    ]
    caption = "Round 0 is the full network; accuracies are on the validation images"
    return [element("h2", "Round by round"), table(caption, columns, rows)]


def _widths(history: Sequence[Record], last: int) -> Section:
    full = history[0]["widths"]
    final = next(line["widths"] for line in history if line["round"] == last)
    rows = [[name, full[name], final[name], f"{final[name] / full[name]:.0%}"] for name in full]
    numbers = table("Filters per group", ("Group", "Full", "Pruned", "Left"), rows)
    return [
        element("h2", "The network before and after"),
        _figure("widths", pictures.widths_figure(full, final)),
        element("details", element("summary", "The same as a table"), numbers),
    ]


def _classes(summary: Record) -> Section:
    classes = summary["data"]["classes"]
    full, final = summary["full"], summary["final"]
    images = [sum(row) for row in full["test_confusion"]]
    rows = []
    for name, count in zip(classes, images, strict=True):
        shares = [network["test_accuracy_by_class"][name] for network in (full, final)]
        change = f"{100 * (shares[1] - shares[0]):+.1f}" if count else "–"
        rows.append([name, f"{count:,}", *map(_percent, shares), change])
    columns = ("Class", "Test images", "Full network", "Pruned network", "Change in points")
    parts = [
        element("h2", "Class by class"),
        table("The share of each class's test images that is named rightly", columns, rows),
    ]
    if len(classes) > MOST_CLASSES:
        return [*parts, _mistakes(classes, full["test_confusion"], final["test_confusion"])]
    parts.append(
        element(
            "p",
            "In the two tables below a row is a true class and a column an answer. Blue cells are"
            " right answers, orange cells mistakes; the stronger the colour, the larger the share"
            " of the row.",
        )
    )
    pair = [
        element("div", element("h3", name), _confusion(name, classes, network["test_confusion"]))
        for name, network in (("The full network", full), ("The pruned network", final))
    ]
    return [*parts, element("div", *pair, class_="pair")]


def _confusion(name: str, classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> Safe:
    rows = []
    for i, counts in enumerate(matrix):
        total = sum(counts) or 1
        cells = [
            element(
                "td",
                f"{count:,}",
                class_="right" if i == j else "wrong" if count else "none",
                style=f"--shade:{_shade(count / total, right=i == j):.3f}",
            )
            for j, count in enumerate(counts)
        ]
        rows.append([classes[i], *cells])
    caption = f"{name}: a row for each true class, a column for each answer"
    return table(caption, ("True class", *classes), rows, class_="confusion")


def _shade(share: float, right: bool) -> float:
    """How strong a cell's colour is: a few mistakes must be seen among many right answers."""
    return DARKEST * (share if right else min(1.0, 2.5 * share**0.5))


def _mistakes(
    classes: Sequence[str], full: Sequence[Sequence[int]], final: Sequence[Sequence[int]]
) -> Safe:
    """The most frequent mistakes, where a matrix would be too large to read."""
    size = range(len(classes))
    counts = [(full[i][j], final[i][j], i, j) for i in size for j in size if i != j]
    worst = sorted(counts, key=lambda item: -item[0] - item[1])[:MOST_MISTAKES]
    rows = [[classes[i], classes[j], a, b] for a, b, i, j in worst if a + b]
    columns = ("Class", "Taken for", "Full network", "Pruned network")
    return table("The most frequent mistakes; all are in summary.json", columns, rows)


def _examples(classes: Sequence[str], test: Split, before: Tensor, after: Tensor) -> Section:
    labels = test.labels.tolist()
    kinds = changed(before.new_tensor(labels), before, after)
    total = sum(map(len, kinds.values()))
    parts = [
        element("h2", "Test images whose answer changed"),
        element(
            "p", f"The two networks answer {total:,} of {len(labels):,} test images differently."
        ),
    ]
    for kind, found in kinds.items():
        shown = f", the first {MOST_EXAMPLES} of them" if len(found) > MOST_EXAMPLES else ""
        parts.append(element("h3", f"{kind.capitalize()}: {len(found):,}{shown}"))
        items = []
        for i in found[:MOST_EXAMPLES]:
            names = [classes[int(which)] for which in (labels[i], before[i], after[i])]
            items.append(element("li", _example(i, test, *names)))
        parts.append(element("ul", *items, class_="examples") if items else element("p", "None."))
    return parts


def _example(i: int, test: Split, truth: str, before: str, after: str) -> Safe:
    pixels = test.images[i]
    size = "small" if max(pixels.shape[:2]) < pictures.SMALL_EXAMPLE else "large"
    alt = f"Test image {i}, of class {truth}"
    image = element("img", src=pictures.image_uri(pixels), alt=alt, class_=size)
    words = (element("strong", truth), f": full network {before}, pruned {after}")
    return element("figure", image, element("figcaption", *words))


def _provenance(summary: Record) -> Section:
    """What somebody needs to repeat the run."""
    config, data, pairs = summary["config"], summary["data"], summary["machine"].items()
    counts = [f"{count:,} for {part}" for part, count in data["images"].items()]
    notes = [f"{data['name']}: {data['image_size']} pixels, images: {', '.join(counts)}."]
    notes += data["notes"]
    options = [
        [f.name, "–" if config[f.name] is None else config[f.name], f.metadata["help"]]
        for f in fields(Config)
    ]
    return [
        element("h2", "How it was made"),
        element("h3", "The command that repeats it, in a new folder"),
        element("pre", element("code", quoted(command_words(Config(**config), "again")))),
        element("h3", "Data"),
        element("ul", *(element("li", note) for note in notes)),
        element("h3", "Machine and versions"),
        table("What the figures were measured on", ("What", "Value"), pairs, class_="words"),
        element("h3", "Configuration"),
        table("Every option", ("Option", "Value", "Meaning"), options, class_="words"),
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
