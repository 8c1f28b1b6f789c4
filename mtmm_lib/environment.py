"""What a machine says about itself: environment variables, and where a user may keep
files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def variable(name: str, default: str = "") -> str:
    """An environment variable; the empty string means the same as none."""
    return os.environ.get(name) or default


def whole_number(name: str, default: int, least: int = 0) -> int:
    """An environment variable that holds a whole number.

    Raises:
        ValueError: when it holds anything else, or less than `least`.
    """
    text = variable(name, str(default)).strip()
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{name} is a whole number from {least} on, got {text!r}")
    return int(text)


def own_folder(find: Callable[[str], str | Path], name: str) -> Path:
    """The user's folder `find(name)`, made or not; a temporary one where there can be
    none.

    A service, or a container under a number that is nobody's, has no home directory:
    `find` then raises a RuntimeError, or the folder's path begins with a "~" that
    nobody can tell, or lies where nothing may be written. A folder that exists is taken
    as it is.
    """
    try:
        usual = Path(find(name))
    except RuntimeError:
        usual = Path(name)
    if usual.is_absolute():
        nearest = next(path for path in (usual, *usual.parents) if path.exists())
        if nearest == usual or os.access(nearest, os.W_OK):
            return usual
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir(), f"{name}-{user}")
