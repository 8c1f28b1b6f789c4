"""The controls of a `play`: what a lesson gives for them, and how they are shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ipywidgets

STEPS = 100  # of a slider

WHAT = (
    "{name}={given!r} is no control: give (low, high), (low, high, 'log'), a list of "
    "options or a bool"
)


@dataclass(frozen=True)
class Number:
    """Any number from `low` to `high`, on a logarithmic scale or not."""

    label: str
    low: float
    high: float
    log: bool
    whole: bool
    start: float

    def take(self, value: Any) -> float:
        """The number in the range that is nearest to what a field holds."""
        near: float = min(max(float(value), self.low), self.high)
        return round(near) if self.whole else near

    def widget(self, put: Callable[[Any], None]) -> ipywidgets.Widget:
        """A field and a slider; each new value goes to `put`."""
        import ipywidgets

        low, high, start = self.low, self.high, self.start
        kind = ipywidgets.BoundedIntText if self.whole else ipywidgets.BoundedFloatText
        field = kind(start, min=low, max=high, description=self.label)
        if self.log:
            low, high = math.log10(low), math.log10(high)
            step = (high - low) / STEPS
            slider = ipywidgets.FloatLogSlider(start, min=low, max=high, step=step)
        elif self.whole:
            slider = ipywidgets.IntSlider(start, min=low, max=high)
        else:
            step = (high - low) / STEPS
            slider = ipywidgets.FloatSlider(start, min=low, max=high, step=step)
        slider.readout = False

        def rounded(value: float) -> float:
            return self.take(f"{value:.3g}")

        def typed(change: Any) -> None:
            put(change.new)
            if rounded(slider.value) != change.new:
                slider.value = change.new

        def slid(change: Any) -> None:
            # The front end moves a handle to the next step of its scale, and says so.
            ends = (change.new, field.value)
            here, there = map(math.log10, ends) if self.log else ends
            if abs(here - there) > 0.501 * slider.step:
                field.value = rounded(change.new)

        field.observe(typed, "value")
        slider.observe(slid, "value")
        return ipywidgets.HBox([field, slider]).add_class("mtmm-number")

    def html(self, name: str) -> str:
        """The same with the browser's own controls."""
        low, high, at = self.low, self.high, self.start
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        step = 1 if self.whole and not self.log else (high - low) / STEPS
        return (
            f'<p class="mtmm-number"><label><span>{escape(self.label)}</span>'
            f'<input type="number" name="{name}" value="{self.start!r}" '
            f'min="{self.low!r}" max="{self.high!r}" '
            f'step="{1 if self.whole else "any"}"></label>'
            f'<input type="range" tabindex="-1" aria-hidden="true" value="{at!r}" '
            f'min="{low!r}" max="{high!r}" step="{step!r}"'
            f"{' data-log' * self.log}></p>"
        )


@dataclass(frozen=True)
class Choice:
    """One of a few values; of False and True, a switch."""

    label: str
    options: tuple[Any, ...]
    start: Any

    @property
    def _switch(self) -> bool:
        return self.options == (False, True)

    def take(self, place: int) -> Any:
        """The value of the option at this place."""
        return self.options[place]

    def widget(self, put: Callable[[Any], None]) -> ipywidgets.Widget:
        """A button for each option, or a switch; each new value goes to `put`."""
        import ipywidgets

        if self._switch:
            field = ipywidgets.Checkbox(
                self.start, description=self.label, indent=False
            )
        else:
            field = ipywidgets.RadioButtons(
                options=[(word(option), option) for option in self.options],
                value=self.start,
                description=self.label,
                orientation="horizontal",
            )
        field.observe(lambda change: put(change.new), "value")
        return field

    def html(self, name: str) -> str:
        """The same with the browser's own controls."""
        label = escape(self.label)
        if self._switch:
            on = " checked" * bool(self.start)
            field = f'<input type="checkbox" name="{name}"{on}>'
            return f"<p><label>{field} {label}</label></p>"
        buttons = "".join(
            f'<label><input type="radio" name="{name}" value="{place}"'
            f"{' checked' * (option == self.start)}> {escape(word(option))}</label> "
            for place, option in enumerate(self.options)
        )
        return f"<fieldset><legend>{label}</legend>{buttons}</fieldset>"


def control(name: str, label: str, given: Any, start: Any) -> Number | Choice:
    """What a lesson gives for a control, checked.

    Args:
        name: of the control.
        label: the words beside it.
        given: `(low, high)`, `(low, high, "log")`, a list of options or a bool.
        start: the value it starts with; None: the middle, for a bool itself.

    Raises:
        ValueError: when `given` is none of these, or `start` not one of its values.
    """
    if isinstance(given, bool):
        given, start = [False, True], given if start is None else start
    if isinstance(given, list) and given:
        chosen = given[(len(given) - 1) // 2] if start is None else start
        if chosen not in given:
            raise ValueError(f"start: {name}={chosen!r} is not one of {given}")
        return Choice(label, tuple(given), chosen)
    match given:
        case (low, high):
            log = False
        case (low, high, "log"):
            log = True
        case _:
            raise ValueError(WHAT.format(name=name, given=given))
    if not all(isinstance(end, Real) for end in (low, high)) or not low < high:
        raise ValueError(WHAT.format(name=name, given=given))
    if log and low <= 0:
        raise ValueError(f"{name}={given!r}: a logarithmic scale begins above 0")
    if start is None:
        start = float(f"{math.sqrt(low * high) if log else (low + high) / 2:.3g}")
    if not low <= start <= high:
        raise ValueError(f"start: {name}={start!r} is not between {low} and {high}")
    whole = all(isinstance(end, Integral) for end in (low, high))
    return Number(label, low, high, log, whole, round(start) if whole else start)


def word(value: Any) -> str:
    """A control's value as it is shown."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, Real) else str(value)
