"""How a lesson shows things: HTML that reads well on light and dark pages, beside it
plain text and data.

The data (of a claim, of a footer) travels in the output's metadata under the key
"mtmm": every front end leaves it alone, and `records` reads it from an executed
notebook.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

KEY = "mtmm"
# For terminals that lack the book's marks.
_STAND_INS = str.maketrans({"✓": "+", "✗": "-", "◐": "~", "○": "o", "−": "-"})

LIGHT = (
    "--mtmm-ink:#1b2733;--mtmm-soft:#56646f;--mtmm-line:#b9c4cd;"
    "--mtmm-paper:#f5f7f9;--mtmm-accent:#ad4600;"
    "--mtmm-glow:#fdeadb;--mtmm-good:#00724f;--mtmm-bad:#b3261e;--mtmm-open:#6a5200;"
    "--mtmm-blue:#0072b2;--mtmm-green:#008a64;--mtmm-purple:#b0568d;"
    "--mtmm-amber:#b87800;--mtmm-grey:#86919a"
)
DARK = (
    "--mtmm-ink:#e9eef2;--mtmm-soft:#a9b5bf;--mtmm-line:#4d5a66;"
    "--mtmm-paper:#1d252d;--mtmm-accent:#ff9a4d;"
    "--mtmm-glow:#45290f;--mtmm-good:#4fd1a5;--mtmm-bad:#ff8a80;--mtmm-open:#e6c34a;"
    "--mtmm-blue:#5ab4ef;--mtmm-green:#3fc79a;--mtmm-purple:#e08fc0;"
    "--mtmm-amber:#e69f00;--mtmm-grey:#8c979f"
)


def attended() -> bool:
    """Whether a reader sits at this notebook: whoever runs the cell can be asked
    something with `input`.

    JupyterLab, VS Code and Colab offer that. What builds the site, tests or grades runs
    notebooks without.
    """
    from IPython import get_ipython

    return getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", False)


@cache
def static(name: str) -> str:
    """A style sheet or a script of the folder `static`, as in `static("drawn.css")`."""
    return (files("mtmm_lib.lesson") / "static" / name).read_text(encoding="utf-8")


def style(name: str) -> str:
    """The rules that an output takes along, beside those of every output."""
    return f"<style>\n{static(f'{name}.css')}</style>"


# Each output carries its own few rules: cells may be cleared, moved or shown alone. The
# dark colours apply where the site, JupyterLab, VS Code or Colab say that they are
# dark.
_STYLE = f"""<style>
.mtmm{{{LIGHT}}}
html[data-theme="dark"] .mtmm,body[data-jp-theme-light="false"] .mtmm,
body.vscode-dark .mtmm,html[theme="dark"] .mtmm{{{DARK}}}
{static("page.css")}</style>"""


def printable(text: str) -> str:
    """The text for a terminal, which may lack some characters, as Windows' code pages
    do: the book's marks have a stand-in, a question mark takes the place of others."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_STAND_INS).encode(encoding, "replace").decode(encoding)
    return text


class _Shown:
    def __init__(
        self,
        html: str,
        plain: str,
        record: dict[str, Any] | None,
        png: bytes | None,
    ) -> None:
        self.html, self.plain, self.record, self.png = html, plain, record, png

    def __repr__(self) -> str:
        return printable(self.plain)

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"text/html": self.html, "text/plain": self.plain}
        if self.png is not None:
            data["image/png"] = base64.b64encode(self.png).decode()
        return data, {KEY: self.record} if self.record else {}


def wrap(html: str, classes: str = "") -> str:
    """HTML with the colours and rules that it needs, ready for any page."""
    return f'{_STYLE}<div class="mtmm {classes}">{html}</div>'


def captioned(html: str, words: str) -> str:
    """A figure of HTML with the sentence under it, if there is one."""
    if words:
        html += f'<figcaption class="mtmm-soft">{escape(words)}</figcaption>'
    return f"<figure>{html}</figure>"


def show(
    html: str,
    plain: str,
    record: dict[str, Any] | None = None,
    classes: str = "",
    png: bytes | None = None,
) -> None:
    """Show HTML in a notebook, the picture `png` in what is made of it for print, the
    plain text where there is neither. The text in `html` is escaped already."""
    from IPython.display import display

    display(_Shown(wrap(html, classes), plain, record, png))


def box(
    html: str,
    plain: str,
    tone: str,
    *,
    label: str = "",
    role: str = "note",
    record: dict[str, Any] | None = None,
) -> None:
    """`show` in a marked box of the tone "good", "bad" or "open"."""
    name = f' aria-label="{label}"' if label else ""
    show(
        f'<div role="{role}"{name} class="mtmm-box mtmm-{tone}">{html}</div>',
        plain,
        record,
    )


def records(
    notebook: dict[str, Any], kind: str | None = None
) -> Iterator[dict[str, Any]]:
    """The data in an executed notebook's outputs, in order.

    Args:
        notebook: as `nbformat.read` or `json.load` returns it.
        kind: "claim", "footer" or "start"; `None`: all. The claims of a box come one
            by one.
    """
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            record = output.get("metadata", {}).get(KEY)
            for each in record.get("claims", [record]) if record else ():
                if kind in (None, each["kind"]):
                    yield dict(each)
