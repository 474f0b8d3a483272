"""The course as a static site: `make site`, or `python docs/site/build.py FOLDER`.

Every page is made from a file as it is stored: the README, the documents, the notebooks with their
outputs. Nothing is run and nothing is fetched; the pages need neither a script nor a network.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from math_core import LatexError, LatexToMathML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from course_lib.errors import CourseError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
README, GLOSSARY = Path("README.md"), Path("docs/glossary.md")
FORMULAS = LatexToMathML(fancy_error=False)
TEMPLATE = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
).get_template("page.html.j2")


class Heading(NamedTuple):
    """A heading of a page; `html` is what stands in it."""

    level: int
    anchor: str
    html: str


def sources() -> list[Path]:
    """The files that become pages whether or not one links to them, the README first."""
    found = [*sorted(ROOT.glob("notebooks/[0-9][0-9]_*.ipynb")), *sorted(ROOT.glob("docs/*.md"))]
    return [README, *(path.relative_to(ROOT) for path in found), Path("data/README.md")]


def place(source: Path) -> Path:
    """Where in the site the page lies that is made from this file."""
    if source == README:
        return Path("index.html")
    page = source.suffix in (".ipynb", ".md")
    return source.with_suffix(".html") if page else source.with_name(f"{source.name}.html")


def address(target: Path, page: Path) -> str:
    """The link to a file of the site on the page that is made from the source `page`."""
    return Path(os.path.relpath(target, place(page).parent)).as_posix()


class Page(IPythonRenderer):
    """What goes between the head and the foot of a page: `body`, with its headings.

    Markdown becomes HTML: headings get anchors, links lead from page to page, formulas are MathML.
    The files that the page links to are in `linked`, the pictures it shows in `pictures`. Raises
    CourseError, naming page and thing, for a formula that can't be converted, a link that leads
    nowhere, a picture without alt text, and an output that is neither picture nor text.
    """

    def __init__(self, source: Path) -> None:
        super().__init__(escape=False)
        self.source = source
        self.headings: list[Heading] = []
        self.linked: set[Path] = set()
        self.pictures: set[Path] = set()
        self.body = "\n".join(self._pieces())

    @property
    def title(self) -> str:
        return plain(self.headings[0].html)

    def _pieces(self) -> Iterator[str]:
        if self.source.suffix == ".ipynb":
            for cell in nbformat.read(ROOT / self.source, as_version=4).cells:
                yield from self._cell(cell)
            return
        text = (ROOT / self.source).read_text(encoding="utf-8")
        if self.source.suffix != ".md":  # a file to be shown as it is
            text = f"# {self.source.as_posix()}\n\n~~~~~~\n{text}\n~~~~~~"
        yield self._html(with_minutes(text) if self.source == README else text)

    def _cell(self, cell: Any) -> Iterator[str]:
        if cell.cell_type == "markdown":
            yield self._html(cell.source)
        elif cell.cell_type == "code":
            yield highlight(cell.source, PythonLexer(), HtmlFormatter())
            captions = []
            for output in cell.outputs:
                details = output.get("metadata", {}).get("image/png", {})
                captions += [f"Figure: {details['alt']}"] if "alt" in details else []
                yield self._output(output, details, captions)

    def _output(self, output: Any, details: dict[str, Any], captions: list[str]) -> str:
        """What a cell printed or showed. A figure's text, printed after it, is its caption here."""
        data = output.get("data", {})
        if output.output_type == "stream":
            text = output.text
            for caption in captions:
                text = re.sub(r"\s+".join(map(re.escape, caption.split())), "", text, count=1)
            return f'<pre class="output">{escape(text)}</pre>' if (text := text.strip("\n")) else ""
        if "image/png" in data:
            return self._figure(data["image/png"], details)
        if "text/markdown" in data:
            return self._html(data["text/markdown"])
        if "text/html" in data:
            return f'<div class="scroll">{data["text/html"]}</div>'
        if (text := data.get("text/plain", "<")).startswith("<"):  # the name of an object
            raise CourseError(f"{self.source} has an output that a page can't show: {output}")
        return f'<p class="aside">{escape(text)}</p>'

    def _html(self, markdown: str) -> str:
        html = MarkdownWithMath(renderer=self).render(markdown)
        # Browsers would break between a formula and its bracket or comma, and between 5 and %.
        return whole(r"[^\s<>]*<math>.*?</math>[^\s<>]*|\d+ %(?![^<>]*>)", html)

    def codespan(self, text: str) -> str:
        return whole(r"[^\s<>]*-[^\s<>]*", super().codespan(text))  # browsers would break --options

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        anchor = re.sub(r"[^\w\- ]", "", plain(text).lower()).replace(" ", "-")  # as on GitHub
        same = sum(plain(heading.html) == plain(text) for heading in self.headings)
        anchor += f"-{same}" if same else ""
        self.headings.append(Heading(level, anchor, text))
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if not re.match(r"[a-z]+:|#", url):
            path, mark, anchor = url.partition("#")
            self.linked.add(target := self._file(path))
            url = address(place(target), self.source) + mark + anchor
        return super().link(text, url, title)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        self.pictures.add(self._file(url))
        return f'<img src="{escape(url)}" alt="{self._alt(text, url)}">'

    def _figure(self, png: str, details: dict[str, Any]) -> str:
        alt, wide = self._alt(details.get("alt", ""), "of a cell"), details.get("width", 768)
        url = f"data:image/png;base64,{''.join(png.split())}"
        # The caption is the alt text, which is read aloud, so it is there for the eye only.
        return (
            f'<figure><div class="scroll"><img src="{url}" alt="{alt}" style="--wide: {wide}px">'
            f'</div><figcaption aria-hidden="true">{alt}</figcaption></figure>'
        )

    def table(self, text: str) -> str:
        table = f"<table>\n{text}</table>"
        return f'<div class="scroll" role="group" aria-label="Table" tabindex="0">{table}</div>\n'

    def block_math(self, body: str) -> str:
        return f'<div class="scroll">{self._formula(body, alone=True)}</div>'

    def inline_math(self, body: str) -> str:
        return self._formula(body, alone=False)

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")

    def _formula(self, latex: str, alone: bool) -> str:
        try:
            return str(FORMULAS.convert_with_local_state(latex, displaystyle=alone))
        except LatexError as error:
            raise CourseError(f"{self.source} has a wrong formula, {latex}: {error}") from None

    def _alt(self, text: str, name: str) -> str:
        if not text:
            raise CourseError(f"The picture {name} in {self.source} needs an alt text.")
        return escape(text)

    def _file(self, path: str) -> Path:
        found = (ROOT / self.source.parent / path).resolve()
        if not (found.is_file() and found.is_relative_to(ROOT)):
            raise CourseError(f"{self.source} links to {path}, which is no file of the course.")
        return found.relative_to(ROOT)


