"""The tables of speed_limit.py, scaling.py and gpu.py, each from its record."""

from __future__ import annotations

from statistics import median
from typing import Any

Row = dict[str, Any]
PARTS = {
    "conv1": "stem",
    **{f"layer{n}": f"stage {n}" for n in range(1, 5)},
    "fc": "last layer",
    "rest": "the rest",
}


def mac_ratios(run: Row) -> dict[str, float]:
    """How many times fewer MACs each pruned network has than the full one."""
    full = run["networks"]["full"]["macs"]
    return {name: full / of["macs"] for name, of in run["networks"].items() if name != "full"}


def networks_table(run: Row) -> str:
    """The widths that were pruned to."""
    rows = ["| widths | of the stages | parameters left | MACs: times fewer |", "|---|---|---|---|"]
    full, ratios = run["networks"]["full"], mac_ratios(run)
    for name, of in run["networks"].items():
        share = of["parameters"] / full["parameters"]
        stages = ", ".join(str(width) for width in dict.fromkeys(of["widths"]))
        rows.append(f"| {name} | {stages} | {share:.1%} | {ratios.get(name, 1.0):.2f} |")
    return "\n".join(rows)


def times(ratio: list[float]) -> str:
    """A ratio and its range, as `timed` has them."""
    middle, low, high = ratio
    return f"×{middle:.2f} ({low:.2f}–{high:.2f})"


def speed_rows(run: Row, rows: list[Row], name: Any) -> list[str]:
    """A line for each way and width: speed-up, its share of the MAC ratio, gain over "plain"."""
    ratios, lines = mac_ratios(run), []
    for row in rows:
        if "skipped" in row:
            lines.append(f"| {name(row)} | | not measured: {row['skipped']} | | |")
            continue
        lines.append(f"| {name(row)} | full | | | {times(row['gain']['full'])} |")
        for widths, ratio in row["speedup"].items():
            share = ratio[0] / ratios[widths]
            lines.append(
                f"| {name(row)} | {widths} | {times(ratio)} | {share:.0%} "
                f"| {times(row['gain'][widths])} |"
            )
    return lines


def best(rows: list[Row]) -> tuple[Row, str]:
    """The row and the widths with the most images per second."""
    found = [(row, widths) for row in rows for widths in row.get("speedup", {})]
    return max(found, key=lambda one: one[0]["rates"][one[1]])


HEAD = [
    "| run with | widths | speed-up over the full network | of the MAC ratio |"
    " gain over the full network, run plainly |",
    "|---|---|---|---|---|",
]


def limit_table(run: Row) -> str:
    """Speed-up on the CPU: the networks, then a table for each batch size and the best of it."""
    blocks = [networks_table(run)]
    for batch in dict.fromkeys(row["batch"] for row in run["rows"]):
        rows = [row for row in run["rows"] if row["batch"] == batch]
        row, widths = best(rows)
        made = sum(len(one.get("speedup", {})) for one in rows)
        ratios = mac_ratios(run)
        reached = sum(
            round(ratio[0] / ratios[name], 2) >= 0.8
            for one in rows
            for name, ratio in one.get("speedup", {}).items()
        )
        blocks += [
            f"{batch} image{'s' * (batch > 1)} at a time:",
            "\n".join([*HEAD, *speed_rows(run, rows, lambda row: row["way"])]),
            f"The most images per second: {row['way']}, widths {widths}, "
            f"{times(row['gain'][widths])} as many as the full network run plainly. {reached} of "
            f"{made} combinations reach 80% of the ratio of MACs or more.",
        ]
    counts = [f"{name} {of[0]} of {of[1]}" for name, of in run["blocked_convolutions"].items()]
    blocks.append(
        "Convolutions that ONNX Runtime computes in blocks of channels: " + ", ".join(counts) + "."
    )
    return "\n\n".join(blocks)


def part_table(run: Row) -> str:
    """Where the time goes at the largest batch, and how each part's time and MACs go down."""
    batch = max(run["by_part"], key=int)
    parts = run["by_part"][batch]
    pruned = [name for name in parts if name != "full"]
    rows = [
        "| part | full: share of time | " + " | ".join(f"{n}: time (MACs)" for n in pruned) + " |",
        "|---" * (2 + len(pruned)) + "|",
    ]
    whole = {name: sum(part["ms"] for part in of.values()) for name, of in parts.items()}
    for part, words in PARTS.items():
        full = parts["full"][part]
        cells = [ratio_cell(full, parts[name][part]) for name in pruned]
        rows.append(f"| {words} | {full['ms'] / whole['full']:.1%} | {' | '.join(cells)} |")
    ratios = mac_ratios(run)
    cells = [f"×{whole['full'] / whole[name]:.2f} (×{ratios[name]:.2f})" for name in pruned]
    return "\n".join([*rows, f"| in all | | {' | '.join(cells)} |"])


def ratio_cell(full: Row, narrow: Row) -> str:
    """How many times less time and, where there are any, MACs."""
    time = f"×{full['ms'] / narrow['ms']:.2f}" if narrow["ms"] > 0 < full["ms"] else "–"
    return f"{time} (×{full['macs'] / narrow['macs']:.2f})" if narrow["macs"] else time


