"""A file that is replaced as a whole, or stays as it was."""

from __future__ import annotations

import glob
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STALE = 3600  # seconds without a write, after which its writer is dead


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A context with a file of its own beside `path`, which takes its place at the end.

    When the context is left by an error, the file beside goes and `path` stays as it
    was. What a killed process has left is removed by the next that writes to `path`,
    once it is an hour old. Several processes may write at once: the last one counts.

    Raises:
        OSError: at once, where no file can be made there.
    """
    beside = f".{path.stem}-"
    for left in path.parent.glob(f"{glob.escape(beside)}*{glob.escape(path.suffix)}"):
        try:
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()
        except FileNotFoundError:  # another process was first
            pass
    part = path.with_name(f"{beside}{uuid.uuid4().hex}{path.suffix}")
    try:
        part.touch(exist_ok=False)
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
