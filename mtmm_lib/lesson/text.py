"""Texts with fields: `"{name}, from (9, 9): {share:.0%}"` and what to put there.

A text is written in one piece and filled in last, so that it can be translated before.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from torch import Tensor


class _Filler(string.Formatter):
    def format_field(self, value: Any, spec: str) -> str:
        return format(value, spec) if spec else show(value)


def fill(template: str, fields: Mapping[str, Any]) -> str:
    """The template with its fields, as `str.format` has it; without a format of its
    own a field is written by `show`. A template without fields stays as it is."""
    return _Filler().vformat(template, (), fields) if fields else template


def inline(text: str) -> str:
    """As HTML: escaped, with `code` and *emphasis* set as such."""
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"(?<!\w)\*([^*]+)\*(?!\w)", r"<em>\1</em>", html)


def show(value: Any, digits: int = 4) -> str:
    """A value in few characters: floats to some digits, large tensors by their shape,
    long lists by their beginning, functions by their name."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        if math.prod(value.shape) > 12:
            return f"tensor{list(value.shape)}"
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, Mapping):
        pairs = (f"{key!r}: {show(each, digits)}" for key, each in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        shown = [show(each, digits) for each in value[:12]]
        brackets = "()" if type(value) is tuple else "[]"  # a shape is [3]
        return ", ".join(shown + ["…"] * (len(value) > 12)).join(brackets)
    return str(getattr(value, "__name__", value))


def show_apart(one: Any, other: Any) -> tuple[str, str]:
    """Both values with as many digits as it takes to tell them apart."""
    for digits in range(4, 17):
        shown = show(one, digits), show(other, digits)
        if shown[0] != shown[1]:
            break
    return shown
