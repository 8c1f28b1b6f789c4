"""Drawn architectures, in the look of the book's strip.

An author describes parts and what flows between them; the picture, in a wide and a tall
layout, and its text alternative follow from that:

    from mtmm_lib.lesson import Flow, Part, diagram

    diagram(
        "Both losses send their gradients into the one trunk.",
        tasks=["digit", "rate"],
        parts=[
            Part("input", (0, 0.5), of="sound", symbol="x", note="192 numbers"),
            Part("box", (1, 0.5), "trunk", of=["digit", "rate"], state="new"),
            Part("feature", (2, 0), of="digit"),
            Part("feature", (2, 1), of="rate"),
            Part("head", (3, 0), of="digit"),
            Part("head", (3, 1), of="rate"),
            Part("loss", (4, 0), of="digit"),
            Part("loss", (4, 1), of="rate"),
        ],
        flows=[
            Flow("sound", "trunk", ["digit's feature", "rate's feature"]),
            Flow("digit's feature", "digit's head", "digit's loss"),
            Flow("rate's feature", "rate's head", "rate's loss"),
            Flow("digit's loss", "trunk", way="gradient", of="digit", symbol="g_1"),
            Flow("rate's loss", "trunk", way="gradient", of="rate", symbol="g_2"),
        ],
    )

A part stands in a column, which counts along the flow, and a lane across it; only their
order matters, distances follow. `Part` lists the kinds of parts and `Flow` the ways of
flowing. Where an arrow would run through a part, or words would lie on each other, in
either layout, that is an error with the names of both: `lane=` leads an arrow round, a
part moves by its place, names are shortened by `label=`. Sentences are told in the
order of the flows. More than nine parts are hard to take in: draw a piece of it, or two
pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot

from mtmm_lib.lesson import drawing, page, telling
from mtmm_lib.lesson.drawing import Curve, Point
from mtmm_lib.lesson.layout import Layout, Route
from mtmm_lib.lesson.parts import Description, Flow, Part
from mtmm_lib.lesson.shapes import FACTOR

_CLASS = {"forward": "a", "gradient": "b", "steering": "c", "tether": "a"}


def diagram(
    caption: str,
    *,
    parts: Sequence[Part],
    flows: Sequence[Flow],
    tasks: Sequence[str] = (),
) -> None:
    """Show a drawn architecture.

    Args:
        caption: the sentence under it: what to see.
        parts: what is drawn, each in a place of its own.
        flows: the arrows, in the order in which one tells them.
        tasks: at most three; the first is amber, the second ink, the third grey, and
            their symbols have the indices 1, 2 and 3.

    Raises:
        ValueError: a description that cannot be drawn, with the names of what is wrong.
    """
    drawn = Drawing(Description(parts, flows, tasks))
    html = page.captioned(drawn.html, caption)
    page.show(html, f"{caption}\n{drawn.words}", classes="mtmm-drawn")


class Drawing:
    """Both pictures of a diagram, and its words."""

    def __init__(self, of: Description) -> None:
        self.of = of
        self.words = telling.told(of)

    @property
    def html(self) -> str:
        return drawing.pair(self.svg(), self.svg(tall=True))

    def svg(self, *, tall: bool = False) -> str:
        """One of the two pictures, in the colours that `page` defines."""
        layout = Layout(self.of, tall)
        x0, y0 = layout.origin
        arrows = sorted(layout.routes, key=lambda route: -(route.arrow.weight or 0))
        body = "".join(self._arrow(layout, route) for route in arrows)
        for name, shape in layout.shapes.items():
            x, y = layout.axes.at(*layout.middle(name))
            body += shape.draw(x, y)
        body += "".join(self._sign(layout, route) for route in layout.routes)
        shift = f'<g transform="translate({-x0:g} {-y0:g})">{body}</g>'
        widest = "" if tall else f"{layout.size[0]}px"
        return drawing.picture(layout.size, tall, self.words, shift, widest)

    def _arrow(self, layout: Layout, route: Route) -> str:
        flow, weight = route.arrow.flow, route.arrow.weight
        colour = self.of.colour(flow.of) if flow.of else ""
        curves = route.curves
        if flow.way == "tether":
            curves = _spring(curves[0])
        elif weight is None and flow.way != "steering":
            curves = _shortened(curves, route.along)
        empty = self.of.named[route.arrow.source].state == "absent"
        kind = (
            f"{'no' if empty else _CLASS[flow.way]} {colour and colour + 's'}".strip()
        )
        wide = (
            f' style="stroke-width:{1 + 9 * weight:.3g}"' if weight is not None else ""
        )
        drawn = f'<path class="{kind}"{wide} d="{layout.axes.curves(curves)}"/>'
        if flow.way in ("tether", "steering") or weight is not None:
            return drawn
        size = 5 if flow.way == "gradient" else 6
        head = "no solid" if empty else f"h {colour and colour + 'h'}".strip()
        return drawn + layout.axes.head(route.tip, route.along, size, head)

    def _sign(self, layout: Layout, route: Route) -> str:
        """What stands on an arrow: its symbol, its factor, bars where it stops."""
        flow, drawn = route.arrow.flow, ""
        u, v = route.middle
        x, y = layout.axes.at(u, v)
        if flow.symbol:
            a, b, anchor = layout.sign(route)
            on_it = "halo" if flow.way in ("gradient", "steering") else ""
            drawn += drawing.text(a, b, drawing.symbol(flow.symbol), on_it, anchor)
        if flow.factor:
            kind = "p bads" if flow.factor[0] in "-−" else "p factor"
            drawn += drawing.circle(x, y, FACTOR, kind)
            drawn += drawing.text(x, y + 5, drawing.symbol(flow.factor))
        if flow.stop:
            du, dv = route.direction
            for shift in (-3, 3):
                a, b = u + shift * du, v + shift * dv
                ends = ((a - 10 * dv, b + 10 * du), (a + 10 * dv, b - 10 * du))
                path = layout.axes.curve(ends[0], end=ends[1])
                drawn += f'<path class="stop" d="{path}"/>'
        return drawn


def _shortened(curves: list[Curve], along: Point) -> list[Curve]:
    """The curves up to where the arrow's head begins."""
    *most, (start, first, second, (u, v)) = curves
    du, dv = (8 * side for side in along)
    return [*most, (start, first, (second[0] - du, second[1] - dv), (u - du, v - dv))]


def _spring(curve: Curve) -> list[Curve]:
    """A zigzag from end to end."""
    (a, b), (c, d) = curve[0], curve[3]
    length = hypot(c - a, d - b)
    along, turns = ((c - a) / length, (d - b) / length), max(4, round(length / 5))
    corners = [(a, b)]
    for i in range(turns):
        share = (0.12 + 0.76 * (i + 0.5) / turns) * length
        side = 6 if i % 2 else -6
        corners.append(
            (
                a + along[0] * share - along[1] * side,
                b + along[1] * share + along[0] * side,
            )
        )
    corners.append((c, d))
    return [
        (start, start, end, end)
        for start, end in zip(corners, corners[1:], strict=False)
    ]
