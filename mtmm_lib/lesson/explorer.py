"""Interactive figures that need no kernel: all frames are drawn once, the browser
switches between them."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import uuid
from collections.abc import Callable, Sequence
from html import escape
from math import prod
from numbers import Real
from typing import TYPE_CHECKING, Any

from mtmm_lib.lesson import page, plots

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure

MAX_FRAMES = 60
MAX_BYTES = 25_000
SCALE = 1.5


def explore(
    draw: Callable[..., Figure],
    *,
    alt: str | Callable[..., str],
    start: dict[str, Any] | None = None,
    labels: dict[str, str] | None = None,
    **parameters: Sequence[Any],
) -> ipywidgets.VBox:
    """A figure with a control per parameter. It works in the Lab, and on a page without
    a kernel.

    `draw(**point)` is called once for each point of the grid. Shows itself as the last
    line of a cell. In Colab, whose front end does not know these widgets, the same
    frames come with the browser's own controls.

    Args:
        draw: returns a matplotlib figure for one point.
        alt: the figure in words: a template, as in "gain at p = {p:.1f}", or a function
            of the parameters.
        start: the point shown first; the middle of each parameter that it leaves out.
        labels: parameter → the words beside its control; by default the parameter's
            name.
        parameters: one to three, each with its values. Numbers get a slider, text
            and bool get buttons. Their names are free, but for the arguments above.

    Raises:
        ValueError: more than three parameters or 60 frames; a frame above 25 kB; an
            unknown start or label.
    """
    import ipywidgets

    class Explorer(ipywidgets.VBox):  # type: ignore[misc]  # published without types
        def __repr__(self) -> str:  # what stands where widgets cannot
            return page.printable(words())

        def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
            if "google.colab" in sys.modules:
                return {"text/html": plain(self), "text/plain": words()}
            printed = base64.b64encode(_printed(self)).decode()
            bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
            return bundle | {"image/png": printed}

    start, labels = start or {}, labels or {}
    grid = {name: list(values) for name, values in parameters.items()}
    _check(grid, start, labels)
    controls = {
        name: _control(
            labels.get(name, name),
            values,
            values.index(start.get(name, values[(len(values) - 1) // 2])),
        )
        for name, values in grid.items()
    }

    def describe(point: dict[str, Any]) -> str:
        return alt(**point) if callable(alt) else alt.format(**point)

    def words() -> str:
        return describe({name: grid[name][c.index] for name, c in controls.items()})

    def level(point: dict[str, Any], names: list[str]) -> ipywidgets.Widget:
        if not names:
            return ipywidgets.HTML(_frame(draw(**point), describe(point), point))
        name, *rest = names
        frames = [level({**point, name: value}, rest) for value in grid[name]]
        stack = ipywidgets.Stack(frames, selected_index=controls[name].index)
        ipywidgets.jslink((controls[name], "index"), (stack, "selected_index"))
        return stack

    explorer = Explorer(
        [
            *controls.values(),
            level({}, list(grid)),
            ipywidgets.HTML(page.style("explorer")),
        ]
    )
    return explorer.add_class("mtmm-explorer")


def _check(
    grid: dict[str, list[Any]], start: dict[str, Any], labels: dict[str, str]
) -> None:
    frames = prod(map(len, grid.values()))
    if not 1 <= len(grid) <= 3 or not 1 <= frames <= MAX_FRAMES:
        given = (
            " × ".join(f"{name} ({len(values)})" for name, values in grid.items())
            or "no parameter"
        )
        raise ValueError(
            f"explore takes 1 to 3 parameters and 1 to {MAX_FRAMES} frames, got "
            f"{given}: {frames} frames"
        )
    for what, names in (("start", start), ("labels", labels)):
        if set(names) - set(grid):
            raise ValueError(
                f"{what} names {sorted(set(names) - set(grid))}; the parameters are "
                f"{list(grid)}"
            )
    for name, value in start.items():
        if value not in grid[name]:
            raise ValueError(f"start: {name}={value!r} is not one of {grid[name]}")


def _frame(fig: Figure, alt: str, point: dict[str, Any]) -> str:
    picture = plots.pixels(fig, SCALE)
    for colours in (128, 64, 32):
        data = plots.encode(picture, colours)
        if len(data) <= MAX_BYTES:
            return plots.tag(data, picture.width / SCALE, alt)
    raise ValueError(
        f"the frame at {point} takes {len(data):,} bytes, more than {MAX_BYTES:,}: "
        "draw fewer points, fewer transparent areas, or a smaller figure"
    )


def _control(label: str, values: list[Any], index: int) -> ipywidgets.Widget:
    import ipywidgets

    if all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
        kind, names = ipywidgets.SelectionSlider, [f"{value:g}" for value in values]
    else:
        words = {True: "on", False: "off"}
        kind = ipywidgets.ToggleButtons
        names = [
            words[value] if isinstance(value, bool) else str(value) for value in values
        ]
    options = list(zip(names, values, strict=True))
    return kind(
        options=options,
        index=index,
        description=label,
        style={"description_width": "initial"},
    )


def _printed(explorer: ipywidgets.VBox) -> bytes:
    """The frame that is shown, as a picture for what is printed."""
    import ipywidgets
    from PIL import Image

    *_, frame, _ = explorer.children
    while isinstance(frame, ipywidgets.Stack):
        frame = frame.children[frame.selected_index]
    (data,) = re.findall(r'base64,([^"]+)"', frame.value)
    picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    return plots.printed(picture, SCALE)


def plain(explorer: ipywidgets.VBox) -> str:
    """The explorer as HTML with the browser's own controls, which needs no widgets in
    the front end."""
    import ipywidgets

    *controls, frame, _ = explorer.children
    frames = [frame]
    while isinstance(frames[0], ipywidgets.Stack):
        frames = [child for stack in frames for child in stack.children]
    options = [list(control._options_labels) for control in controls]
    drawn = ""
    for control, names in zip(controls, options, strict=True):
        if isinstance(control, ipywidgets.SelectionSlider):
            last = len(names) - 1
            field = (
                f'<input type="range" min="0" max="{last}" '
                f'value="{control.index}"> <output></output>'
            )
        else:
            field = "<select>"
            for i, name in enumerate(names):
                chosen = " selected" * (i == control.index)
                field += f'<option value="{i}"{chosen}>{escape(name)}</option>'
            field += "</select>"
        drawn += f"<p><label>{escape(control.description)} {field}</label></p>"
    name = f"explorer-{uuid.uuid4().hex}"
    pictures = "".join(frame.value for frame in frames)
    words = json.dumps(options).replace("<", "\\u003c")
    return (
        f'<div id="{name}">{drawn}<div>{pictures}</div></div>'
        f'<script>({page.static("explorer.js")})("{name}", {words});</script>'
    )