def whole(pattern: str, html: str) -> str:
    """The HTML, with each match of the pattern kept on one line."""
    return re.sub(pattern, r'<span class="whole">\g<0></span>', html, flags=re.DOTALL)


def plain(html: str) -> str:
    """A line of HTML without its tags."""
    return re.sub(r"<[^>]*>", "", html)


def minutes(source: Path) -> str:
    """How long a notebook takes with its exercises, as its first cell says."""
    first = nbformat.read(ROOT / source, as_version=4).cells[0].source
    stated = re.findall(r"(\d+) minutes", first)
    if len(stated) != 1:
        raise CourseError(f"The first cell of {source} has to state its minutes once.")
    return str(stated[0])


def with_minutes(readme: str) -> str:
    """The README, its table of notebooks with one more column: minutes, read from the notebooks."""
    head = re.compile(r"^(\| notebook \|.*\|)\n(\|[-|]+\|)$", re.MULTILINE)
    row = re.compile(r"^\| \[[^\]]*\]\((notebooks/[^)]*)\).*\|$", re.MULTILINE)
    readme = head.sub(r"\1 minutes |\n\2---|", readme)
    return row.sub(lambda match: f"{match[0]} {minutes(Path(match[1]))} |", readme)


def write(page: Page, named: list[Page], out: Path) -> None:
    """Write a page into the site, with links to the `named` pages."""
    lessons = [other for other in named if other.source.suffix == ".ipynb"]
    html = TEMPLATE.render(
        page=page,
        to=lambda other: address(place(other.source), page.source),
        style=address(Path("page.css"), page.source),
        home=named[0],
        lessons=lessons,
        glossary=next(other for other in named if other.source == GLOSSARY),
        at=lessons.index(page) if page in lessons else None,
        documents=[other for other in named[1:] if other not in lessons],
    )
    target = out / place(page.source)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(html, encoding="utf-8", newline="\n")


def build(out: Path) -> list[Page]:
    """Write the site into a folder and give back its pages; what else lies there stays.

    Raises CourseError for what a page can't be made of; see Page.
    """
    named = [Page(source) for source in sources()]
    linked = {target for page in named for target in page.linked} - {page.source for page in named}
    pages = [*named, *map(Page, sorted(linked))]
    for page in pages:
        write(page, named, out)
    for picture in {picture for page in pages for picture in page.pictures}:
        (out / picture).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / picture, out / picture)
    shutil.copyfile(HERE / "page.css", out / "page.css")
    return pages


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the course as a static site.")
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "build" / "site")
    out = parser.parse_args().out
    try:
        pages = build(out)
    except CourseError as error:
        raise SystemExit(str(error)) from None
    print(f"{len(pages)} pages: open {out / 'index.html'}")


if __name__ == "__main__":
    main()
