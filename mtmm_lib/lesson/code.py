"""The library's own code, shown in the text so that the two cannot drift apart."""

from __future__ import annotations

import ast
from collections.abc import Callable
from inspect import getsource
from textwrap import dedent
from types import ModuleType
from typing import Any

from mtmm_lib.lesson import page


def source(obj: Callable[..., Any] | ModuleType, *, doc: bool = False) -> None:
    """Show the code of a function, method, class or module.

    Args:
        obj: of the library, or of the lesson itself.
        doc: with its docstrings.

    Raises:
        TypeError: when the object has no Python source.
    """
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    text = dedent(getsource(obj)).rstrip()
    if not doc:
        text = without_docstrings(text)
    code = highlight(text, PythonLexer(), HtmlFormatter(nowrap=True))
    page.show(
        f'{page.style("code")}<pre class="mtmm-code" tabindex="0">{code}</pre>', text
    )


def without_docstrings(text: str) -> str:
    """Python source with its docstrings cut out and everything else, comments included,
    as it was."""
    lines = text.split("\n")
    cut: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(
            node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        ):
            first = node.body[0]
            if ast.get_docstring(node) is not None and len(node.body) > 1:
                last = first.end_lineno or first.lineno
                # the empty line that sets a docstring apart
                if not lines[last].strip():
                    last += 1
                cut |= set(range(first.lineno - 1, last))
    return "\n".join(line for i, line in enumerate(lines) if i not in cut)
