"""The local Sphinx extension of the site: addresses, scripts, and what the
configuration file cannot say."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from tools import vendor
from tools.chapters import lesson_notebook
from tools.lesson import linked, numbered
from tools.project import lessons, repository, site_address
from tools.site import public

LESSONS = {f"chapters/{lesson.name}": lesson for lesson in lessons()}


def configure(app: Sphinx, config: Config) -> None:
    """Addresses from ``pyproject.toml``, scripts from the site itself, results from the
    execution cache."""
    config.html_theme_options.update(
        repository_url=repository(),
        repository_branch="main",
        use_repository_button=True,
        use_issues_button=True,
    )
    config.html_baseurl = f"{site_address()}/"
    config.html_static_path.append(str(Path(__file__).parent / "static"))
    if vendor.FOLDER.is_dir():
        config.html_static_path.append(str(vendor.FOLDER))
    (config.mathjax_path,) = vendor.addresses("mathjax")
    config.mathjax_options = {"defer": "defer"}
    config.nb_ipywidgets_js = {
        address: {} for address in vendor.addresses("@jupyter-widgets/html-manager")
    }
    for package in ("source-serif-4", "source-sans-3"):
        for address in vendor.addresses(f"@fontsource-variable/{package}"):
            app.add_css_file(address, priority=400)
    if folder := os.environ.get("MTMM_EXECUTION_CACHE"):
        config.nb_execution_cache_path = folder


def prepare_source(app: Sphinx, page: str, content: list[str]) -> None:
    """Give a lesson's page the text of its source, where the notebook has what other
    front ends can show; give other pages the repository's address, and their links to
    chapters."""
    if lesson := LESSONS.get(page):
        for file in lesson.folder.glob("*.*"):
            app.env.note_dependency(str(file))
        content[0] = nbformat.writes(lesson_notebook(lesson, site=True))
    else:
        text = numbered(content[0]).replace("REPOSITORY", repository())
        content[0] = linked(text, "../" * page.count("/") + "chapters/")


def lighten(app: Sphinx, doctree: nodes.document) -> None:
    """Let every node belong to its page.

    What `eval-rst` parses belongs to a document of its own, through which the whole
    environment would be stored with each page of the reference, and read again twice.
    """
    for node in doctree.findall():
        node.document = doctree


def finish_page(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Leave out Thebe's scripts, which the book does not use and which clash; name the
    problem button; mend what a screen reader would stumble over."""

    def of_thebe(script: Any) -> bool:
        body = getattr(script, "attributes", {}).get("body", "")
        return "thebe" in f"{getattr(script, 'filename', '')} {body}"

    if "body" in context:
        context["body"] = accessible(context["body"])
    context["script_files"] = [
        script for script in context["script_files"] if not of_thebe(script)
    ]
    buttons = context.get("header_buttons", [])
    for button in [button for group in buttons for button in group.get("buttons", [])]:
        if button.get("label") == "source-issues-button":
            button["text"] = "report a problem"
    if page == app.config.root_doc:  # it explains, it is no lesson to open elsewhere
        context["header_buttons"] = [
            button for button in buttons if button.get("label") != "launch-buttons"
        ]


def accessible(body: str) -> str:
    """The HTML of a page with names that fit what is seen, no header cell without
    words, and parameters as the list that they are."""
    body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')  # of a list
    body = re.sub(r"<th[^>]*>(?:<p></p>)?</th>", "<td></td>", body)
    return _PARAMETERS.sub(
        lambda match: re.sub(
            r"<(/?)d([ld])>", lambda tag: f"<{tag[1]}{LIST[tag[2]]}>", match[0]
        ),
        body,
    )


LIST = {"l": "ul", "d": "li"}
_PARAMETERS = re.compile(
    r"<dl>\s*<dd><em class=\"sig-param\">.*?</dl>", flags=re.DOTALL
)

