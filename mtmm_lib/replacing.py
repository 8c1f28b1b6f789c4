"""A file that is replaced as a whole, or stays as it was."""

from __future__ import annotations

import glob
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STALE = 3600  # seconds without a write, after which a writer on any host is dead


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A context with a file of its own beside `path`, which takes its place at the end.

    Whoever reads `path` finds the old file or the new one. When the context is left by
    an error, the file beside goes and `path` stays as it was. What a killed process has
    left is removed by the next that writes to `path`: at once on the same host, on
    others when it is an hour old. Several processes may write at once: the last one
    counts.

    Raises:
        OSError: at once, where no file can be made there.
    """
    with beside(path) as part:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A context with an empty file beside `path`, which is gone afterwards. It has the
    suffix of `path`, and shows whether anything can be written there.

    Raises:
        OSError: where nothing can.
    """
    # Who writes, as others may write to the same path; with the host, as a process's
    # number says nothing on another one.
    host, name = platform.node(), f".{path.stem}@"
    for left in path.parent.glob(f"{glob.escape(name)}*{glob.escape(path.suffix)}"):
        where, process, *_ = [*left.name.removeprefix(name).split("@"), ""]
        try:
            dead = where == host and process.isdigit() and not _runs(int(process))
            if dead or time.time() - left.stat().st_mtime > _STALE:
                left.unlink()
        except FileNotFoundError:  # another process was first
            pass
    part = path.with_name(f"{name}{host}@{os.getpid()}@{uuid.uuid4().hex}{path.suffix}")
    try:
        part.touch(exist_ok=False)
        yield part
    finally:
        part.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether a process of this host is alive; where that cannot be asked, it may
    be."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
