"""The library's own code, shown in the text so that the two cannot drift apart."""

from __future__ import annotations

import ast
from inspect import getsource
from textwrap import dedent

from mtmm_lib.lesson import page

_STYLE = """<style>
.mtmm pre.mtmm-code{background:var(--mtmm-paper);color:var(--mtmm-ink);border:1px solid var(--mtmm-line);
border-radius:.4rem;padding:.7rem .9rem;margin:0;overflow-x:auto;font-size:.85rem;line-height:1.45;
white-space:pre}
.mtmm-code .k,.mtmm-code .kn,.mtmm-code .kc,.mtmm-code .ow{color:var(--mtmm-purple)}
.mtmm-code .nf,.mtmm-code .nc,.mtmm-code .fm,.mtmm-code .nd{color:var(--mtmm-blue)}
.mtmm-code .s1,.mtmm-code .s2,.mtmm-code .sd,.mtmm-code .sa,.mtmm-code .si{color:var(--mtmm-good)}
.mtmm-code .mi,.mtmm-code .mf{color:var(--mtmm-accent)}
.mtmm-code .c1{color:var(--mtmm-soft);font-style:italic}
</style>"""


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
    page.show(f'{_STYLE}<pre class="mtmm-code" tabindex="0">{code}</pre>', text)


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
                if not lines[
                    last
                ].strip():  # the empty line that sets a docstring apart
                    last += 1
                lines[first.lineno - 1 : last] = [None] * (last - first.lineno + 1)
    return "\n".join(line for line in lines if line is not None)
