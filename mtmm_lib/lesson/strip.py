"""The book's one picture, drawn: inputs, mappings, losses, update; a chapter's arrows
are highlighted.

Drawn once, in coordinates (u, v): u runs along the mappings, v across the lanes of
modalities and tasks. The wide picture takes them as (x, y), the tall one, for narrow
pages, as (y, x).
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from mtmm_lib.lesson import book, page
from mtmm_lib.lesson.article import ARROWS

Point = tuple[float, float]


@dataclass(frozen=True)
class _Layout:
    tall: bool
    size: Point  # width, height
    # u of inputs, features, representation, task features, predictions
    stages: tuple[float, ...]
    reach: tuple[float, ...]  # how far along u each of them extends to either side
    lanes: tuple[float, ...]  # v of the three modalities, and of the three tasks
    losses: Point  # (u, v)
    update: Point  # (u, v)
    box: Point  # width and height of the update's box
    nouns: float  # v of the nouns

    def at(self, u: float, v: float) -> Point:
        return (v, u) if self.tall else (u, v)


_WIDE = _Layout(
    tall=False,
    size=(880, 300),
    stages=(54, 252, 436, 620, 822),
    reach=(38, 28, 31, 17, 17),
    lanes=(70, 114, 158),
    losses=(822, 258),
    update=(436, 258),
    box=(236, 38),
    nouns=22,
)
_TALL = _Layout(
    tall=True,
    size=(360, 540),
    stages=(38, 134, 230, 326, 422),
    reach=(25, 14, 31, 17, 17),
    lanes=(130, 173, 216),
    losses=(510, 173),
    update=(230, 308),
    box=(98, 68),
    nouns=2,
)

_DIGIT = ("1110", "0001", "0110", "0001", "1110")  # a three, in pixels


def _arrows(chapter: str | None) -> tuple[str, ...]:
    return () if chapter is None else book.lesson(chapter).arrows


def alt(chapter: str | None = None) -> str:
    """The picture in words."""
    text = (
        "Inputs of several modalities pass through encoders to features, through "
        "fusion to one representation, through sharing to a feature per task, and "
        "through heads to predictions. Tasks turn the predictions into losses, and a "
        "balancer turns the losses into one update of the parameters."
    )
    arrows = _arrows(chapter)
    if arrows == ARROWS:
        return f"{text} Highlighted: every arrow."
    return f"{text} Highlighted: {' and '.join(arrows)}." if arrows else text


def html(chapter: str | None = None) -> str:
    """The picture for any page, with the arrows of a chapter highlighted; `None`: none
    of them.

    It follows the page's light or dark theme and stands upright where the page is
    narrow.

    Raises:
        ValueError: when there is no such chapter.
    """
    return page.wrap(pictures(chapter), "mtmm-strip")


def pictures(chapter: str | None = None) -> str:
    """The wide and the tall picture, of which a page shows the one that fits."""
    return f"{page.style('strip')}{svg(chapter)}{svg(chapter, tall=True)}"


def standalone() -> str:
    """The wide picture as an SVG file of its own, which follows the reader's light or
    dark setting."""
    colours = (
        f"<style>svg{{{page.LIGHT}}}@media "
        f"(prefers-color-scheme:dark){{svg{{{page.DARK}}}}}</style>"
    )
    head, body = svg().split(">", 1)
    return f"{head}>{colours}{body}\n"


def svg(chapter: str | None = None, *, tall: bool = False) -> str:
    """One of the two pictures. Its colours are the variables that `page` defines."""
    layout = _TALL if tall else _WIDE
    on = _arrows(chapter)
    body = "".join(
        [*_mappings(layout, on), *_back(layout, on), *_things(layout), *_nouns(layout)]
    )
    width, height = layout.size
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" class="mtmm-s '
        f'{"tall" if tall else "wide"}" role="img" '
        f'aria-label="{escape(alt(chapter))}" viewBox="0 0 {width} '
        f'{height}">{page.style("picture")}{body}</svg>'
    )


def _mappings(layout: _Layout, on: tuple[str, ...]) -> list[str]:
    middle = layout.lanes[1]
    straight = [(v, v) for v in layout.lanes]
    narrowing = [(v, middle + (v - middle) / 4) for v in layout.lanes]
    widening = [(v1, v0) for v0, v1 in narrowing]
    bundles = {
        "encoders": straight,
        "fusion": narrowing,
        "sharing": widening,
        "heads": straight,
    }
    edges = [
        (u - reach - 5, u + reach + 5)
        for u, reach in zip(layout.stages, layout.reach, strict=True)
    ]
    return [
        _bundle(layout, name, on, edges[i][1], edges[i + 1][0], lines)
        for i, (name, lines) in enumerate(bundles.items())
    ]


def _bundle(
    layout: _Layout,
    name: str,
    on: tuple[str, ...],
    start: float,
    end: float,
    lines: list[Point],
) -> str:
    middle = (start + end) / 2
    drawn = ""
    for v0, v1 in lines:
        path = _curve(layout, (start, v0), (middle, v0), (middle, v1), (end - 8, v1))
        drawn += _arrow(layout, path, (end, v1), (1, 0))
    return _group(name, on, drawn + _pill(layout.at(middle - 4, layout.lanes[1]), name))


def _back(layout: _Layout, on: tuple[str, ...]) -> list[str]:
    (u, v), (last, lowest) = layout.update, (layout.stages[-1], layout.lanes[-1])
    along, across = (
        side / 2 for side in (reversed(layout.box) if layout.tall else layout.box)
    )
    loss_u, loss_v = layout.losses
    if layout.tall:
        tasks = _bundle(
            layout,
            "tasks",
            on,
            last + 16,
            loss_u - 13,
            [(lane, lane) for lane in layout.lanes],
        )
        end = (u + along + 4, v)
        path = _curve(
            layout,
            (loss_u, lowest + 18),
            (loss_u, v - 20),
            (loss_u, v),
            (loss_u - 50, v),
            end=end,
        )
        balancer = _arrow(layout, path, end, (-1, 0)) + _pill(
            layout.at(loss_u - 100, v), "balancer"
        )
    else:
        end = (last, loss_v - 13)
        tasks = _arrow(
            layout, _curve(layout, (last, lowest + 16), end=end), end, (0, 1)
        )
        tasks = _group(
            "tasks", on, tasks + _pill(layout.at(last, (lowest + loss_v) / 2), "tasks")
        )
        start, end = (last - 34, v), (u + along + 4, v)
        balancer = _arrow(layout, _curve(layout, start, end=end), end, (-1, 0))
        balancer += _pill(layout.at((start[0] + end[0]) / 2, v), "balancer")
    return [
        _updates(layout, v - across, lowest + 14),
        _update(layout),
        tasks,
        _group("balancer", on, balancer),
    ]


def _updates(layout: _Layout, start: float, end: float) -> str:
    drawn = ""
    for i in range(4):
        u = (layout.stages[i] + layout.stages[i + 1]) / 2
        u0, middle = (
            layout.update[0] + (i - 1.5) * (16 if layout.tall else 50),
            (start + end) / 2,
        )
        path = _curve(layout, (u0, start - 3), (u0, middle), (u, middle), (u, end + 8))
        drawn += f'<path class="d" d="{path}"/>{_head(layout, (u, end), (0, -1), 5)}'
    return drawn


def _update(layout: _Layout) -> str:
    (x, y), (w, h) = layout.at(*layout.update), layout.box
    lines = (
        ("one update", "of the", "parameters")
        if layout.tall
        else ("one update of the parameters",)
    )
    return (
        f'<rect class="p" x="{x - w / 2:g}" y="{y - h / 2:g}" width="{w}" '
        f'height="{h}" rx="9"/>'
    ) + _lines(x, y, lines, "middle")


def _things(layout: _Layout) -> list[str]:
    inputs, features, representation, per_task, predictions = layout.stages
    drawn = []
    for i, lane in enumerate(layout.lanes):
        x, y = layout.at(inputs, lane)
        w, h = (42, 38) if layout.tall else (64, 38)
        drawn.append(
            f'<rect class="p" x="{x - w / 2:g}" y="{y - h / 2:g}" width="{w}" '
            f'height="{h}" rx="7"/>'
        )
        drawn.append((_picture, _sound, _words)[i](x, y))
        x, y = layout.at(features, lane)
        drawn += [_square(x + 14 * k, y, 11, f"m{i}") for k in (-1, 0, 1)]
        drawn.append(_square(*layout.at(per_task, lane), 22, f"t{i}"))
        x, y = layout.at(predictions, lane)
        drawn.append(f'<circle class="t{i}" cx="{x:g}" cy="{y:g}" r="11"/>')
        x, y = layout.at(*layout.losses)
        x += (i - 1) * (layout.lanes[1] - layout.lanes[0] if layout.tall else 18)
        drawn.append(f'<path class="t{i}" d="M{x:g} {y - 10:g}l9 10-9 10-9-10z"/>')
    x, y = layout.at(representation, layout.lanes[1])
    drawn.append(
        f'<rect class="p" x="{x - 25:g}" y="{y - 25:g}" width="50" height="50" rx="9"/>'
    )
    drawn += [
        _square(x + 14 * j, y + 14 * k, 11, f"m{(j + k) % 3}")
        for j in (-1, 0, 1)
        for k in (-1, 0, 1)
    ]
    return drawn


def _nouns(layout: _Layout) -> list[str]:
    words = (
        ("inputs",),
        ("features",),
        ("one", "representation"),
        ("a feature", "per task"),
        ("predictions",),
    )
    symbols = (("x", "m"), ("z", "m"), ("z", ""), ("h", "t"), ("ŷ", "t"))
    anchor = "start" if layout.tall else "middle"
    drawn = []
    for u, lines, symbol in zip(layout.stages, words, symbols, strict=True):
        x, y = layout.at(u, layout.nouns)
        lines = lines if layout.tall else (" ".join(lines),)
        drawn.append(
            _lines(
                x,
                y,
                (*lines[:-1], f"{lines[-1]} {_symbol(*symbol)}"),
                "start" if layout.tall else "middle",
            )
        )
    u, v = layout.losses
    x, y = layout.at(u, layout.nouns) if layout.tall else (u, v + 27)
    return [*drawn, _lines(x, y, (f"losses {_symbol('ℓ', 't')}",), anchor)]


def _lines(x: float, y: float, lines: tuple[str, ...], anchor: str) -> str:
    top = y + 5 - 9.5 * (len(lines) - 1)
    return "".join(
        f'<text x="{x:g}" y="{top + 19 * i:g}" text-anchor="{anchor}">{line}</text>'
        for i, line in enumerate(lines)
    )


def _symbol(letter: str, index: str) -> str:
    sub = f'<tspan class="sym sub" dy="4">{index}</tspan>' if index else ""
    return f'<tspan class="sym">{letter}</tspan>{sub}'


def _group(name: str, on: tuple[str, ...], body: str) -> str:
    return f'<g class="on">{body}</g>' if name in on else f"<g>{body}</g>"


def _curve(layout: _Layout, *points: Point, end: Point | None = None) -> str:
    """A cubic curve through four points (or none of one point), then a line to
    `end`."""
    (x0, y0), *rest = (layout.at(*point) for point in points)
    curve = "C" + " ".join(f"{x:g} {y:g}" for x, y in rest) if rest else ""
    line = "L{:g} {:g}".format(*layout.at(*end)) if end else ""
    return f"M{x0:g} {y0:g}{curve}{line}"


def _head(layout: _Layout, tip: Point, along: Point, size: float) -> str:
    (u, v), (du, dv) = tip, along
    corners = [tip, (u - du * 1.7 * size - dv * size, v - dv * 1.7 * size + du * size)]
    corners.append((u - du * 1.7 * size + dv * size, v - dv * 1.7 * size - du * size))
    points = " ".join(
        f"{x:g},{y:g}" for x, y in (layout.at(*corner) for corner in corners)
    )
    return f'<polygon class="h" points="{points}"/>'


def _arrow(layout: _Layout, path: str, tip: Point, along: Point) -> str:
    return f'<path class="a" d="{path}"/>{_head(layout, tip, along, 6)}'


def _pill(at: Point, word: str) -> str:
    x, y = at
    width = 8.2 * len(word) + 20
    return (
        f'<rect class="p" x="{x - width / 2:g}" y="{y - 13:g}" width="{width:g}" '
        'height="26" rx="13"/>'
        f'<text class="n" x="{x:g}" y="{y + 5:g}" text-anchor="middle">{word}</text>'
    )


def _square(x: float, y: float, size: float, kind: str) -> str:
    x, y = x - size / 2, y - size / 2
    return (
        f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{size}" height="{size}" '
        f'rx="{size / 5:g}"/>'
    )


def _picture(x: float, y: float) -> str:
    return "".join(
        (
            f'<rect class="m0" x="{x - 11 + 5.6 * j:g}" y="{y - 14 + 5.6 * i:g}" '
            'width="5" height="5"/>'
        )
        for i, row in enumerate(_DIGIT)
        for j, pixel in enumerate(row)
        if pixel == "1"
    )


def _sound(x: float, y: float) -> str:
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
