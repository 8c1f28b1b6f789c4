"""The library's own code, shown in the text so that the two cannot drift apart."""

from __future__ import annotations

from html import escape
from inspect import cleandoc, getsource

from mtmm_lib.lesson import page


def source(obj: object, *, doc: bool = False) -> None:
    """Show the code of a function, class or module of the library.

    Args:
        obj: the function, method, class or module.
        doc: with its docstrings.
    """
    text = cleandoc(getsource(obj))
    page.show(f"<pre>{escape(text)}</pre>", text)
