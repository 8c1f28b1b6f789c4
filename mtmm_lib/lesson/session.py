"""What opens and closes a lesson: seeds, plot style, the chapter's strip, the
footer."""

from __future__ import annotations

import platform
import random
import time
from dataclasses import dataclass, field
from html import escape

import numpy
import torch

import mtmm_lib
from mtmm_lib.environment import variable, whole_number
from mtmm_lib.lesson import page, strip
from mtmm_lib.lesson.progress import summary
from mtmm_lib.training.seeds import derive_seed

SEEDS_PER_BOOK = 1000
_LARGE = 2**52


@dataclass
class _Session:
    """The lesson that is open, and when it was opened."""

    chapter: str = ""
    since: float = field(default_factory=time.perf_counter)


_session = _Session()


def book_seed() -> int:
    """The environment variable `MTMM_SEED`, 0 when it is not set.

    Raises:
        ValueError: when it is not a whole number from 0 on.
    """
    return whole_number("MTMM_SEED", 0)


def seed(k: int = 0) -> int:
    """The book's k-th seed, `k + 1000 · MTMM_SEED`: two values of `MTMM_SEED` never
    share a seed.

    PyTorch's generators take seeds below $2^{64}$. Of a value beyond $2^{52}$, which no
    date or time reaches, a number between $2^{52}$ and $2^{53}$ stands for it that
    follows from all its digits.

    Raises:
        ValueError: when k is not in 0 … 999.
    """
    if not 0 <= k < SEEDS_PER_BOOK:
        raise ValueError(f"a lesson has the seeds 0 to {SEEDS_PER_BOOK - 1}, got {k}")
    book = book_seed()
    if book >= _LARGE:
        book = _LARGE + derive_seed(book) % _LARGE
    return k + SEEDS_PER_BOOK * book


def seeds(n: int, first: int = 0) -> list[int]:
    """n seeds for repeated experiments: `seed(first), …, seed(first + n − 1)`."""
    return [seed(k) for k in range(first, first + n)]


def chapter() -> str:
    """The chapter that `start` opened; empty before."""
    return _session.chapter


def start(chapter: str) -> None:
    """Open a lesson: seed Python, NumPy and PyTorch, set the plot style, start the
    clock, show the strip.

    A reader who has begun with the chapter's exercises also sees where they stand
    (`progress`).

    PyTorch gets one thread unless `OMP_NUM_THREADS` says otherwise: lessons train small
    models, for which several threads cost more than they save, and results do not
    depend on the number of a machine's cores.

    Args:
        chapter: its slug, as in "adding-up-losses".

    Raises:
        ValueError: when there is no such chapter.
    """
    from mtmm_lib.lesson import plots

    drawing = strip.pictures(chapter)
    _session.chapter, _session.since = chapter, time.perf_counter()
    seed_generators()
    if not variable("OMP_NUM_THREADS"):
        torch.set_num_threads(1)
    plots.style()
    words = strip.alt(chapter)
    if stands := summary(chapter):
        drawing += f'<p class="mtmm-soft">{escape(stands)}</p>'
        words += f"\n{stands}"
    page.show(drawing, words, {"kind": "start", "chapter": chapter}, "mtmm-drawn")


def seed_generators() -> None:
    """Seed the generators of Python, NumPy and PyTorch with the book's first seed."""
    random.seed(seed())
    high, low = divmod(seed(), 2**32)  # NumPy's old generator takes 32 bits at a time
    numpy.random.seed([low, high] if high else low)
    torch.manual_seed(seed())


def footer() -> None:
    """Close a lesson: versions, seconds since `start`, device, threads and seed."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    versions = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "mtmm_lib": mtmm_lib.__version__,
    }
    record = {
        "kind": "footer",
        "chapter": chapter(),
        "versions": versions,
        "seconds": round(time.perf_counter() - _session.since, 1),
        "device": device,
        "threads": torch.get_num_threads(),
        "seed": book_seed(),
    }
    threads = f"{record['threads']} thread{'s' * (record['threads'] != 1)}"
    text = " · ".join(
        [f"{name} {value}" for name, value in versions.items()]
        + [
            f"{record['seconds']} s",
            f"{device}, {threads}",
            f"MTMM_SEED {record['seed']}",
        ]
    )
    page.show(f'<p class="mtmm-soft">{escape(text)}</p>', text, record)
