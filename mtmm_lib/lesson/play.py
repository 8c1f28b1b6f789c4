"""Live runs: `play(run, alt=…, lr=(0.001, 1.0, "log"), width=(4, 256))`.

To put one into a lesson, last in its section, after a question that only trying one's
own values answers:

    def train(lr, width):
        model = nn.Sequential(
            nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 1)
        )
        optimizer = torch.optim.SGD(model.parameters(), lr)
        for step in range(1000):
            loss = F.binary_cross_entropy_with_logits(model(x)[:, 0], y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield (step + 1) / 1000, loss.item()


    play(
        train,
        alt="With the learning rate {lr:g} the loss ends at {last:.2f}.",
        lr=(0.001, 10.0, "log"),
        width=(4, 256),
        start={"lr": 0.1, "width": 32},
    )

**The run** is a generator. It gets the controls' values by name, and after each step
(or each few) it yields how much of it is done, from 0 to 1, and what is to be drawn: a
number, or a few by the names of their curves, `{"train": …, "test": …}`. Between two
yields it should take no more than a tenth of a second, since Stop and the reader's
other cells wait for that; all of it at most 20 seconds.

**Random numbers.** Whatever the run draws from the generators of PyTorch, NumPy or
Python, a network's first weights and dropout too, comes from states of its own, which
are seeded anew with the book's seed. So the same values give the same curve, two runs
differ only in what was chosen, and the lesson's own generators stand where they stood.
A run may also seed its own `torch.Generator`. What it must not do is change the
lesson's variables: it builds its model and copies what it alters.

**Where nobody sits at the notebook** (the site, tests, grading), `play` makes the run
with the starting values at once and to its end. An error in it fails the cell, and the
page shows what it has recorded. So a lesson's seconds include this run.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import math
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from inspect import signature
from typing import Any

from mtmm_lib.lesson import page, plots
from mtmm_lib.lesson.controls import Choice, Number, control, word
from mtmm_lib.lesson.runs import DIVERGED, FAILED, STOPPED, Run, draw

KEPT = 4  # runs that are compared
SLICE = 0.1  # seconds that a run goes on before the kernel may do something else
PAUSE = 0.2  # seconds between two pictures, at least
SCALE = 1.5

BUTTONS = {"run": "Run", "stop": "Stop", "forget": "Forget runs"}  # action → label
RECORDED = (
    "Here you see one recorded run. To try your own values, open this lesson in "
    "JupyterLab, Colab or Binder."
)


def play(
    run: Callable[..., Iterator[Any]],
    *,
    alt: str | Callable[[dict[str, Any], Any], str],
    x: str = "step",
    y: str = "loss",
    start: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    **controls: Sequence[Any] | bool,
) -> Play:
    """A training, or whatever else goes on step by step, that the reader sets off with
    any values: Run, Stop, a growing curve, the last four runs side by side.

    Shows itself as the last line of a cell. On a page without a kernel stands the
    recorded run with the starting values. The module's docstring is the how-to.

    Args:
        run: a generator function of the controls. It yields `(share done, value)` or
            `(share done, {curve: value})`.
        alt: what came of a run, in a sentence: a template with the controls' names and
            `last`, the last value (or, for several curves, their names), as in "With
            lr = {lr:g} the loss ends at {last:.2f}"; or a function of the controls'
            values, a dict, and of the last value, a number or a dict.
        x: what one yield is, as in "step" or "epoch".
        y: what the curve shows, with its unit.
        start: control → the value it starts with; by default the middle, False for a
            switch.
        labels: control → the words beside it; by default its name.
        controls: `(low, high)` is a slider with a field for any number, whole ones if
            both are integers; `(low, high, "log")` the same on a logarithmic scale; a
            list has a button for each option; a bool is a switch that starts so.

    Raises:
        ValueError: no control, or one that is none of these; an unknown name in `start`
            or `labels`; a starting value outside its range.
        TypeError: `run` does not take the controls by their names.
        Exception: what the run raises, where nobody sits at the notebook.
    """
    start, labels = start or {}, labels or {}
    for what, names in (("start", start), ("labels", labels)):
        if unknown := sorted(set(names) - set(controls)):
            raise ValueError(
                f"{what} names {unknown}; the controls are {list(controls)}"
            )
    if not controls:
        raise ValueError("play needs a control, as in lr=(0.01, 1.0)")
    known = {
        name: control(name, labels.get(name, name), given, start.get(name))
        for name, given in controls.items()
    }
    signature(run).bind(**controls)
    player = Play(run, known, alt, x, y, live=page.attended())
    if not player.live:
        player.press(wait=True)
        if error := player.runs[-1].error:
            raise error
    return player


class Play:
    """What `play` returns: the runs, and how they are shown."""

    def __init__(
        self,
        run: Callable[..., Iterator[Any]],
        controls: Mapping[str, Number | Choice],
        alt: str | Callable[[dict[str, Any], Any], str],
        x: str,
        y: str,
        live: bool,
    ) -> None:
        self.controls, self.live = controls, live
        self.values = {name: control.start for name, control in controls.items()}
        self.runs: list[Run] = []
        self._run, self._alt, self._x, self._y = run, alt, x, y
        self._board: _Board | None = None

    @property
    def going(self) -> bool:
        """Whether a run has begun and not ended."""
        return bool(self.runs) and self.runs[-1].end is None

    def press(self, *, wait: bool = False) -> None:
        """Press Run. While a run goes on, that begins no other.

        Args:
            wait: return when the run has ended. Else it goes on between the kernel's
                other work.
        """
        if not self.going:
            number = self.runs[-1].number + 1 if self.runs else 1
            settings = ", ".join(
                f"{control.label} = {word(self.values[name])}"
                for name, control in self.controls.items()
            )
            run = Run(number, self.values, settings, self._run, self._y)
            self.runs = [*self.runs[1 - KEPT :], run]
            if self._board and not wait:
                self._board.follow()
        if wait:
            self.advance()
            if self._board:
                self._board.show()

    def stop(self) -> None:
        """Press Stop: the run ends after the step that it is in."""
        if self.going:
            self.runs[-1].stopping = True

    def forget(self) -> None:
        """Press Forget runs."""
        if not self.going:
            self.runs = []

    def advance(self, seconds: float = math.inf) -> None:
        """Let the run go on for so long, at least by one step, or to its end."""
        run = self.runs[-1]
        run.advance(seconds)
        if run.end is not None:
            run.said = self._outcome(run)

    def state(self) -> str:
        """How far the run is, as HTML."""
        run = self.runs[-1] if self.runs else None
        share, seconds = (run.share, run.seconds) if run else (0.0, 0.0)
        return (
            f'<progress value="{share:.3f}" aria-label="share done"></progress> '
            f"<span>{share:.0%}, {seconds:.1f} s</span>"
        )

    def picture(self) -> str:
        """The curves of the last runs, as HTML."""
        drawn = plots.pixels(draw(self.runs, self._x, self._y), SCALE)
        told = [
            f"Run {r.number}, {r.settings}: {r.said or 'going on.'}" for r in self.runs
        ]
        alt = " ".join([f"{self._y} by {self._x}.", *(told or ["No run yet."])])
        return plots.tag(plots.encode(drawn, 64), drawn.width / SCALE, alt)

    def words(self) -> str:
        """What came of each run, as HTML."""
        items = ""
        for run in self.runs:
            if run.end is None:
                continue
            items += (
                f'<li><span class="mtmm-mark" style="background:{run.colour}"></span> '
                f"<b>Run {run.number}</b>, {escape(run.settings)}: {escape(run.said)}"
            )
            if run.error:
                items += (
                    "<details><summary>Where?</summary><pre>"
                    f"{escape(run.trace())}</pre></details>"
                )
            items += "</li>"
        return f"<ul>{items}</ul>"

    def said(self) -> str:
        """The news of the last run, for those who hear the page."""
        if not self.runs:
            return ""
        run = self.runs[-1]
        return f"Run {run.number}: {run.said or 'going on'}"

    def answer(self, action: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a front end without widgets asks for, again and again while a run goes
        on.

        Args:
            action: "run", "stop", "forget" or "go on".
            values: what the controls' fields hold.
        """
        if action == "run" and not self.going:
            for name, control in self.controls.items():
                self.values[name] = control.take(values[name])
            self.press()
        elif action == "stop":
            self.stop()
        elif action == "forget":
            self.forget()
        if self.going:
            self.advance(PAUSE)
        return {
            "going": self.going,
            "state": self.state(),
            "picture": self.picture(),
            "words": self.words(),
            "said": escape(self.said()),
        }

    def plain(self, name: str) -> str:
        """Controls and curves as HTML for Colab, which shows nothing that a widget does
        after its cell has ended. The page asks instead, by the name of a callback."""
        fields = "".join(control.html(name) for name, control in self.controls.items())
        buttons = "".join(
            f'<button type="button" name="{action}">{label}</button>'
            for action, label in BUTTONS.items()
        )
        html = (
            f'{page.style("play")}<form>{fields}<p class="mtmm-buttons">{buttons} '
            f'<span class="mtmm-state">{self.state()}</span></p></form>'
            f'<div class="mtmm-picture">{self.picture()}</div>'
            f'<div class="mtmm-words">{self.words()}</div>'
            '<p class="mtmm-said" role="status"></p>'
        )
        script = f"({page.static('play.js')})({json.dumps(name)});"
        return (
            f'<div id="{name}">{page.wrap(html, "mtmm-play")}</div>'
            f"<script>{script}</script>"
        )

    def _outcome(self, run: Run) -> str:
        at = f"{self._x} {run.length:,}"
        ends = ", ".join(f"{name} {value:.4g}" for name, value in run.last.items())
        facts = f"({ends} at {at}, {run.seconds:.1f} s)"
        if run.end == DIVERGED:
            return f"diverged at {at}. {facts}"
        if run.end != FAILED:
            try:
                said = self._say(run)
            except Exception as error:
                run.fail(error)
        if run.error is not None:
            return f"ended by {type(run.error).__name__}: {run.error}"
        return f"stopped at {at}. " * (run.end == STOPPED) + f"{said} {facts}"

    def _say(self, run: Run) -> str:
        """What the lesson's `alt` says of a run."""
        several = len(run.curves) > 1
        last: Any = run.last if several else next(iter(run.last.values()))
        if callable(self._alt):
            return self._alt(run.values, last)
        return self._alt.format(**run.values, **(last if several else {"last": last}))

    def __repr__(self) -> str:
        told = [f"Run {r.number}, {r.settings}: {r.said}" for r in self.runs]
        return page.printable("\n".join(told) or "No run yet.")

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        if not self.live:
            return self._recorded()
        if "google.colab" in sys.modules:
            return {"text/html": self._registered(), "text/plain": repr(self)}
        self._board = self._board or _Board(self)
        shown: dict[str, Any] = self._board.box._repr_mimebundle_(**kwargs)
        return shown | {"text/plain": repr(self)}

    def _registered(self) -> str:
        """`plain`, with its callback known to Colab."""
        from IPython.display import JSON

        def called(action: str, values: dict[str, Any]) -> JSON:
            return JSON(self.answer(action, values))

        name = f"play-{uuid.uuid4().hex}"
        output = importlib.import_module("google.colab.output")
        output.register_callback(name, called)
        return self.plain(name)

    def _recorded(self) -> dict[str, Any]:
        drawn = plots.pixels(draw(self.runs, self._x, self._y), SCALE)
        html = (
            f"{page.style('play')}{self.picture()}{self.words()}"
            f'<p class="mtmm-soft">{RECORDED}</p>'
        )
        return {
            "text/html": page.wrap(html, "mtmm-play"),
            "text/plain": repr(self),
            "image/png": base64.b64encode(plots.printed(drawn, SCALE)).decode(),
        }


