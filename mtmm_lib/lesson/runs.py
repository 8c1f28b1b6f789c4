"""One run of a `play`: a generator that goes on piece by piece, with random numbers of
its own."""

from __future__ import annotations

import math
import random
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy
import torch

from mtmm_lib.lesson import plots
from mtmm_lib.lesson.session import seed_generators

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Why a run has ended.
DONE, STOPPED, DIVERGED, FAILED = "done", "stopped", "diverged", "failed"

COLOURS = [plots.COLOURS[name] for name in ("blue", "orange", "green", "purple")]
LINES = ("solid", "dashed", "dotted", "dashdot")
WIDE = 1000  # from this ratio between values on, their axis is logarithmic

SHAPE = (
    "a run yields (share done, value) or (share done, {{curve: value}}), as in "
    "`yield step / steps, loss.item()`; it yielded {yielded!r}"
)


class Run:
    """What has come of a run so far.

    Nothing happens outside `advance`, which is called in the kernel's own thread. So a
    run and the reader's cells take turns, and neither meets the other's random numbers
    or gradient mode halfway.
    """

    def __init__(
        self,
        number: int,
        values: Mapping[str, Any],
        settings: str,
        steps: Callable[..., Iterator[Any]],
        curve: str,
    ) -> None:
        """
        Args:
            number: the how many-th run this is, from 1 on.
            values: of the controls.
            settings: the same, in words.
            steps: the lesson's generator.
            curve: the name of the curve where the generator yields numbers.
        """
        self.number, self.values, self.settings = number, dict(values), settings
        self.curves: dict[str, list[float]] = {}
        self.share = self.seconds = 0.0
        self.end: str | None = None
        self.error: Exception | None = None
        self.said = ""  # what came of it, in words
        self.stopping = False  # set by whoever wants it to stop, from any thread
        self._curve = curve
        with _kept():
            seed_generators()
            self._states = _states()
        self._steps = self._guarded(steps)

    @property
    def colour(self) -> str:
        """Of its curve; another than that of the runs beside it."""
        return COLOURS[(self.number - 1) % len(COLOURS)]

    @property
    def length(self) -> int:
        """How many times it has yielded."""
        return max(map(len, self.curves.values()), default=0)

    @property
    def last(self) -> dict[str, float]:
        """The last value of each curve."""
        return {name: values[-1] for name, values in self.curves.items()}

    def advance(self, seconds: float = math.inf) -> None:
        """Go on for so long, at least by one step, or to the end. Raises nothing:
        `error` keeps what the lesson's code has raised."""
        since = time.perf_counter()
        with _kept():
            _set(self._states)
            while self.end is None:
                next(self._steps, None)
                if time.perf_counter() - since >= seconds:
                    break
            self._states = _states()
        self.seconds += time.perf_counter() - since

    def fail(self, error: Exception) -> None:
        """End by an error."""
        self.error, self.end = error, FAILED

    def trace(self) -> str:
        """The traceback of the error, from the lesson's own code on."""
        if self.error is None:
            return ""
        here = self.error.__traceback__
        while here is not None and here.tb_frame.f_code.co_filename == __file__:
            here = here.tb_next
        return "".join(traceback.format_exception(None, self.error, here))

    def _guarded(self, steps: Callable[..., Iterator[Any]]) -> Iterator[None]:
        try:
            for yielded in steps(**self.values):
                self._note(yielded)
                if not all(map(math.isfinite, self.last.values())):
                    self.end = DIVERGED
                elif self.stopping:
                    self.end = STOPPED
                if self.end:
                    return
                yield
            if not self.curves:
                raise ValueError("the run has ended without a value")
            self.share, self.end = 1.0, DONE
        except Exception as error:
            self.fail(error)

    def _note(self, yielded: Any) -> None:
        if not isinstance(yielded, tuple) or len(yielded) != 2:
            raise TypeError(SHAPE.format(yielded=yielded))
        share, value = yielded
        self.share = min(max(float(share), 0.0), 1.0)
        named = value if isinstance(value, Mapping) else {self._curve: value}
        for name, number in {name: float(of) for name, of in named.items()}.items():
            self.curves.setdefault(name, []).append(number)


def draw(runs: Sequence[Run], x: str, y: str) -> Figure:
    """The curves of a few runs in one plot, the last one's in front. A cross stands
    where a curve left the numbers."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = [textwrap.fill(f"{run.number}: {run.settings}", 88) for run in runs]
    # Margins by hand: finding them would take longer than drawing.
    top = 0.3 + 0.18 * sum(name.count("\n") + 1 for name in names)  # inches
    fig = Figure(figsize=(6.8, 3.4 + top))
    fig.set_layout_engine("none")
    width, height = fig.get_size_inches()
    place = (0.8 / width, 0.65 / height, 1 - 1.2 / width, 1 - (0.65 + top) / height)
    axes = fig.add_axes(place)
    axes.set(xlabel=x, ylabel=y)
    lines: dict[str, Any] = {}  # the curve's name → its style
    for run in runs:
        look: dict[str, Any] = {"color": run.colour, "linewidth": 1.3, "alpha": 0.6}
        if run is runs[-1]:
            look |= {"linewidth": 2.4, "alpha": 1.0}
        for style, (name, values) in zip(
            cycle(LINES), run.curves.items(), strict=False
        ):
            lines.setdefault(name, style)
            finite = [value for value in values if math.isfinite(value)]
            if not finite:
                continue
            axes.plot(range(1, len(finite) + 1), finite, ls=lines[name], **look)
            end = (len(finite), finite[-1])
            first = name == next(iter(run.curves))  # one number says whose they are
            axes.annotate(
                f"{run.number}" * first + " ×" * (run.end == DIVERGED),
                end,
                xytext=(4, 0),
                textcoords="offset points",
                color=run.colour,
                va="center",
                annotation_clip=False,
            )
    _scale(axes, [v for run in runs for values in run.curves.values() for v in values])
    keys = [
        Line2D([], [], color=run.colour, label=name)
        for run, name in zip(runs, names, strict=True)
    ]
    if keys:
        fig.legend(handles=keys, loc="upper left", fontsize=9)
    if len(lines) > 1:
        styles = [
            Line2D([], [], color="#222", ls=ls, label=n) for n, ls in lines.items()
        ]
        axes.legend(handles=styles, fontsize=9)
    return fig


def _scale(axes: Axes, values: list[float]) -> None:
    """A logarithmic axis, where a linear one would show the largest values only."""
    finite = [value for value in values if math.isfinite(value)]
    sizes = [abs(value) for value in finite if value]
    if not sizes:
        return
    if min(finite) > 0:
        if max(sizes) > WIDE * min(sizes):
            axes.set_yscale("log")
    elif max(sizes) > WIDE * median(sizes):
        axes.set_yscale("symlog", linthresh=median(sizes))


def _states() -> tuple[Any, ...]:
    return (
        random.getstate(),
        numpy.random.get_state(),
        torch.get_rng_state(),
        torch.is_grad_enabled(),
    )


def _set(states: tuple[Any, ...]) -> None:
    python, arrays, tensors, gradients = states
    random.setstate(python)
    numpy.random.set_state(arrays)
    torch.set_rng_state(tensors)
    torch.set_grad_enabled(gradients)


@contextmanager
def _kept() -> Iterator[None]:
    """In the end random generators and gradient mode are as they were."""
    before = _states()
    try:
        yield
    finally:
        _set(before)
