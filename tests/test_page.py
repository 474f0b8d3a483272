"""The report as a browser reads it: whole, self-contained, safe with any name, and true."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lab import CHROMIUM, browser
from PIL import Image
from tiny import TINY, tiny_data

from course_lib import measure, pictures, report
from course_lib.__main__ import make_parser
from course_lib.answers import changed
from course_lib.config import PRESETS, Config, command_words, make_config
from course_lib.iterate import iterate, make_loader
from course_lib.machine import quoted
from course_lib.markup import VOID, element, escape
from course_lib.page import MOST_EXAMPLES, finding, report_page
from course_lib.plots import alt_text

CPU = torch.device("cpu")
ODD = ("<b>bold</b>", "\"double\" & 'single'", "🚗 \udcff")
SAID = ("<b>bold</b>", "\"double\" & 'single'", "🚗 ?")  # as the page has to say them
DATA = replace(tiny_data(), classes=ODD, notes=("<script>alert(1)</script> was left out.",))
EMPTY = {*VOID, "meta"}


@dataclass
class Page(HTMLParser):
    """A page read from its source: its elements in order, and the text right inside each."""

    source: str
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    open: list[int] = field(default_factory=list)  # positions in texts, outermost first

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), "an attribute twice"
        self.seen.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in EMPTY:
            self.open.append(len(self.texts))
            self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.texts[self.open.pop()][0] == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open:
            tag, text = self.texts[self.open[-1]]
            self.texts[self.open[-1]] = (tag, text + data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.seen if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> dict[str, Any]:
    """A finished run of three rounds on classes with odd names."""
    out = tmp_path_factory.mktemp("page")
    config = replace(TINY, data="a 'folder' & <more>", gate=False)
    with pytest.MonkeyPatch.context() as patch:
        quick = measure.images_per_second
        patch.setattr(measure, "images_per_second", lambda n, i: quick(n, i, passes=1, seconds=0))
        state = iterate(config, DATA, out, CPU, progress=False)
        summary = report.finish(state, DATA, out, CPU)
    loader = make_loader(config, DATA, CPU)
    before, after = (report.answer(out / n, loader, config) for n in ("full.pt", "network.pt"))
    return {"out": out, "state": state, "summary": summary, "before": before, "after": after}


@pytest.fixture(scope="module")
def page(run) -> Page:
    return Page((run["out"] / "report.html").read_text(encoding="utf-8"))


def again(run: dict[str, Any], **changes: Any) -> Page:
    """The page of the run with another summary, history, or other answers, and no figures."""
    summary = changes.get("summary", run["summary"])
    history = changes.get("history", run["state"].history)
    before, after = changes.get("before", run["before"]), changes.get("after", run["after"])
    return Page(report_page(summary, history, {}, DATA.test, before, after))


def test_every_element_is_closed_in_its_turn(page):
    assert page.open == [] and len(page.seen) > 200


def test_the_page_says_its_language_and_its_title(page):
    assert page.all("html") == [{"lang": "en"}]
    (title,) = page.text("title")
    assert title == page.text("h1")[0] == "Pruning report: ResNet-18 on tiny"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )


def test_headings_leave_no_step_out(page):
    levels = [int(tag[1]) for tag, _ in page.seen if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_every_picture_is_inside_the_page_and_has_words(page):
    images = page.all("img")
    assert len([i for i in images if i["class"] == "plot"]) == 4
    for image in images:
        kind, content = re.fullmatch(r"data:image/([\w+]+);base64,(.+)", image["src"]).groups()
        begins = {"png": b"\x89PNG", "svg+xml": b"<?xml"}[kind]
        assert base64.b64decode(content, validate=True).startswith(begins)
        assert image["alt"]


def test_nothing_is_run_or_fetched(page):
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.seen:
        assert not [name for name in attributes if name.startswith("on")]
        addresses = {"href", "src", "srcset", "action"} & set(attributes)
        assert all(attributes[name].startswith("data:") for name in addresses), tag
    (style,) = page.text("style")
    assert "url(" not in style and "@import" not in style
    assert "://" not in page.source


def test_every_header_of_a_table_says_what_it_heads_and_every_table_what_it_holds(page):
    assert {a.get("scope") for a in page.all("th")} == {"row", "col"}
    assert all(page.text("th")), "none is empty"
    assert (
        len(page.all("table"))
        == len(page.all("caption"))
        == len([*filter(None, page.text("caption"))])
    )


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_captions_can_be_read_on_a_phone_without_scrolling(page):
    pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")
    with browser() as chromium:
        shown = chromium.new_page(viewport={"width": 360, "height": 740})
        shown.set_content(page.source)
        wide = "captions => captions.map(caption => caption.getBoundingClientRect().right)"
        assert max(shown.locator("caption").evaluate_all(wide)) <= 360


def test_odd_names_are_only_ever_text(page):
    assert not page.all("b") and not page.all("script")
    headers = page.text("th")
    for name in SAID:
        assert headers.count(name) == 5, "by class, and rows and columns of two matrices"
    assert DATA.notes[0] in page.text("li")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text):
    """The oracle is the standard library's parser."""
    found = Page(element("p", text, title=text))
    assert found.all("p") == [{"title": text}]
    assert Page(element("p", element("b"), text)).text("p") == [text]
    assert escape(escape(text)) == escape(text)


