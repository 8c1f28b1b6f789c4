"""The lessons as a map: part by part, with an arrow from each to those that build on
it.

The boxes are links in a list, which a keyboard and a screen reader walk through; the
picture behind them, drawn twice, has the arrows. Lines run between the boxes, never
behind them: out of a lesson on its right, down beside the boxes, along above the row of
the lesson that they lead to, and into it from the left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mtmm_lib.lesson import page
from mtmm_lib.lesson.book import Lesson, Planned

Point = tuple[float, float]
BOX, HEAD, TRACK, SPACE = 62, 30, 8, 10  # height of a box, a heading, a line; between


@dataclass(frozen=True)
class Mark:
    """How far a reader has come with a lesson."""

    state: str  # how it looks: "passed", "tried" or "next"
    sign: str
    words: str


@dataclass(frozen=True)
class _Frame:
    name: str
    columns: int
    box: float  # width
    gap: float  # between two boxes of a row
    margin: float  # left and right of a row

    @property
    def width(self) -> float:
        return self.left(self.columns) - self.gap + self.margin

    def left(self, column: int) -> float:
        """Of the boxes of a column."""
        return self.margin + column * (self.box + self.gap)

    def lane(self, number: int) -> Point:
        """From where to where lines may run on the left of a column; the last lane is
        on the right of all."""
        first, last = number == 0, number == self.columns
        low = 4 if first else self.left(number) - self.gap + 6
        return low, self.width - 4 if last else self.left(number) - 14


_WIDE = _Frame("wide", columns=4, box=142, gap=44, margin=30)
_TALL = _Frame("tall", columns=2, box=140, gap=32, margin=24)


@dataclass(frozen=True)
class Plan:
    """Where things are: corners of boxes by slug, heights of headings by part, the
    panel of each part (top and height), a line for each pair of lessons."""

    boxes: dict[str, Point]
    heads: dict[str, float]
    panels: list[Point]
    lines: dict[tuple[str, str], list[Point]]
    height: float


def direct(lessons: Sequence[Planned]) -> dict[str, tuple[str, ...]]:
    """Slug → what a lesson builds on, by slug, without what these build on
    themselves."""
    all_below: dict[str, set[str]] = {}
    found = {}
    for lesson in lessons:
        needs = lesson.needs if isinstance(lesson, Lesson) else ()
        deeper = set[str]().union(*(all_below[need] for need in needs))
        all_below[lesson.slug] = deeper | set(needs)
        found[lesson.slug] = tuple(need for need in needs if need not in deeper)
    return found


def alt(lessons: Sequence[Planned], marks: Mapping[str, Mark] | None = None) -> str:
    """The map in words, a line for each part."""
    needs, known = direct(lessons), {lesson.slug: lesson for lesson in lessons}
    return "\n".join(
        f"{part}: "
        + "; ".join(
            _name(lesson) + _words(lesson, needs, known, (marks or {}).get(lesson.slug))
            for lesson in those
        )
        + "."
        for part, those in _parts(lessons).items()
    )


def html(
    lessons: Sequence[Planned],
    link: Callable[[Lesson], str],
    marks: Mapping[str, Mark] | None = None,
) -> str:
    """The map for any page; it takes the page's light or dark colours and stands
    upright where the page is narrow.

    Args:
        lessons: in order, each after those that it needs; the lessons of a part
            together.
        link: the address of a lesson, as seen from the page.
        marks: slug → how far the reader has come.
    """
    needs, known = direct(lessons), {lesson.slug: lesson for lesson in lessons}
    wide, tall = plan(lessons, _WIDE), plan(lessons, _TALL)
    numbers = {lesson.slug: number for number, lesson in enumerate(lessons)}

    def box(lesson: Planned) -> str:
        (x, y), (u, v) = wide.boxes[lesson.slug], tall.boxes[lesson.slug]
        place = f'style="--x:{x:g};--y:{y:g};--u:{u:g};--v:{v:g}"'
        mark = (marks or {}).get(lesson.slug)
        words = escape(lesson.title)
        if isinstance(lesson, Lesson):
            words = f"<b>{lesson.number}</b> {words}"
        words += f"<i>{escape(_words(lesson, needs, known, mark))}</i>"
        words = f"<span>{words}</span>"
        if not isinstance(lesson, Lesson):
            return f'<li {place}><span class="box">{words}</span></li>'
        if mark:
            words += f'<em aria-hidden="true">{mark.sign} {escape(mark.words)}</em>'
        names = f"box n{numbers[lesson.slug]}" + (f" {mark.state}" if mark else "")
        return f'<li {place}><a class="{names}" href="{link(lesson)}">{words}</a></li>'

    body = ""
    for part, those in _parts(lessons).items():
        place = f'style="--y:{wide.heads[part]:g};--v:{tall.heads[part]:g}"'
        boxes = "".join(map(box, those))
        body += f'<p {place} aria-hidden="true">{escape(part)}</p>'
        body += f'<ol role="list" aria-label="{escape(part)}">{boxes}</ol>'
    body = f"{_svg(wide, _WIDE, numbers)}{_svg(tall, _TALL, numbers)}{body}"
    sizes = f"--high:{BOX};" + "".join(
        f"--{frame.name}:{frame.width:g};--{frame.name}-box:{frame.box:g};"
        f"--{frame.name}-left:{frame.margin:g};"
        for frame in (_WIDE, _TALL)
    )
    legend = "An arrow leads from a lesson to those that build on it."
    if any(not isinstance(lesson, Lesson) for lesson in lessons):
        legend += " Dashed: planned."
    return page.wrap(
        f"{page.style('map')}<style>{_highlights(len(lessons))}</style>"
        '<nav class="mtmm-map" aria-label="The lessons, and what each builds on">'
        f'<div style="{sizes}">{body}</div><p class="mtmm-soft">{legend}</p></nav>'
    )


def plan(lessons: Sequence[Planned], frame: _Frame) -> Plan:
    """Places for boxes, and ways for lines.

    A row is as high as its lines need, and lines of two lessons never lie on one
    another.
    """
    places: dict[str, tuple[int, int]] = {}
    rows: dict[str, list[int]] = {}
    count = 0
    for part, those in _parts(lessons).items():
        for number, lesson in enumerate(those):
            row, column = divmod(number, frame.columns)
            places[lesson.slug] = count + row, column
        rows[part] = list(range(count, count + 1 + (len(those) - 1) // frame.columns))
        count += len(rows[part])
    pairs = [(a, b) for b, needs in direct(lessons).items() for a in needs]
    tracks = _tracks(pairs, places)

    boxes_at, gaps_at, heads, panels = {}, {}, {}, []
    y = 0.0
    for part, own in rows.items():
        top, heads[part] = y, y
        y += HEAD
        for row in own:
            gaps_at[row] = y
            y += TRACK * len(set(tracks["row", row].values())) + (row > own[0]) * SPACE
            boxes_at[row] = y
            y += BOX
        y += SPACE + 4
        panels.append((top, y - top))
        y += SPACE
    corner = {
        slug: (frame.left(column), boxes_at[row])
        for slug, (row, column) in places.items()
    }

    def beside(lane: int, slug: str) -> float:
        used = tracks["lane", lane]
        low, high = frame.lane(lane)
        step = (high - low) / (len(set(used.values())) + 1)
        return low + step * (used[slug] + 1)

    def above(row: int, slug: str) -> float:
        first = row > 0 and row not in [own[0] for own in rows.values()]
        return (
            gaps_at[row] + first * SPACE / 2 + TRACK * (tracks["row", row][slug] + 0.5)
        )

    lines = {}
    for a, b in pairs:
        (row, column), (goal, there) = places[a], places[b]
        (x0, y0), (x1, y1) = corner[a], corner[b]
        x0, y0, y1 = x0 + frame.box, y0 + BOX / 2, y1 + BOX / 2
        if (row, column + 1) == (goal, there):
            lines[a, b] = [(x0, y0), (x1, y1)]
            continue
        # below and above the straight arrows of the same boxes
        y0, y1, out = y0 + 10, y1 - 10, beside(column + 1, a)
        way = [(x0, y0), (out, y0)]
        if column + 1 == there:
            way += [(out, y1)]
        else:
            along, into = above(goal, a), beside(there, a)
            way += [(out, along), (into, along), (into, y1)]
        lines[a, b] = [*way, (x1, y1)]
    return Plan(corner, heads, panels, lines, y - SPACE)


def _parts(lessons: Sequence[Planned]) -> dict[str, list[Planned]]:
    parts: dict[str, list[Planned]] = {}
    for lesson in lessons:
        parts.setdefault(lesson.part, []).append(lesson)
    return parts


def _name(lesson: Planned) -> str:
    return (
        f"{lesson.number} {lesson.title}"
        if isinstance(lesson, Lesson)
        else lesson.title
    )


def _words(
    lesson: Planned,
    needs: Mapping[str, Sequence[str]],
    known: Mapping[str, Planned],
    mark: Mark | None,
) -> str:
    """What the picture shows about a lesson, for those who hear it."""
    numbers = [
        other.number
        for other in map(known.__getitem__, needs[lesson.slug])
        if isinstance(other, Lesson)
    ]
    told = [f"builds on {' and '.join(numbers)}"] if numbers else []
    told += [] if isinstance(lesson, Lesson) else ["planned"]
    told += [mark.words] if mark else []
    return "".join(f", {words}" for words in told)


def _tracks(
    pairs: Sequence[tuple[str, str]], places: Mapping[str, tuple[int, int]]
) -> dict[tuple[str, int], dict[str, int]]:
    """For each lane beside a column and each gap above a row: lesson → the track that
    its lines take there.

    Along a lane a row r counts 2r + 1 and the gap above it 2r.
    """
    used: dict[tuple[str, int], dict[str, list[int]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for a, b in pairs:
        (row, column), (goal, there) = places[a], places[b]
        out = column + 1
        if (row, out) != (goal, there):
            turn = 2 * goal + (out == there)
            used["lane", out][a] += [2 * row + 1, turn]
            if out != there:
                used["row", goal][a] += [out, there]
                used["lane", there][a] += [turn, 2 * goal + 1]
    found: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for place, spans in used.items():
        ends: list[int] = []
        for slug, span in sorted(spans.items(), key=lambda item: sorted(item[1])):
            free = (track for track, end in enumerate(ends) if end < min(span))
            found[place][slug] = track = next(free, len(ends))
            ends[track : track + 1] = [max(span)]
    return found


def _highlights(count: int) -> str:
    """Rules that colour the lines of the lesson that a pointer or the keyboard is
    on."""
    return "".join(
        f".mtmm-map:has(.box.n{number}:is(:hover,:focus-visible)) g.n{number}"
        "{color:var(--mtmm-accent);stroke-width:3}"
        for number in range(count)
    )


def _svg(drawn: Plan, frame: _Frame, numbers: Mapping[str, int]) -> str:
    body = "".join(
        f'<rect y="{y:g}" width="{frame.width:g}" height="{height:g}" rx="8"/>'
        for y, height in drawn.panels
    )
    for (a, b), way in drawn.lines.items():
        x, y = way[-1]
        head = f"{x:g},{y:g} {x - 9:g},{y - 5:g} {x - 9:g},{y + 5:g}"
        body += (
            f'<g class="n{numbers[a]} n{numbers[b]}">'
            f'<path d="{_rounded([*way[:-1], (x - 7, y)])}"/>'
            f'<polygon points="{head}"/></g>'
        )
    words = "Arrows between the lessons; the list says which lesson builds on which."
    return (
        f'<svg class="{frame.name}" role="img" aria-label="{words}" '
        f'viewBox="0 0 {frame.width:g} {drawn.height:g}">{body}</svg>'
    )


def _rounded(points: Sequence[Point], radius: float = 6) -> str:
    """A path through some points, its corners rounded."""

    def towards(start: Point, end: Point) -> str:
        (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
        share = min(radius / (abs(dx) + abs(dy) or 1), 0.5)
        return f"{x + share * dx:g} {y + share * dy:g}"

    path = "M{:g} {:g}".format(*points[0])
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        path += f"L{towards(corner, before)}Q{corner[0]:g} {corner[1]:g} "
        path += towards(corner, after)
    return path + "L{:g} {:g}".format(*points[-1])
