"""The static site: whole, without a network, every link good, readable in light and dark."""

from __future__ import annotations

import importlib.util
import json
import posixpath
import re
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import course_notebooks as course
import pytest
from bs4 import BeautifulSoup
from lab import CHROMIUM, browser

from course_lib.errors import CourseError

ROOT = course.ROOT
CSS = (ROOT / "docs" / "site" / "page.css").read_text(encoding="utf-8")
LEAST_CONTRAST = 4.5  # WCAG 2, level AA, for text of ordinary size
LATEX = re.compile(r"\$\$.+?\$\$|\$[^$]+\$", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "site" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    builder().build(folder)
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> dict[str, BeautifulSoup]:
    """Address in the site → page."""
    return {
        path.relative_to(folder).as_posix(): BeautifulSoup(
            path.read_text(encoding="utf-8"), "html.parser"
        )
        for path in sorted(folder.rglob("*.html"))
    }


def test_every_notebook_and_document_has_its_page(site: dict[str, BeautifulSoup]) -> None:
    wanted = {f"notebooks/{path.stem}.html" for path in course.NOTEBOOKS}
    wanted |= {f"docs/{path.stem}.html" for path in ROOT.glob("docs/*.md")}
    assert wanted | {"index.html", "data/README.html", "LICENSE.html"} <= set(site)
    # ... and one can get there from every other page.
    for name, page in site.items():
        links = {
            posixpath.normpath(posixpath.join(posixpath.dirname(name), str(link["href"])))
            for link in page.select("header a, footer a")
        }
        assert links == wanted | {"index.html", "data/README.html"}, name
        assert page.select_one("header a[href$='glossary.html']"), f"{name}: above, where one reads"


@pytest.mark.parametrize("path", course.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_there_with_all_that_it_printed_and_showed(
    path: Path, site: dict[str, BeautifulSoup]
) -> None:
    page, notebook = site[f"notebooks/{path.stem}.html"], course.read(path)
    shown = [block.get_text().strip("\n") for block in page.select("main > .highlight")]
    assert shown == [cell.source.strip("\n") for cell in course.code_cells(notebook)]
    text = " ".join(page.select_one("main").get_text(" ").split())
    pictures = [image["src"].partition(",")[2] for image in page.select("figure img")]
    for cell in course.code_cells(notebook):
        for output in course.outputs(cell):
            if "image/png" in output.get("data", {}):
                assert pictures.pop(0) == output.data["image/png"].replace("\n", "")
            printed = output.get("text", "").replace("Figure: ", " ")
            for line in printed.splitlines():
                assert " ".join(line.split()) in text
    assert pictures == []
    solutions = re.findall(
        r'<details id="(solution-[\d.]+)">', json.dumps(notebook).replace("\\", "")
    )
    assert [fold["id"] for fold in page.select("details[id]")] == solutions
    assert not page.select("details[open]") and len(page.select("details > summary")) > 0


def test_notebooks_follow_one_another(site: dict[str, BeautifulSoup]) -> None:
    names = [f"{path.stem}.html" for path in course.NOTEBOOKS]
    for rel, shifted in (("prev", [None, *names[:-1]]), ("next", [*names[1:], None])):
        links = [site[f"notebooks/{name}"].select_one(f'a[rel="{rel}"]') for name in names]
        assert [link["href"] if link else None for link in links] == shifted


def test_the_first_page_tells_the_minutes_of_every_notebook(site: dict[str, BeautifulSoup]) -> None:
    rows = [row.select("td") for row in site["index.html"].select("tr:has(a[href^=notebooks])")]
    assert len(rows) == len(course.NOTEBOOKS)
    for path, row in zip(course.NOTEBOOKS, rows, strict=True):
        assert row[0].a["href"] == f"notebooks/{path.stem}.html"
        assert f"{row[-1].get_text()} minutes" in course.read(path).cells[0].source


def test_nothing_is_loaded_from_outside(folder: Path, site: dict[str, BeautifulSoup]) -> None:
    for name, page in site.items():
        assert page.select("script, iframe, object, embed, video, audio, base") == [], name
        assert [
            tag for tag in page.find_all(True) if any(key[:2] == "on" for key in tag.attrs)
        ] == []
        loaded = [tag["src"] for tag in page.select("[src]")]
        loaded += [tag["href"] for tag in page.select("link")]
        assert [url for url in loaded if ":" in url and not url.startswith("data:")] == [], name
    assert "url(" not in CSS and "@import" not in CSS
    assert (folder / "page.css").read_text(encoding="utf-8") == CSS


def test_every_link_leads_somewhere(folder: Path, site: dict[str, BeautifulSoup]) -> None:
    ids = {name: [tag["id"] for tag in page.select("[id]")] for name, page in site.items()}
    dead = [f"{name}: an id twice" for name, found in ids.items() if len(set(found)) < len(found)]
    for name, page in site.items():
        for tag in page.select("[href], [src]"):
            url = str(tag.get("href") or tag.get("src"))
            if url.startswith(("https://", "http://", "data:")):
                continue
            path, _, anchor = url.partition("#")
            target = (
                posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            )
            if not (folder / target).is_file() or (anchor and anchor not in ids[target]):
                dead.append(f"{name}: {url}")
    assert dead == []


def test_pages_can_be_read_without_seeing_them(site: dict[str, BeautifulSoup]) -> None:
    for name, page in site.items():
        assert page.html["lang"] == "en"
        assert page.title.get_text().startswith(page.h1.get_text())
        levels = [int(tag.name[1]) for tag in page.find_all(re.compile("^h[1-6]$"))]
        assert levels[0] == 1 and levels.count(1) == 1, name
        assert all(after <= before + 1 for before, after in pairwise(levels)), name
        assert [image for image in page.select("img") if not image.get("alt")] == [], name
        first = page.body.find("a")
        assert first["href"] == "#content" and page.select_one("main#content"), name
        labels = [nav.get("aria-label") for nav in page.select("nav")]
        assert None not in labels and len(set(labels)) == len(labels), name


def test_formulas_are_mathml_and_none_is_left_over(site: dict[str, BeautifulSoup]) -> None:
    for path in course.NOTEBOOKS:
        page, notebook = site[f"notebooks/{path.stem}.html"], course.read(path)
        source = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        formulas = LATEX.findall(CODE.sub("", "\n\n".join(source)))
        shown = page.select("main math")
        assert len(shown) == len(formulas), path.stem
        assert [math.get("display") == "block" for math in shown] == [
            formula.startswith("$$") for formula in formulas
        ]
        for math in shown:
            assert math.get_text().strip() and "\\" not in math.get_text()
    for name, page in site.items():
        words = [
            text
            for text in page.body.find_all(string=True)
            if not text.find_parent(["pre", "code"])
        ]
        assert not [text for text in words if "$" in text or "\\(" in text], name


def test_widgets_leave_a_word_and_no_markup(site: dict[str, BeautifulSoup]) -> None:
    for path in course.NOTEBOOKS:
        page = site[f"notebooks/{path.stem}.html"]
        asides = [aside.get_text() for aside in page.select(".aside")]
        assert "sliders move in JupyterLab" in asides[0]
        assert not [text for text in asides if "<" in text]
        assert not re.search(r"vnd\.jupyter|Loading widget|jupyter-widgets", str(page))


# ---- what a page can't be made of


@pytest.mark.parametrize(
    "text, said",
    [
        ("# A\n\n$\\nosuchcommand$", "a.md has a wrong formula, \\nosuchcommand: "),
        ("# A\n\n$$\\frac{1$$", "a.md has a wrong formula, \\frac{1: "),
        ("# A\n\n[b](b.md)", "a.md links to b.md, which is no file of the course."),
        ("# A\n\n[b](../b.md)", "a.md links to ../b.md, which is no file of the course."),
        ("# A\n\n![](a.md)", "The picture a.md in a.md needs an alt text."),
    ],
)
def test_what_cannot_be_shown_is_named(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = builder()
    (tmp_path / "course").mkdir()
    (tmp_path / "b.md").write_text("# Outside of the course")
    (tmp_path / "course" / "a.md").write_text(text)
    monkeypatch.setattr(module, "ROOT", tmp_path / "course")
    with pytest.raises(CourseError) as caught:
        module.Page(Path("a.md"))
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    "output, said",
    [
        ({"image/png": "iVBORw0KGgo="}, "The picture of a cell in a.ipynb needs an alt text."),
        ({"text/plain": "<Widget at rest>"}, "a.ipynb has an output that a page can't show: "),
        ({"image/svg+xml": "<svg/>"}, "a.ipynb has an output that a page can't show: "),
    ],
)
def test_outputs_that_cannot_be_shown_are_named(
    output: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, v4 = builder(), course.nbformat.v4
    cell = v4.new_code_cell("1", outputs=[v4.new_output("display_data", output)])
    course.nbformat.write(v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    with pytest.raises(CourseError) as caught:
        module.Page(Path("a.ipynb"))
    assert str(caught.value).startswith(said)


def test_headings_have_the_anchors_that_github_gives_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = builder()
    (tmp_path / "a.md").write_text("# It's `x` · 5 %\n\n## Data\n\n## Data\n\n## Data set\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    anchors = [heading.anchor for heading in module.Page(Path("a.md")).headings]
    assert anchors == ["its-x--5-", "data", "data-1", "data-set"]


def test_what_belongs_together_is_not_broken_over_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = builder()
    text = "# A\n\nA rate ($x$ or $y$) of 5 % and `a.py --final-batches 3`.\n\n![5 %](a.md)"
    (tmp_path / "a.md").write_text(text)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    page = BeautifulSoup(module.Page(Path("a.md")).body, "html.parser")
    parts = [part.get_text() for part in page.select(".whole")]
    assert parts == ["(x", "y)", "5 %", "--final-batches"]
    assert page.img["alt"] == "5 %"


# ---- contrast


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_definition() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # known to fall short


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(scheme: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", light if scheme == "light" else dark))
    texts = set(colours) - {"page", "card", "line"}
    assert texts == {"text", "muted", "accent", "keyword", "string", "number", "comment"}
    pairs = {(text, ground) for text in texts for ground in ("page", "card")}
    low = {pair for pair in pairs if contrast(*map(colours.__getitem__, pair)) < LEAST_CONTRAST}
    assert low == set()
    # No rule goes round the variables, but for the white that figures are drawn on.
    rest = CSS.replace(light, "").replace(dark, "")
    assert set(re.findall(r"#[0-9a-f]{3,6}\b|rgba?\(|hsl", rest)) == {"#fff"}


# ---- in a browser

SHOWN = ("index.html", "notebooks/03_vanishing_gradients.html", "docs/results.html")
SIZES = {"phone": {"width": 360, "height": 740}, "laptop": {"width": 1366, "height": 768}}
LINES = "e => e.map(e => parseFloat(getComputedStyle(e).lineHeight))"
BROKEN = "e => e.filter(e => e.getClientRects().length > 1).map(e => e.textContent)"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def chromium() -> Any:
    pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")
    with browser() as running:
        yield running


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pages_fit_and_show_without_a_network(
    size: str, scheme: str, folder: Path, chromium: Any
) -> None:
    context = chromium.new_context(viewport=SIZES[size], color_scheme=scheme)
    context.set_offline(True)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in sorted(folder.rglob("*.html")):
        name = path.relative_to(folder).as_posix()
        page.goto(path.as_uri())
        assert page.evaluate(OVERFLOW) <= 0, f"{name} is wider than the window"
        width = page.locator("main").bounding_box()["width"]
        assert width > 0.8 * min(SIZES[size]["width"], 1000), f"{name} is squeezed"
        lines = page.locator(".contents").evaluate_all(LINES) if size == "phone" else []
        assert all(line >= 24 for line in lines), f"{name}: too close for a thumb"
        assert page.locator("main .whole:visible").evaluate_all(BROKEN) == [], name
        for box in [formula.bounding_box() for formula in page.locator("math:visible").all()[:20]]:
            assert box is not None and box["width"] > 3 and box["height"] > 3, name
        if name in SHOWN:
            shot = ROOT / "runs" / "browser" / f"site-{path.stem}-{size}-{scheme}.png"
            page.screenshot(path=shot)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0  # it lies outside until it is focused
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_nothing_is_cut_off_on_paper(folder: Path, chromium: Any) -> None:
    page = chromium.new_page(viewport={"width": 718, "height": 1047})  # A4 with margins of 1 cm
    page.emulate_media(media="print")
    for path in sorted(folder.rglob("*.html")):
        page.goto(path.as_uri())
        cut = "e => e.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
        assert page.locator("pre, .scroll").evaluate_all(cut) == [], path.name
    page.close()