def test_a_gate_is_told_of_only_where_there_was_one(run, page):
    assert "The full network and the last one" in page.text("caption")
    with_gate = {**run["summary"], "config": {**run["summary"]["config"], "gate": True}}
    captions = again(run, summary=with_gate).text("caption")
    assert "The full network and the last one that passed the gate" in captions


def test_the_tables_hold_the_measured_numbers(run, page):
    source, summary = page.source, run["summary"]
    for name in ("full", "final"):
        matrix = summary[name]["test_confusion"]
        assert sum(map(sum, matrix)) == len(DATA.test.labels)
    matrices = re.findall(r'<table class="confusion">.*?</table>', source, re.DOTALL)
    cells = [[int(n) for n in Page(text).text("td")] for text in matrices]
    assert cells == [
        [count for row in summary[name]["test_confusion"] for count in row]
        for name in ("full", "final")
    ]
    rounds = source.split("Round by round")[1].split("</table>")[0]
    assert rounds.count("<tr>") == 1 + len(run["state"].history)
    assert f"{summary['final']['test_balanced_accuracy']:.2%}" in page.text("td")
    assert f"{summary['final']['parameters']:,}" in page.text("td")


def test_the_examples_are_images_whose_answer_changed(run):
    random = torch.Generator().manual_seed(1)
    before, after = (torch.randint(0, 3, (80,), generator=random) for _ in range(2))
    after[40:] = before[40:]
    kinds = changed(torch.tensor(DATA.test.labels), before, after)
    assert max(map(len, kinds.values())) > MOST_EXAMPLES
    found = again(run, before=before, after=after)
    images = [image for image in found.all("img") if image["class"] != "plot"]
    expected = [i for found in kinds.values() for i in found[:MOST_EXAMPLES]]
    assert [int(re.match(r"Test image (\d+),", i["alt"])[1]) for i in images] == expected
    for image, i in zip(images, expected, strict=True):
        assert image["alt"].endswith(SAID[DATA.test.labels[i]])
        assert np.array_equal(pixels(image["src"]), DATA.test.images[i])
    captions = [text for text in found.text("figcaption") if text.startswith(": full network")]
    assert captions == [
        f": full network {SAID[before[i]]}, pruned {SAID[after[i]]}" for i in expected
    ]


def test_no_changed_answer_is_said(run):
    assert again(run, after=run["before"]).text("p").count("None.") == 3


def pixels(address: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) as image:
        return np.asarray(image)


def test_images_are_embedded_grey_or_scaled_down():
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (20, 30, 1), dtype=np.uint8)
    assert np.array_equal(pixels(pictures.image_uri(grey)), grey[:, :, 0])
    large = np.full((1024, 1024, 3), (10, 200, 90), dtype=np.uint8)
    small = pixels(pictures.image_uri(large))
    assert small.shape == (192, 192, 3) and (small == (10, 200, 90)).all()


def test_too_many_classes_for_a_matrix_give_a_list_of_mistakes(run):
    classes = [f"class {i}" for i in range(40)]
    matrix = (5 * np.eye(40, dtype=int)).tolist()
    matrix[3][7] = 4
    network = {
        "test_confusion": matrix,
        "test_accuracy_by_class": dict.fromkeys(classes, 1.0),
    }
    summary = {**run["summary"], "data": {**run["summary"]["data"], "classes": classes}}
    summary |= {name: {**summary[name], **network} for name in ("full", "final")}
    found = again(run, summary=summary)
    assert not [table for table in found.all("table") if table.get("class") == "confusion"]
    mistakes = found.source.split("The most frequent mistakes")[2].split("</table>")[0]
    assert Page(mistakes.split("</thead>")[1]).text("td") == ["class 7", "4", "4"]


def test_a_class_without_test_images_has_no_accuracy(run):
    summary = dict(run["summary"])
    for name in ("full", "final"):
        matrix = [[9, 1, 0], [0, 0, 0], [0, 0, 8]]
        shares = dict(zip(ODD, [0.9, None, 1.0], strict=True))
        summary[name] = {
            **summary[name],
            "test_confusion": matrix,
            "test_accuracy_by_class": shares,
        }
    rows = again(run, summary=summary).source.split("Class by class")[1].split("</table>")[0]
    assert Page(rows.split("</thead>")[1]).text("td")[4:8] == ["0", "–", "–", "–"]


