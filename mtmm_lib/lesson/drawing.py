"""What the book's drawings are made of: one vocabulary for the strip and for diagrams.

A drawing stands in coordinates (u, v): u runs along the mappings, v across their lanes.
The wide picture takes them as (x, y), the tall one, for narrow pages, as (y, x). Both
go into the page, which shows the one that fits. Colours are the variables that `page`
defines; what flows is filled, what is trained is paper with an outline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import hypot

from mtmm_lib.lesson import page

Point = tuple[float, float]
Curve = tuple[Point, Point, Point, Point]  # a cubic one: start, two controls, end

MODALITIES = ("picture", "sound", "text")  # blue, green, purple: m0, m1, m2
_DIGIT = ("1110", "0001", "0110", "0001", "1110")  # a three, in pixels
# Widths in em of a wide sans, which a machine without a better one falls back to.
_THIN, _NARROW, _OTHER, _BROAD, _BOLD = 0.33, 0.42, 0.63, 0.95, 1.13


@dataclass(frozen=True)
class Axes:
    """Where (u, v) lies in the wide or in the tall picture."""

    tall: bool

    def at(self, u: float, v: float) -> Point:
        return (v, u) if self.tall else (u, v)

    def curve(self, *points: Point, end: Point | None = None) -> str:
        """A cubic curve through four points (or none of one point), then a line to
        `end`."""
        (x0, y0), *rest = (self.at(*point) for point in points)
        curve = "C" + " ".join(f"{x:g} {y:g}" for x, y in rest) if rest else ""
        line = "L{:g} {:g}".format(*self.at(*end)) if end else ""
        return f"M{x0:g} {y0:g}{curve}{line}"

    def curves(self, curves: Sequence[Curve]) -> str:
        """Curves that follow one another."""
        x, y = self.at(*curves[0][0])
        return f"M{x:.4g} {y:.4g}" + "".join(
            "C" + " ".join("{:.4g} {:.4g}".format(*self.at(*p)) for p in curve[1:])
            for curve in curves
        )

    def head(self, tip: Point, along: Point, size: float = 6, kind: str = "h") -> str:
        """The head of an arrow that arrives at `tip` in the direction `along`."""
        (u, v), (du, dv) = tip, along
        back_u, back_v = u - du * 1.7 * size, v - dv * 1.7 * size
        corners = (
            tip,
            (back_u - dv * size, back_v + du * size),
            (back_u + dv * size, back_v - du * size),
        )
        points = " ".join(
            f"{x:.5g},{y:.5g}" for x, y in (self.at(*corner) for corner in corners)
        )
        return f'<polygon class="{kind}" points="{points}"/>'

    def arrow(self, path: str, tip: Point, along: Point) -> str:
        return f'<path class="a" d="{path}"/>{self.head(tip, along)}'


def picture(size: Point, tall: bool, alt: str, body: str, widest: str = "") -> str:
    """The SVG of one of the two pictures; `widest`: a CSS length that it keeps to."""
    width, height = size
    limit = f' style="max-width:{widest}"' if widest else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="mtmm-s '
        f'{"tall" if tall else "wide"}" role="img" aria-label="{escape(alt)}" '
        f'viewBox="0 0 {width:g} {height:g}"{limit}>'
        f"{page.style('picture')}{body}</svg>"
    )


def pair(wide: str, tall: str) -> str:
    """Both pictures, of which the page shows the one that fits, in an element of the
    class `mtmm-drawn`."""
    return f"{page.style('drawn')}{wide}{tall}"


def width(words: str, size: float = 15, bold: bool = False) -> float:
    """About how wide a line of text is, rather too much than too little."""
    em = sum(
        _THIN
        if c in " ijlI.,:;'’|()[]·"
        else _NARROW
        if c in "ftr"
        else _BROAD
        if c in "mwMWΣ→"
        else _OTHER
        for c in words
    )
    return em * size * (_BOLD if bold else 1)


def text(
    x: float, y: float, markup: str, kind: str = "", anchor: str = "middle"
) -> str:
    of_kind = f'class="{kind}" ' if kind else ""
    return f'<text {of_kind}x="{x:g}" y="{y:g}" text-anchor="{anchor}">{markup}</text>'


def lines(x: float, y: float, markup: Sequence[str], anchor: str = "middle") -> str:
    """Lines of text around the height y."""
    top = y + 5 - 9.5 * (len(markup) - 1)
    return "".join(
        text(x, top + 19 * i, line, anchor=anchor) for i, line in enumerate(markup)
    )


def symbol(notation: str) -> str:
    """A symbol in italics, of a light notation: "h_1" has an index, "−λ" none."""
    letter, _, index = notation.partition("_")
    sub = f'<tspan class="sym sub" dy="4">{escape(index)}</tspan>' if index else ""
    return f'<tspan class="sym">{escape(letter)}</tspan>{sub}'


def symbol_width(notation: str) -> float:
    letter, _, index = notation.partition("_")
    plain = "".join(c for c in letter if c != "\u0302")  # a hat takes no room
    return width(plain, 15) + width(index, 11)


def rectangle(
    x: float, y: float, w: float, h: float, radius: float = 9, kind: str = "p"
) -> str:
    """A rectangle around (x, y)."""
    return (
        f'<rect class="{kind}" x="{x - w / 2:g}" y="{y - h / 2:g}" width="{w:g}" '
        f'height="{h:g}" rx="{radius:g}"/>'
    )


def outline(corners: Sequence[Point], kind: str = "p", radius: float = 7) -> str:
    """A polygon with rounded corners."""
    path = ""
    ring = [corners[-1], *corners, corners[0]]
    for before, corner, after in zip(ring, ring[1:], ring[2:], strict=False):
        entry, leave = (towards(corner, other, radius) for other in (before, after))
        path += (
            f"{'L' if path else 'M'}{entry[0]:.4g} {entry[1]:.4g}"
            f"Q{corner[0]:.4g} {corner[1]:.4g} {leave[0]:.4g} {leave[1]:.4g}"
        )
    return f'<path class="{kind}" d="{path}Z"/>'


def hatching(corners: Sequence[Point]) -> str:
    """Slanted lines inside a convex polygon: what does not learn."""
    ring = [*corners, corners[0]]
    sums = [x + y for x, y in corners]
    path = ""
    level = min(sums) + 9
    while level < max(sums) - 4:
        cut = []
        for (x0, y0), (x1, y1) in pairwise(ring):
            first, second = x0 + y0 - level, x1 + y1 - level
            if (first < 0) != (second < 0):
                share = first / (first - second)
                cut.append((x0 + share * (x1 - x0), y0 + share * (y1 - y0)))
        (x0, y0), (x1, y1) = cut
        path += f"M{x0:.4g} {y0:.4g}L{x1:.4g} {y1:.4g}"
        level += 9
    return f'<path class="ice" d="{path}"/>'


def towards(start: Point, end: Point, distance: float) -> Point:
    """The point so far from the first on the way to the second, half way at most."""
    (x0, y0), (x1, y1) = start, end
    share = min(0.5, distance / (hypot(x1 - x0, y1 - y0) or 1))
    return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


def pill(at: Point, word: str) -> str:
    x, y = at
    return rectangle(x, y, 8.2 * len(word) + 20, 26, 13) + text(x, y + 5, word, "n")


def square(x: float, y: float, size: float, kind: str) -> str:
    return rectangle(x, y, size, size, size / 5, kind)


def circle(x: float, y: float, radius: float, kind: str) -> str:
    return f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="{radius:g}"/>'


def diamond(x: float, y: float, kind: str) -> str:
    """A loss."""
    return f'<path class="{kind}" d="M{x:g} {y - 10:g}l9 10-9 10-9-10z"/>'


def row(x: float, y: float, kinds: Sequence[str]) -> str:
    """Features, or tokens: squares in the colours of where they come from."""
    start = x - 7 * (len(kinds) - 1)
    return "".join(square(start + 14 * k, y, 11, kind) for k, kind in enumerate(kinds))


def mixed(x: float, y: float, size: float = 50, kind: str = "p") -> str:
    """A fusion, or the one representation: squares of every modality in a frame."""
    return rectangle(x, y, size, size, 9, kind) + "".join(
        square(x + 14 * j, y + 14 * k, 11, f"m{(j + k) % 3}")
        for j in (-1, 0, 1)
        for k in (-1, 0, 1)
    )


def card(x: float, y: float, size: Point, modality: int, kind: str = "p") -> str:
    """An input: a card with its modality's sign."""
    sign = (_pixels, _bars, _words)[modality](x, y)
    return rectangle(x, y, *size, 7, kind) + sign


def _pixels(x: float, y: float) -> str:
    return "".join(
        (
            f'<rect class="m0" x="{x - 11 + 5.6 * j:g}" y="{y - 14 + 5.6 * i:g}" '
            'width="5" height="5"/>'
        )
        for i, row in enumerate(_DIGIT)
        for j, pixel in enumerate(row)
        if pixel == "1"
    )


def _bars(x: float, y: float) -> str:
    return "".join(
        (
            f'<rect class="m1" x="{x - 15 + 4.6 * i:g}" y="{y - h / 2:g}" width="2.8" '
            f'height="{h}" rx="1.4"/>'
        )
        for i, h in enumerate((6, 14, 24, 10, 18, 12, 5))
    )


def _words(x: float, y: float) -> str:
    return "".join(
        (
            f'<rect class="m2" x="{x - 14:g}" y="{y - 10.5 + 8 * i:g}" width="{w}" '
            'height="4.4" rx="2.2"/>'
        )
        for i, w in enumerate((28, 20, 24))
    )
