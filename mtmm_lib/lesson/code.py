"""The library's own code, shown in the text so that the two cannot drift apart."""

from __future__ import annotations

import ast
from inspect import getsource
from textwrap import dedent

from mtmm_lib.lesson import page


def source(obj: object, *, doc: bool = False) -> None:
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
    for node in ast.walk(ast.parse(text)):
        if isinstance(
            node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        ):
            first = node.body[0]
            if ast.get_docstring(node) is not None and len(node.body) > 1:
                last = first.end_lineno
                # the empty line that sets a docstring apart
                if not lines[last].strip():
                    last += 1
                lines[first.lineno - 1 : last] = [None] * (last - first.lineno + 1)
    return "\n".join(line for line in lines if line is not None)