@pytest.mark.parametrize(
    ("passed", "change", "words"),
    [
        (1, -0.0123, "After 1 round of pruning, the ResNet-18 has 25.0% of its parameters"),
        (1, -0.0123, "1.23 points less than the full network (80.00%); round 2 did not recover."),
        (1, 0.0, "80.00% of 80 test images rightly, as many as the full network"),
        (1, 0.05, "5.00 points more than the full network"),
        (0, 0.0, "was kept whole, since no round of pruning recovered"),
    ],
)
def test_the_finding_is_one_true_sentence(run, passed, change, words):
    ratios = {"parameters": 0.25, "images_per_second": 2.0, "test_accuracy_change": change}
    summary = {**run["summary"], "rounds_passed": passed, "ratios": ratios}
    summary |= {"full": {"test_accuracy": 0.8}, "final": {"test_accuracy": 0.8 + change}}
    history = [{"passed": True}] * (passed + 1) + [{"passed": False}]
    sentence = finding(summary, history)
    assert words in sentence and sentence.count(". ") == 0 and sentence.endswith(".")


def test_the_finding_says_why_there_were_fewer_rounds_than_asked_for(run):
    asked = {"config": {**run["summary"]["config"], "rounds": 5}}
    sentence = finding({**run["summary"], **asked}, run["state"].history)
    assert "; round 3 took the batches saved for the last round, and so was the last." in sentence
    assert "took the batches" not in finding(run["summary"], run["state"].history)


def test_the_finding_stands_first(run, page):
    sentence = finding(run["summary"], run["state"].history)
    assert page.text("p")[0] == sentence and sentence.startswith("After 3 rounds")


def test_the_page_is_there_before_the_summary_that_says_so(run, tmp_path, monkeypatch):
    for name in ("full.pt", "network.pt"):
        (tmp_path / name).write_bytes((run["out"] / name).read_bytes())
    write = report.checkpoint.write_text

    def dies(path: Path, text: str) -> None:
        if path.name == "summary.json":
            raise KeyboardInterrupt
        write(path, text)

    readings = {str(line["round"]): [1.0] for line in run["state"].history}
    monkeypatch.setattr(report, "time_rounds", lambda *_: readings)
    monkeypatch.setattr(report.checkpoint, "write_text", dies)
    state = replace(run["state"], history=[dict(line) for line in run["state"].history])
    with pytest.raises(KeyboardInterrupt):
        report.finish(state, DATA, tmp_path, CPU)
    assert (tmp_path / "report.html").exists() and not (tmp_path / "summary.json").exists()
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    "config",
    [
        *PRESETS.values(),
        Config(data="my photos/it's <here>", seed=3, rate=0.07, gate=False, flip=False),
        Config(data="-dash", base_width=8, projection_norm=False, label_smoothing=1e-7),
        replace(PRESETS["paper"], image_size=None, weight_decay=0.0),
        replace(PRESETS["smoke"], train_images=None, gate=True, criterion="bn_scale"),
        replace(PRESETS["smoke"], data="🚗; rm -rf $HOME\n"),
    ],
)
def test_the_command_repeats_the_run(config):
    words = command_words(config, "-new folder")
    assert words[:3] == ["python", "-m", "course_lib"]
    options = vars(make_parser().parse_args(words[3:]))
    assert (options.pop("command"), str(options.pop("out"))) == ("run", "-new folder")
    assert make_config(options.pop("preset"), **options) == config


def test_the_command_is_as_short_as_it_can_be(run, page):
    assert command_words(PRESETS["smoke"], "x")[3:] == ["run", "--preset", "smoke", "--out", "x"]
    assert page.text("code") == [quoted(command_words(run["state"].config, "again"))]


def test_the_command_is_quoted_for_windows_there(run, monkeypatch):
    monkeypatch.setattr("course_lib.machine.sys.platform", "win32")
    assert '''--data "a 'folder' & <more>"''' in again(run).text("code")[0]


def test_widths_are_drawn_and_told():
    full, final = {"stem": 64, "a": 128, "b": 10}, {"stem": 32, "a": 32, "b": 9}
    figure = pictures.widths_figure(full, final)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [32, 32, 9, 64, 128, 10]
    assert [text.get_text() for text in figure.axes[0].texts] == [
        *(" 32 of 64", " 32 of 128", " 9 of 10")
    ]
    for words in ("73 of 202", "36.1%", "25% in a (32 of 128)", "90% in b (9 of 10)"):
        assert words in alt_text(figure)
    assert pictures.figure_uri(figure) == pictures.figure_uri(pictures.widths_figure(full, final))
