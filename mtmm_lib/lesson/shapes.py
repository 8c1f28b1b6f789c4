"""How each part of a diagram looks: its outline, its words, and the room they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from mtmm_lib.lesson import drawing
from mtmm_lib.lesson.drawing import Axes, Point
from mtmm_lib.lesson.parts import FLOWING, Description, Part

Box = tuple[float, float, float, float]  # left, top, right, bottom
CELL = 28  # a table's
BARS = 9  # from one bar of a gate to the next
CIRCLE, FACTOR = 15, 16  # radius of a node, of a factor on an arrow
SMALL = 14  # type of notes
_BODY = {"trained": "p", "frozen": "p", "new": "p new", "absent": "no"}


@dataclass(frozen=True)
class Line:
    """A line of text: words, then a symbol."""

    words: str
    symbol: str = ""
    kind: str = ""

    @property
    def width(self) -> float:
        size, space = SMALL if self.kind == "q" else 15, 6 * bool(self.words)
        words = drawing.width(self.words, size, bold=self.kind == "n")
        return words + (space + drawing.symbol_width(self.symbol) if self.symbol else 0)

    @property
    def markup(self) -> str:
        symbol = drawing.symbol(self.symbol) if self.symbol else ""
        return f"{escape(self.words)} {symbol}".strip()


@dataclass(frozen=True)
class Placed:
    """A line at a distance from the middle of its part."""

    line: Line
    x: float
    y: float  # of the base line
    anchor: str = "middle"

    @property
    def box(self) -> Box:
        w = self.line.width
        left = self.x - {"start": 0, "middle": w / 2, "end": w}[self.anchor]
        return (left, self.y - 13, left + w, self.y + 5)


def wrapped(words: str, room: float, kind: str) -> list[Line]:
    """The words in as few lines as fit."""
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and Line(longer, kind=kind).width <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return [Line(line, kind=kind) for line in lines]


class Shape:
    """A part in the wide or the tall picture.

    Args:
        part: what it shows.
        of: the diagram that it belongs to, whose tasks have the colours.
        axes: of the picture.
        room: the width that a name may take before it is broken.
    """

    def __init__(self, part: Part, of: Description, axes: Axes, room: float) -> None:
        self.part, self.axes, self.room = part, axes, room
        self.colours = [of.colour(owner) for owner in part.owners]
        self.symbol = part.sign(of.tasks)
        self.names = wrapped(part.shown, room, "n" if part.kind == "box" else "")
        self.notes = wrapped(part.note, room, "q")
        self.inside, self.size = self._measure()
        self.labels = self._labels()

    @property
    def outer(self) -> bool:
        """Whether its words stand beside it, not in it."""
        return self.part.kind in (*FLOWING, "fusion", "node", "table")

    @property
    def body(self) -> Box:
        w, h = self.size
        return (-w / 2, -h / 2, w / 2, h / 2)

    @property
    def reach(self) -> Box:
        """What it takes with its words, around its middle."""
        boxes = [self.body, *(label.box for label in self.labels)]
        sides = list(zip(*boxes, strict=True))
        return (min(sides[0]), min(sides[1]), max(sides[2]), max(sides[3]))

    def _measure(self) -> tuple[list[Line], Point]:
        """The lines inside, and the width and height of the body."""
        part, tall = self.part, self.axes.tall
        if part.kind == "input":
            return [], (60, 42)
        if part.kind == "tokens":
            return [], (14 * part.count - 3, 11)
        if part.kind in ("feature", "prediction"):
            return [], (22, 22)
        if part.kind == "loss":
            return [], (18, 20)
        if part.kind == "fusion":
            return [], (50, 50)
        if part.kind == "node":
            return [], (2 * CIRCLE, 2 * CIRCLE)
        if part.kind == "table":
            return [], (CELL * len(part.rows[0]) + 6, CELL * len(part.rows) + 6)
        inside = [*self.names, *self.notes]
        if self.symbol:
            last = inside[-1] if inside else Line("")
            inside[-1:] = [Line(last.words, self.symbol, last.kind)]
        widest = max((line.width for line in inside), default=0)
        height = 18 * len(inside)
        if part.kind == "encoder":
            return inside, (widest / 0.85 + 10, height + 26) if tall else (
                widest + 30,
                height + 32,
            )
        if part.kind == "head":
            return inside, (widest + 24, height + 24) if tall else (
                widest + 36,
                height + 16,
            )
        if part.kind == "gate":
            bars = BARS * len(self._bars)
            return inside, (max(widest, bars) + 20, height + 40) if tall else (
                widest + bars + 34,
                max(height, 24) + 16,
            )
        stripes = 8 if self.colours else 0
        if tall:
            spare = max(8, min(20, self.room + 26 - widest))
            return inside, (max(widest + spare, 52), height + 20 + stripes)
        return inside, (max(widest + 20 + stripes, 52), height + 24)

    @property
    def _bars(self) -> Sequence[float]:
        return self.part.bars or (0.6, 0.3, 0.1)

    def _labels(self) -> list[Placed]:
        (w, h), kind, tall = self.size, self.part.kind, self.axes.tall
        if not self.outer:
            # Stripes take room on the side of the input, a head's point opposite.
            striped = 4 if self.colours and kind != "gate" else 0
            dx, dy = self.axes.at(striped - (5 if kind == "head" else 0), 0)
            if kind == "gate":
                shift = BARS * len(self._bars) / 2 + 4
                dx, dy = (0, 15) if tall else (shift, 0)
            top = dy + 5 - 9 * (len(self.inside) - 1)
            return [
                Placed(line, dx, top + 18 * i) for i, line in enumerate(self.inside)
            ]
        names = list(self.names)
        if self.symbol and kind != "node":
            last = names.pop() if names else Line("")
            names.append(Line(last.words, self.symbol))
        above, below = names, list(self.notes)
        if kind in ("tokens", "fusion") and not tall:
            above, below = [], [*names, *self.notes]
        elif tall and kind == "input":  # nothing arrives there
            above, below = [*names, *self.notes], []
        elif tall or kind == "loss":
            every = [*names, *self.notes]
            top = 5 - 9 * (len(every) - 1)
            return [
                Placed(line, w / 2 + 6, top + 18 * i, "start")
                for i, line in enumerate(every)
            ]
        return [
            Placed(line, 0, -h / 2 - 9 - 18 * i) for i, line in enumerate(above[::-1])
        ] + [Placed(line, 0, h / 2 + 18 + 18 * i) for i, line in enumerate(below)]

    def draw(self, x: float, y: float) -> str:
        """The part with its middle at (x, y)."""
        words = "".join(
            drawing.text(
                x + label.x,
                y + label.y,
                label.line.markup,
                f"{label.line.kind} halo".strip()
                if self.part.state == "frozen"
                else label.line.kind,
                label.anchor,
            )
            for label in self.labels
        )
        return self._body(x, y) + words

    def _body(self, x: float, y: float) -> str:
        part, kind = self.part, _BODY[self.part.state]
        first = self.colours[0] if self.colours else "none"
        absent = part.state == "absent"
        filled = "no" if absent else first
        match part.kind:
            case "input":
                card = drawing.card(x, y, self.size, int(first[1]), kind)
                strike = f"M{x - 24:g} {y + 14:g}l48-28"
                return (
                    f'<g class="gone">{card}</g><path class="a" d="{strike}"/>'
                    if absent
                    else card
                )
            case "tokens":
                own = ["no"] if absent else self.colours or ["none"]
                return drawing.row(x, y, [own[i % len(own)] for i in range(part.count)])
            case "feature":
                return drawing.square(x, y, 22, filled)
            case "prediction":
                return drawing.circle(x, y, 11, filled)
            case "loss":
                return drawing.diamond(x, y, filled)
            case "fusion":
                return drawing.mixed(x, y, 50, kind)
            case "node":
                # Letters are slanted, operators stand upright.
                letter = self.symbol[0].islower()
                sign = drawing.symbol(self.symbol) if letter else escape(self.symbol)
                return drawing.circle(x, y, CIRCLE, f"{kind} {first}s") + drawing.text(
                    x, y + 6, sign, "n"
                )
            case "table":
                return self._table(x, y)
            case "gate":
                return self._gate(x, y, f"{kind} {first}s", first)
        corners = self._corners(x, y)
        ice = drawing.hatching(corners) if part.state == "frozen" else ""
        return drawing.outline(corners, kind) + ice + self._stripes(x, y)

    def _corners(self, x: float, y: float) -> list[Point]:
        """Of an encoder, a head or a box."""
        along, across = (side / 2 for side in self.axes.at(*self.size))
        narrow = {"encoder": 0.8 if self.axes.tall else 0.66}.get(self.part.kind, 1)
        ring = [
            (-along, -across),
            (along, -across * narrow),
            (along, across * narrow),
            (-along, across),
        ]
        if self.part.kind == "head":
            shoulder = along - 12
            ring[1:3] = [(shoulder, -across), (along, 0), (shoulder, across)]
        u, v = self.axes.at(x, y)
        return [self.axes.at(u + du, v + dv) for du, dv in ring]

    def _stripes(self, x: float, y: float) -> str:
        """Whose it is, on the side of the input."""
        if not self.colours:
            return ""
        along, across = self.axes.at(*self.size)
        each = (across - 18) / len(self.colours)
        u, v = self.axes.at(x, y)
        return "".join(
            drawing.rectangle(
                *self.axes.at(u - along / 2 + 7, v - across / 2 + 9 + (i + 0.5) * each),
                *self.axes.at(4, each - 1.5),
                1.5,
                colour,
            )
            for i, colour in enumerate(self.colours)
        )

    def _gate(self, x: float, y: float, kind: str, colour: str) -> str:
        w, h = self.size
        bars = BARS * len(self._bars)
        left, foot = (
            (x - bars / 2, y - h / 2 + 33)
            if self.axes.tall
            else (x - w / 2 + 16, y + 12)
        )
        drawn = drawing.rectangle(x, y, w, h, 20, kind)
        for i, weight in enumerate(self._bars):
            high = 23 * weight
            drawn += drawing.rectangle(
                left + BARS * (i + 0.5), foot - high / 2, 6.5, high, 1, colour
            )
        return f'{drawn}<path class="f" d="M{left - 1:g} {foot + 1:g}h{bars + 2:g}"/>'

    def _table(self, x: float, y: float) -> str:
        rows = self.part.rows
        left = x - CELL * (len(rows[0]) - 1) / 2
        top = y - CELL * (len(rows) - 1) / 2
        drawn = drawing.rectangle(x, y, *self.size, 7, _BODY[self.part.state])
        for i, row in enumerate(rows):
            colour = self.colours[i % len(self.colours)] if self.colours else "none"
            for j, weight in enumerate(row):
                a, b = left + CELL * j, top + CELL * i
                cell = drawing.rectangle(a, b, CELL - 2, CELL - 2, 4, colour)
                drawn += f'<g opacity="{0.05 + 0.25 * weight:.2f}">{cell}</g>'
                drawn += drawing.text(a, b + 5, fraction(weight), "q cell")
        return drawn


def fraction(weight: float) -> str:
    """A weight as short as it is told: .7, 0, 1."""
    return f"{weight:.2g}".removeprefix("0") or "0"