# ---- several processes


def scaling_table(run: Row) -> str:
    """Two processes against one: training steps, with and without the exchange."""
    rows = [
        "| network | one process, s a step | two, s a step | speed-up | without the exchange |"
        " gradients a step | statistics a step |",
        "|---|---|---|---|---|---|---|",
    ]
    one, two = ([row for row in run["rows"] if row["processes"] == n] for n in (1, 2))
    for name in ("full", "pruned"):
        alone = median(row[name]["together"] for row in one)
        together = median(row[name]["together"] for row in two)
        pairs = list(zip(one, two, strict=True))
        ratios, apart = (
            [a[name]["together"] / b[name][way] for a, b in pairs] for way in ("together", "alone")
        )
        row = two[0][name]
        rows.append(
            f"| {name} | {alone:.2f} | {together:.2f} | {times(spread(ratios))} "
            f"| {times(spread(apart))} | {row['gradient_bytes'] / 1e6:.1f} MB "
            f"| {row['statistics_bytes'] / 1e3:.0f} kB |"
        )
    return "\n".join(rows)


def spread(values: list[float]) -> list[float]:
    """Median, lowest, highest."""
    return [median(values), min(values), max(values)]


def surgery_table(run: Row) -> str:
    """What one round's surgery costs, part by part, in one process and in two."""
    names = {
        "surgery": "groups, scores, selection, surgery, momentum: in the first process",
        "sending": "its result sent to the others and read there",
        "wrapping": "the network wrapped anew",
        "first": "the first step, beyond a later one",
        "later step": "for comparison: a later step",
    }
    rows = ["| | one process, s | two processes, s |", "|---|---|---|"]
    for key, words in names.items():
        cells = []
        for processes in (1, 2):
            found = [r["surgery"] for r in run["rows"] if r["processes"] == processes]
            cells.append(f"{median(surgery_part(one, key) for one in found):.3f}")
        rows.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(rows)


def surgery_part(found: Row, key: str) -> float:
    """One line of that table; what is measured together is taken apart."""
    if key == "sending":
        return found["surgery and sending"] - found["surgery"]
    if key == "first":
        return found["first step"] - found["later step"]
    return found[key]


# ---- the GPU


def gpu_speed_table(run: Row) -> str:
    """Full against pruned on the GPU: a table for each batch size."""
    blocks = [networks_table(run)]
    for batch in dict.fromkeys(row["batch"] for row in run["rows"]):
        rows = [row for row in run["rows"] if row["batch"] == batch]
        lines = speed_rows(run, rows, lambda row: f"{row['way']}, {row['precision']}")
        blocks += [f"{batch} image{'s' * (batch > 1)} at a time:", "\n".join([*HEAD, *lines])]
    return "\n\n".join(blocks)


def gpu_ceiling_table(run: Row) -> str:
    """Training images per second against what the device's matrix products would allow."""
    rows = ["| batch | loop | images per second | of the ceiling |", "|---|---|---|---|"]
    for batch, rates in run["rates"].items():
        for name, (middle, low, high) in rates.items():
            share = middle / run["ceiling"]
            rows.append(
                f"| {batch} | {name} | {middle:,.0f} ({low:,.0f}–{high:,.0f}) | {share:.1%} |"
            )
    words = (
        f"The ceiling, {run['ceiling']:,.0f} images per second, is what {run['product_flops']:.3g} "
        f"floating-point operations per second would give, measured with a bfloat16 product of "
        f"matrices of {run['product_size']:,}."
    )
    return "\n".join([*rows, "", words])


def gpu_paper_table(run: Row) -> str:
    """The article's protocol: the full network and the last one that passed."""
    full, final, ratios = (run["summary"][name] for name in ("full", "final", "ratios"))
    low, high = ratios["images_per_second_range"]
    short = "" if run["shortened"] == 1 else f" All batches divided by {run['shortened']}."
    return "\n".join(
        [
            "| full: test | pruned: test | change, points | parameters left | MACs left |"
            " images per second | rounds that passed | minutes |",
            "|---|---|---|---|---|---|---|---|",
            f"| {full['test_accuracy']:.2%} | {final['test_accuracy']:.2%} "
            f"| {100 * ratios['test_accuracy_change']:+.2f} | {ratios['parameters']:.1%} "
            f"| {ratios['macs']:.1%} | ×{ratios['images_per_second']:.2f} ({low:.2f}–{high:.2f}) "
            f"| {run['summary']['rounds_passed']} | {run['seconds'] / 60:.1f} |",
            "",
            f"The `paper` preset in bfloat16, channels-last.{short}",
        ]
    )


def gpu_tests(run: Row) -> str:
    """CPU and GPU agree, in a sentence."""
    failed = ", ".join(run["failed"]) or "none"
    return (
        f"Tests that compare CPU and GPU: {run['passed']} passed, {run['skipped']} skipped, "
        f"failed: {failed}."
    )
