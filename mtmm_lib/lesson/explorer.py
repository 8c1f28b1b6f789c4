"""Interactive figures that need no kernel: every frame is drawn once, and the browser switches between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mtmm_lib.lesson import plots

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure

MAX_FRAMES = 60
MAX_BYTES = 25_000


def explore(
    draw: Callable[..., Figure],
    *,
    alt: str | Callable[..., str],
    start: dict[str, Any] | None = None,
    labels: dict[str, str] | None = None,
    **grid: Sequence[Any],
) -> None:
    """Show a figure with a control per parameter that works in the Lab and on a page without a kernel.

    `draw(**point)` is called once for each point of the grid.

    Args:
        draw: returns a matplotlib figure for one point.
        alt: the figure in words: a template over the parameters, as in "gain at p = {p:.1f}", or a function of them.
        start: the point shown first; the middle of each parameter left out.
        labels: parameter → the words beside its control; the parameter's name by default.
        grid: one to three parameters, each with its values. Numbers get a slider; text and bool get buttons.

    Raises:
        ValueError: more than three parameters or 60 frames, a frame above 25 kB, an unknown start or label.
    """
    from IPython.display import display

    widget, plain = build(draw, alt, start or {}, labels or {}, grid)
    bundle = widget._repr_mimebundle_()
    display({**bundle, "text/plain": plain}, raw=True)


def build(draw, alt, start, labels, grid) -> tuple[ipywidgets.VBox, str]:
    """The explorer as a widget, and the text alternative of the frame that it starts with."""
    import ipywidgets

    grid = {name: list(values) for name, values in grid.items()}
    frames = 1
    for values in grid.values():
        frames *= len(values)
    if not 1 <= len(grid) <= 3 or not 1 <= frames <= MAX_FRAMES:
        raise ValueError(
            f"explore takes one to three parameters and {MAX_FRAMES} frames at most, got "
            f"{' × '.join(f'{name} ({len(values)})' for name, values in grid.items()) or 'none'}: {frames} frames"
        )
    for what, given in (("start", start), ("labels", labels)):
        if set(given) - set(grid):
            raise ValueError(
                f"{what} names {sorted(set(given) - set(grid))}, but the parameters are {list(grid)}"
            )
    controls = {name: _control(labels.get(name, name), values) for name, values in grid.items()}
    for name, control in controls.items():
        values = grid[name]
        if name in start and start[name] not in values:
            raise ValueError(f"start: {name}={start[name]!r} is not one of {values}")
        control.index = values.index(start[name]) if name in start else (len(values) - 1) // 2

    def describe(point: dict[str, Any]) -> str:
        return alt(**point) if callable(alt) else alt.format(**point)

    def frame(point: dict[str, Any]) -> ipywidgets.HTML:
        html = plots.image(draw(**point), describe(point))
        if len(html) * 3 / 4 > MAX_BYTES:
            raise ValueError(
                f"the frame at {point} takes {len(html) * 3 // 4:,} bytes, above {MAX_BYTES:,}: "
                "draw fewer points, a smaller figure, or no pixel image"
            )
        return ipywidgets.HTML(html)

    def level(point: dict[str, Any], names: list[str]) -> ipywidgets.Widget:
        if not names:
            return frame(point)
        name, *rest = names
        stack = ipywidgets.Stack(
            [level({**point, name: value}, rest) for value in grid[name]], selected_index=controls[name].index
        )
        ipywidgets.jslink((controls[name], "index"), (stack, "selected_index"))
        return stack

    box = ipywidgets.VBox([*controls.values(), level({}, list(grid))])
    return box, describe({name: grid[name][control.index] for name, control in controls.items()})


def _control(label: str, values: list[Any]) -> ipywidgets.Widget:
    import ipywidgets

    if any(isinstance(value, (str, bool)) for value in values):
        names = [
            {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
            for value in values
        ]
        kind = ipywidgets.ToggleButtons
    else:
        names = [f"{value:g}" for value in values]
        kind = ipywidgets.SelectionSlider
    return kind(options=list(zip(names, values)), description=label, style={"description_width": "initial"})