# What Markdown and reStructuredText write differently inside a line: code, mathematics,
# and characters that mean nothing in the one and something in the other.
_INLINE = re.compile(
    r"(?P<code>``?)(?P<text>[^`]+)(?P=code)|\$(?P<math>[^$]+)\$|(?P<special>[*|]|(?<=\w)_(?!\w))"
)


# A formula that stands by itself.
_FORMULA = re.compile(
    r"^(?P<indent> *)(?:\\\[|\$\$)\s*(?P<tex>.*?)\s*(?:\\\]|\$\$) *$",
    flags=re.DOTALL | re.MULTILINE,
)


def from_markdown(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Docstrings are in Markdown, which help() and JupyterLab show well; autodoc reads
    reStructuredText."""

    def inline(match: re.Match[str]) -> str:
        if match["code"]:
            # as in `Batch`es
            glue = "\\ " if match.string[match.end() :][:1].isalnum() else ""
            return f"``{' '.join(match['text'].split())}``{glue}"
        return rf":math:`{match['math']}`" if match["math"] else f"\\{match['special']}"

    def displayed(match: re.Match[str]) -> str:
        indent, formula = match["indent"], " ".join(match["tex"].split())
        return f"\n{indent}.. math:: {formula}\n"

    def converted(paragraph: str) -> str:
        made, end = "", 0
        for match in _FORMULA.finditer(paragraph):
            made += _INLINE.sub(inline, paragraph[end : match.start()])
            made += displayed(match)
            end = match.end()
        return made + _INLINE.sub(inline, paragraph[end:])

    def tabulated(paragraph: str) -> str:
        """A table, whose second line only divides."""
        head, _, *rows = paragraph.strip().split("\n")
        made = ".. list-table::\n   :header-rows: 1\n"
        for row in (head, *rows):
            cells = [converted(cell.strip()) for cell in row.strip()[1:-1].split(" | ")]
            made += "\n   * - " + "\n     - ".join(cells)
        return made

    # An indented paragraph is code, unless it goes on with a section such as Args.
    paragraphs, outside, in_code = [], True, False
    for paragraph in "\n".join(lines).split("\n\n"):
        if outside and paragraph.startswith("    "):
            head = "" if in_code else ".. code-block:: python\n    :force:\n\n"
            paragraphs.append(head + paragraph)
            in_code = True
        else:
            kind = tabulated if paragraph.startswith("| ") else converted
            paragraphs.append(kind(paragraph))
            outside = not paragraph.strip("\n").split("\n")[-1].startswith(" ")
            in_code = False
    lines[:] = "\n\n".join(paragraphs).split("\n")


def remove_old_pages(app: Sphinx, error: Exception | None) -> None:
    """Pages of sources that are gone would stay reachable, and be found by nobody but a
    search engine."""
    if error is None and app.builder.name == "html":
        present = {
            Path(app.builder.get_outfilename(name)) for name in app.env.found_docs
        }
        for folder in ("chapters", "pages"):
            for path in (Path(app.outdir) / folder).rglob("*.html"):
                if path not in present:
                    path.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    # before the theme and the notebook parser read it
    app.connect("config-inited", configure, priority=100)
    app.connect("source-read", prepare_source)
    app.connect("doctree-read", lighten)
    # after the theme made its buttons
    app.connect("html-page-context", finish_page, priority=900)
    app.connect("html-page-context", public.describe)
    # before napoleon reads the sections
    app.connect("autodoc-process-docstring", from_markdown, priority=100)
    app.connect("build-finished", remove_old_pages)
    app.connect("build-finished", public.write)
    # Sphinx copies style sheets only when it writes a page: there is always one to
    # write.
    app.connect("env-get-outdated", lambda app, *_: [app.config.root_doc])
    app.add_js_file("mathematics.js", priority=400)
    app.add_js_file("access.js")
    app.add_css_file("print.css", priority=900, media="print")  # after the others
    return {"parallel_read_safe": True, "parallel_write_safe": True}
