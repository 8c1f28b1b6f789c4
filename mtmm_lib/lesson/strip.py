"""The book's one picture, drawn: inputs, mappings, losses, update; a chapter's arrows
are highlighted.

Drawn once, in coordinates (u, v): u runs along the mappings, v across the lanes of
modalities and tasks. The wide picture takes them as (x, y), the tall one, for narrow
pages, as (y, x).
"""

from __future__ import annotations

from dataclasses import dataclass

from mtmm_lib.lesson import book, drawing, page
from mtmm_lib.lesson.article import ARROWS
from mtmm_lib.lesson.drawing import Axes, Point


@dataclass(frozen=True)
class _Layout(Axes):
    size: Point  # width, height
    # u of inputs, features, representation, task features, predictions
    stages: tuple[float, ...]
    reach: tuple[float, ...]  # how far along u each of them extends to either side
    lanes: tuple[float, ...]  # v of the three modalities, and of the three tasks
    losses: Point  # (u, v)
    update: Point  # (u, v)
    box: Point  # width and height of the update's box
    nouns: float  # v of the nouns


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
    return page.wrap(pictures(chapter), "mtmm-drawn")


def pictures(chapter: str | None = None) -> str:
    """The wide and the tall picture, of which a page shows the one that fits."""
    return drawing.pair(svg(chapter), svg(chapter, tall=True))


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
    return drawing.picture(layout.size, tall, alt(chapter), body)


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
        path = layout.curve((start, v0), (middle, v0), (middle, v1), (end - 8, v1))
        drawn += layout.arrow(path, (end, v1), (1, 0))
    return _group(
        name, on, drawn + drawing.pill(layout.at(middle - 4, layout.lanes[1]), name)
    )


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
        path = layout.curve(
            (loss_u, lowest + 18),
            (loss_u, v - 20),
            (loss_u, v),
            (loss_u - 50, v),
            end=end,
        )
        balancer = layout.arrow(path, end, (-1, 0)) + drawing.pill(
            layout.at(loss_u - 100, v), "balancer"
        )
    else:
        end = (last, loss_v - 13)
        tasks = layout.arrow(layout.curve((last, lowest + 16), end=end), end, (0, 1))
        tasks = _group(
            "tasks",
            on,
            tasks + drawing.pill(layout.at(last, (lowest + loss_v) / 2), "tasks"),
        )
        start, end = (last - 34, v), (u + along + 4, v)
        balancer = layout.arrow(layout.curve(start, end=end), end, (-1, 0))
        balancer += drawing.pill(layout.at((start[0] + end[0]) / 2, v), "balancer")
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
        path = layout.curve((u0, start - 3), (u0, middle), (u, middle), (u, end + 8))
        drawn += f'<path class="d" d="{path}"/>{layout.head((u, end), (0, -1), 5)}'
    return drawn


def _update(layout: _Layout) -> str:
    (x, y), (w, h) = layout.at(*layout.update), layout.box
    lines = (
        ("one update", "of the", "parameters")
        if layout.tall
        else ("one update of the parameters",)
    )
    return drawing.rectangle(x, y, w, h) + drawing.lines(x, y, lines)


def _things(layout: _Layout) -> list[str]:
    inputs, features, representation, per_task, predictions = layout.stages
    card = (42, 38) if layout.tall else (64, 38)
    drawn = []
    for i, lane in enumerate(layout.lanes):
        drawn.append(drawing.card(*layout.at(inputs, lane), card, i))
        drawn.append(drawing.row(*layout.at(features, lane), [f"m{i}"] * 3))
        drawn.append(drawing.square(*layout.at(per_task, lane), 22, f"t{i}"))
        drawn.append(drawing.circle(*layout.at(predictions, lane), 11, f"t{i}"))
        x, y = layout.at(*layout.losses)
        x += (i - 1) * (layout.lanes[1] - layout.lanes[0] if layout.tall else 18)
        drawn.append(drawing.diamond(x, y, f"t{i}"))
    return [*drawn, drawing.mixed(*layout.at(representation, layout.lanes[1]))]


def _nouns(layout: _Layout) -> list[str]:
    words = (
        ("inputs",),
        ("features",),
        ("one", "representation"),
        ("a feature", "per task"),
        ("predictions",),
    )
    symbols = ("x_m", "z_m", "z", "h_t", "ŷ_t")
    anchor = "start" if layout.tall else "middle"
    drawn = []
    for u, lines, symbol in zip(layout.stages, words, symbols, strict=True):
        x, y = layout.at(u, layout.nouns)
        lines = lines if layout.tall else (" ".join(lines),)
        drawn.append(
            drawing.lines(
                x,
                y,
                (*lines[:-1], f"{lines[-1]} {drawing.symbol(symbol)}"),
                anchor,
            )
        )
    u, v = layout.losses
    x, y = layout.at(u, layout.nouns) if layout.tall else (u, v + 27)
    return [*drawn, drawing.lines(x, y, (f"losses {drawing.symbol('ℓ_t')}",), anchor)]


def _group(name: str, on: tuple[str, ...], body: str) -> str:
    return f'<g class="on">{body}</g>' if name in on else f"<g>{body}</g>"