class _Board:
    """The controls, the buttons and the curves as widgets."""

    def __init__(self, player: Play) -> None:
        import ipywidgets

        self._player = player
        # A cell runs in the kernel's own thread. The front end's messages may come in
        # another one.
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._run, self._stop, self._forget = (
            ipywidgets.Button(description=label) for label in BUTTONS.values()
        )
        self._run.button_style = "primary"
        self._run.on_click(lambda _: self._later(player.press))
        self._stop.on_click(lambda _: player.stop())
        self._forget.on_click(lambda _: self._later(self._forgotten))
        self._state, self._picture, self._words, self._said = (
            ipywidgets.HTML().add_class(f"mtmm-{part}")
            for part in ("state", "picture", "words", "said")
        )
        name = f"play-{uuid.uuid4().hex}"
        script = f"<script>({page.static('play-names.js')})('{name}');</script>"
        data = {"output_type": "display_data", "data": {"text/html": script}}
        names = ipywidgets.Output(outputs=({**data, "metadata": {}},))
        buttons = ipywidgets.HBox([self._run, self._stop, self._forget, self._state])
        self.box = ipywidgets.VBox(
            [
                ipywidgets.HTML(page.wrap(page.style("play"))),
                *(
                    control.widget(partial(player.values.__setitem__, name))
                    for name, control in player.controls.items()
                ),
                buttons.add_class("mtmm-buttons"),
                self._picture,
                self._words,
                self._said,
                names.add_class("mtmm-names"),
            ]
        )
        for kind in ("mtmm", "mtmm-play", name):
            self.box.add_class(kind)
        self.show()

    def follow(self) -> None:
        """Let the run go on between the kernel's other work, and show it."""
        self._task = self._loop.create_task(self._go_on())

    async def _go_on(self) -> None:
        self.show()
        drawn, took = time.monotonic(), 0.0
        while self._player.going:
            self._player.advance(SLICE)
            now = time.monotonic()
            # drawing takes a third of the time at most
            if now - drawn > max(PAUSE, 2 * took):
                self.show()
                drawn = time.monotonic()
                took = drawn - now
            await asyncio.sleep(0.005)
        self.show()

    def _later(self, work: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(work)

    def _forgotten(self) -> None:
        self._player.forget()
        self.show()

    def show(self) -> None:
        player = self._player
        for button, off in (
            (self._run, player.going),
            (self._stop, not player.going),
            (self._forget, player.going or not player.runs),
        ):
            # A button that is disabled would lose the keyboard's focus.
            (button.add_class if off else button.remove_class)("mtmm-off")
        self._state.value, self._picture.value = player.state(), player.picture()
        self._words.value, self._said.value = player.words(), escape(player.said())
