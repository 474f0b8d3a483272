"""HTML in small pieces: elements, tables, and the style of the report.

Whatever isn't `Safe` is escaped, so that a class called `<b>` is only ever text.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

VOID = ("img",)  # elements without content have no end tag


class Safe(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: object) -> Safe:
    """The value as text in HTML; what is `Safe` stays as it is.

    File names can hold bytes that are no text; each becomes a question mark.
    """
    if isinstance(value, Safe):
        return value
    return Safe(html.escape(str(value).encode("utf-8", "replace").decode("utf-8")))


def element(tag: str, *content: object, **attributes: object) -> Safe:
    """<tag attributes>content</tag>; `class_` is written class, `aria_label` aria-label."""
    words = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
    )
    inner = "".join(escape(item) for item in content)
    return Safe(f"<{tag}{words}>" if tag in VOID else f"<{tag}{words}>{inner}</{tag}>")


def table(
    caption: str, columns: Sequence[object], rows: Iterable[Sequence[object]], **attributes: object
) -> Safe:
    """A table whose first column names its rows; cells that are <td> already stay as they are.

    It scrolls sideways by itself where the screen is narrow, and can be reached by keyboard then.
    """
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    body = [
        element("tr", element("th", row[0], scope="row"), *map(_cell, row[1:]), "\n")
        for row in rows
    ]
    whole = element(
        "table",
        element("caption", caption),
        element("thead", head, "\n"),
        element("tbody", *body),
        **attributes,
    )
    return scrolling(whole, caption)


def scrolling(content: Safe, label: str) -> Safe:
    """Content that may be wider than a phone."""
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


def _cell(value: object) -> Safe:
    ready = isinstance(value, Safe) and value.startswith("<td")
    return Safe(value) if ready else element("td", value)


# Blue for right and orange for wrong are told apart by colour-blind people (Okabe and Ito); both
# are laid over the page's own colour, so that its text can be read on them in light and in dark.
STYLE = """
:root { color-scheme: light dark; --text: #1b1d21; --muted: #5b6068; --page: #fff;
  --card: #f3f4f6; --line: #c9cdd3; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e7e9; --muted: #a6abb3; --page: #15171b; --card: #20242a;
    --line: #434850; --accent: #6cb8ea; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem 1.25rem 3rem;
  font: 1rem/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); }
h1 { font-size: 1.7rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .25rem; }
.finding { font-size: 1.2rem; border-left: .3rem solid var(--accent); padding-left: 1rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 1rem 0; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { max-width: calc(100vw - 2.5rem); padding: .25rem 0; text-align: left;
  color: var(--muted); }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
thead th { vertical-align: bottom; }
th:first-child, .words th, .words td { text-align: left; }
.words td { overflow-wrap: anywhere; }
tbody th { font-weight: 600; }
.confusion td { min-width: 2.2rem; padding: .25rem .3rem; text-align: center;
  border: 1px solid var(--line); background: rgb(230 159 0 / var(--shade, 0)); }
.confusion td.right { background: rgb(0 114 178 / var(--shade, 0)); font-weight: 700; }
.confusion td.none { color: var(--muted); }
.confusion th { padding: .25rem .3rem; }
@media (max-width: 40rem) { th, td { padding: .25rem .35rem; } }
figure { margin: 1.5rem 0; }
figcaption { color: var(--muted); font-size: .9rem; max-width: 46rem; }
.plot { display: block; width: 100%; min-width: 34rem; max-width: 56rem; background: #fff;
  padding: .5rem; border-radius: .3rem; }
.pair { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
.pair > div { min-width: 0; max-width: 100%; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr));
  gap: 1rem; padding: 0; margin: .75rem 0; list-style: none; }
.examples figure { margin: 0; }
.examples img { display: block; width: 100%; max-width: 12rem; border-radius: .3rem; }
.small { image-rendering: pixelated; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); padding: .8rem 1rem;
  border-radius: .3rem; }
@media print {
  :root { color-scheme: light; --text: #000; --muted: #444; --page: #fff; --card: #f3f4f6;
    --line: #bbb; --accent: #0072b2; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; }
  .plot { min-width: 0; max-width: 100%; }
  h2, h3 { break-after: avoid; }
  tr, figure, pre, .confusion { break-inside: avoid; } }
"""
