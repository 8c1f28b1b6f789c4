"""Where the parts of a diagram stand in one of its two pictures, and how its arrows
run."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import hypot

from mtmm_lib.lesson.drawing import Axes, Curve, Point, symbol_width, towards
from mtmm_lib.lesson.parts import Arrow, Description
from mtmm_lib.lesson.shapes import CELL, FACTOR, Box, Shape

LIMIT = {False: 880, True: 360}  # the width of the wide, of the tall picture
AIM = 720  # of the wide one: the width that a page of text has
GAPS = (30, 46)  # between columns: at least, and where there is room
APART = (24, 7)  # between lanes' parts: where there is room, and at least
TRACK = 22  # from the parts to the arrows that run back beside them, and between those
MARGIN = 6
CLEAR = 4  # from a part to its arrow
NEAR = 10  # what an arrow keeps from other parts
HEAD = 12  # the straight end of an arrow that comes by a lane


@dataclass(frozen=True)
class Route:
    """How one arrow runs, in (u, v)."""

    arrow: Arrow
    curves: list[Curve]
    along: Point  # its direction at the tip

    @property
    def tip(self) -> Point:
        return self.curves[-1][3]

    @property
    def points(self) -> list[Point]:
        return [_on(curve, i / 24) for curve in self.curves for i in range(25)]

    @property
    def middle(self) -> Point:
        """The point half way."""
        return self._half_way[0]

    @property
    def direction(self) -> Point:
        """Along the arrow, there."""
        return self._half_way[1]

    @property
    def _half_way(self) -> tuple[Point, Point]:
        points = self.points
        steps = [hypot(c - a, d - b) for (a, b), (c, d) in pairwise(points)]
        half, i = sum(steps) / 2, 0
        while half > steps[i]:
            half -= steps[i]
            i += 1
        length = steps[i] or 1
        (a, b), (c, d) = points[i : i + 2]
        along = ((c - a) / length, (d - b) / length)
        return (a + half * along[0], b + half * along[1]), along


class Layout:
    """One of the two pictures.

    Raises:
        ValueError: where it would be wider than the page, words or parts lie on each
            other, or an arrow runs through a part.
    """

    def __init__(self, of: Description, tall: bool) -> None:
        self.of, self.axes = of, Axes(tall)
        self.shapes = {
            name: Shape(part, of, self.axes, self._room(part.place[0]))
            for name, part in of.named.items()
        }
        self.columns = sorted({part.place[0] for part in of.parts})
        self.pitch = self._pitch()
        self.us, self.gaps = self._spread()
        self._tracks: list[tuple[int, float, float, float]] = []
        self.routes = [self._route(arrow) for arrow in of.arrows]
        self.origin, self.size = self._frame()
        self._check()

    def _room(self, column: float) -> float:
        """The width of a name in this column."""
        beside = sum(part.place[0] == column for part in self.of.parts)
        return 340 / beside - 34 if self.axes.tall else 130

    # Where the parts stand

    def _reach(self, name: str) -> tuple[Point, Point]:
        """A part's extent with its words: before and after along u, then along v."""
        left, top, right, bottom = self.shapes[name].reach
        x, y = (-left, right), (-top, bottom)
        return (y, x) if self.axes.tall else (x, y)

    def _half(self, name: str) -> Point:
        """Half of its body, along u and along v."""
        w, h = self.axes.at(*self.shapes[name].size)
        return w / 2, h / 2

    def _pitch(self) -> float:
        """From one lane to the next."""
        limit = LIMIT[self.axes.tall] - 2 * MARGIN
        if any(self._runs_back(arrow) for arrow in self.of.arrows):
            limit -= 4 * TRACK
        for apart in APART:
            pitch = self._pitched(apart)
            sides = [f.lane * pitch for f in self.of.flows if f.lane is not None]
            for name, part in self.of.named.items():
                before, after = self._reach(name)[1]
                sides += [part.place[1] * pitch + d for d in (-before, after)]
            if max(sides) - min(sides) <= limit or not self.axes.tall:
                break
        return pitch

    def _pitched(self, apart: float) -> float:
        pitch = 0.0
        for column in self.columns:
            inside = sorted(
                (part.place[1], name)
                for name, part in self.of.named.items()
                if part.place[0] == column
            )
            for (lane, name), (following, other) in pairwise(inside):
                room = self._reach(name)[1][1] + self._reach(other)[1][0]
                room += max(apart, self._between(name, other))
                pitch = max(pitch, room / (following - lane))
        return pitch or 60

    def _between(self, name: str, other: str) -> float:
        """What the arrows between two neighbours of a column need."""
        joined = [a for a in self.of.arrows if {a.source, a.target} == {name, other}]
        if any(a.flow.way == "tether" or a.flow.factor for a in joined):
            return 52
        return 22 if joined else 0

    def _spread(self) -> tuple[dict[float, float], dict[float, float]]:
        """Each column's u, and the width of the gap after it."""
        inside = {
            column: [n for n, p in self.of.named.items() if p.place[0] == column]
            for column in self.columns
        }
        before = {c: max(self._reach(n)[0][0] for n in inside[c]) for c in inside}
        after = {c: max(self._reach(n)[0][1] for n in inside[c]) for c in inside}
        needed = {c: self._gap(c) for c in self.columns[:-1]}
        free = AIM - 2 * MARGIN - sum(before.values()) - sum(after.values())
        free -= sum(needed.values())
        slack = min(GAPS[1] - GAPS[0], max(0, free / max(1, len(needed))))
        extra = 6 if self.axes.tall else slack
        us, u = {}, 0.0
        for column in self.columns:
            u += before[column]
            us[column] = u
            u += after[column] + needed.get(column, 0) + extra
        return us, {c: gap + extra for c, gap in needed.items()}

    def _gap(self, column: float) -> float:
        """What the arrows behind a column need: room for signs, and no steep curves."""
        gap = float(GAPS[0])
        for arrow in self.of.arrows:
            (c0, lane), (c1, other) = (
                self.of.named[name].place for name in (arrow.source, arrow.target)
            )
            if arrow.flow.way == "gradient" or not c0 <= column < c1:
                continue
            steep = 0.62 if arrow.weight is not None else 0.4
            gap = max(gap, min(120, steep * abs(other - lane) * self.pitch))
            if arrow.flow.symbol and not self.axes.tall:
                gap = max(gap, symbol_width(arrow.flow.symbol) + 24)
            if arrow.flow.factor:
                gap = max(gap, 2 * FACTOR + 34)
            if arrow.flow.stop:
                gap = max(gap, 46)
        return gap

    def middle(self, name: str) -> Point:
        """The (u, v) of a part."""
        column, lane = self.of.named[name].place
        return self.us[column], lane * self.pitch

    def box(self, name: str, of: Box | None = None) -> Box:
        """A box around a part's middle, by default its body, in (x, y)."""
        x, y = self.axes.at(*self.middle(name))
        left, top, right, bottom = of or self.shapes[name].body
        return (x + left, y + top, x + right, y + bottom)

    # How the arrows run

    def _route(self, arrow: Arrow) -> Route:
        (c0, l0), (c1, l1) = (
            self.of.named[name].place for name in (arrow.source, arrow.target)
        )
        if c0 == c1:
            return self._across(arrow)
        if self._runs_back(arrow):
            return self._back(arrow)
        if arrow.flow.way == "steering" and l0 != l1:
            elbow = self._elbow(arrow)
            if not self._crossed(elbow):
                return elbow
        return self._forward(arrow)

    def _runs_back(self, arrow: Arrow) -> bool:
        start, end = (
            self.of.named[name].place[0] for name in (arrow.source, arrow.target)
        )
        return end < start or (arrow.flow.way == "gradient" and end != start)

    def _forward(self, arrow: Arrow) -> Route:
        (u0, v0), (u1, v1) = self.middle(arrow.source), self.middle(arrow.target)
        v0 += self._port(arrow, out=True)
        shift = self._port(arrow, out=False)
        v1 += shift
        u0 += self._half(arrow.source)[0] + CLEAR
        depth = self._half(arrow.target)[0]
        if self.of.named[arrow.target].kind == "node":
            depth = (depth**2 - shift**2) ** 0.5
        u1 -= depth + (CLEAR if arrow.weight is None else 0)
        first, last = self._gap_after(arrow.source), self._gap_before(arrow.target)
        if arrow.flow.lane is not None:
            lane = arrow.flow.lane * self.pitch
            leave, arrive = max(u0, first[0]), min(u1 - HEAD, last[1])
            curves = [
                _line((u0, v0), (leave, v0)),
                _bend((leave, v0), (first[1], lane)),
                _line((first[1], lane), (last[0], lane)),
                _bend((last[0], lane), (arrive, v1)),
                _line((arrive, v1), (u1, v1)),
            ]
            return Route(arrow, curves, (1, 0))
        if first == last or v0 == v1:
            straight = _line((u0, v0), (u1, v1))
            return Route(
                arrow, [straight if v0 == v1 else _bend((u0, v0), (u1, v1))], (1, 0)
            )
        early = Route(
            arrow,
            [_bend((u0, v0), (first[1], v1)), _line((first[1], v1), (u1, v1))],
            (1, 0),
        )
        late = Route(
            arrow,
            [_line((u0, v0), (last[0], v0)), _bend((last[0], v0), (u1, v1))],
            (1, 0),
        )
        return late if self._crossed(early) else early

    def _gap_after(self, name: str) -> Point:
        """The gap behind a part's column, from u to u."""
        column = self.of.named[name].place[0]
        i = bisect_left(self.columns, column)
        return self._gap_between(i)

    def _gap_before(self, name: str) -> Point:
        column = self.of.named[name].place[0]
        return self._gap_between(bisect_left(self.columns, column) - 1)

    def _gap_between(self, i: int) -> Point:
        column, following = self.columns[i : i + 2]
        end = self.us[following] - max(
            self._reach(n)[0][0]
            for n, p in self.of.named.items()
            if p.place[0] == following
        )
        return end - self.gaps[column], end

    def _port(self, arrow: Arrow, *, out: bool) -> float:
        """How far from the middle of a part's side an arrow leaves or arrives."""
        name = arrow.source if out else arrow.target
        beside = []
        for other in self.of.arrows:
            near, far = other.source, other.target
            if not out:
                near, far = far, near
            (c0, _), (c1, lane) = self.of.named[near].place, self.of.named[far].place
            ahead = c1 > c0 if out else c1 < c0
            if near == name and ahead and other.flow.way in ("forward", "tether"):
                lane = lane if other.flow.lane is None else other.flow.lane
                beside.append((lane, far))
        beside.sort()
        far = arrow.target if out else arrow.source
        mine = [i for i, (_, other) in enumerate(beside) if other == far]
        if not mine or len(beside) < 2:
            return 0
        kind, across = self.of.named[name].kind, self._half(name)[1]
        if kind == "table":
            step = float(CELL)
        elif kind == "node":
            widest = 14 if arrow.weight is not None else 24
            step = min(widest / 2, widest / (len(beside) - 1))
        else:
            step = max(0, min(14, (2 * across - 20) / (len(beside) - 1)))
        return step * (mine[0] - (len(beside) - 1) / 2)

    def _across(self, arrow: Arrow) -> Route:
        """Between two parts of one column."""
        (u, v0), (_, v1) = self.middle(arrow.source), self.middle(arrow.target)
        way = 1 if v1 > v0 else -1
        clear = 1 if arrow.flow.way in ("tether", "steering") else CLEAR
        reach = self._reach(arrow.source)[1][1 if way > 0 else 0]
        v0 += way * (reach + clear)
        reach = self._reach(arrow.target)[1][0 if way > 0 else 1]
        v1 -= way * (reach + clear)
        return Route(arrow, [_line((u, v0), (u, v1))], (0, way))

    def _elbow(self, arrow: Arrow) -> Route:
        """From a part's end into another's side: how a gate steers."""
        (u0, v0), (u1, v1) = self.middle(arrow.source), self.middle(arrow.target)
        way = 1 if v1 > v0 else -1
        u0 += self._half(arrow.source)[0] + 1
        v1 -= way * (self._reach(arrow.target)[1][0 if way > 0 else 1] + 1)
        third = (u1 - u0) * 0.4
        curve = ((u0, v0), (u1 - third, v0), (u1, v0 + (v1 - v0) * 0.3), (u1, v1))
        return Route(arrow, [curve], (0, way))

    def _back(self, arrow: Arrow) -> Route:
        """On a track beside the parts: on the side where its source stands, if that is
        free."""
        if arrow.flow.lane is not None:
            return self._tracked(arrow, arrow.flow.lane * self.pitch)
        side = self._side(arrow)
        depths = {way: self._depth(arrow, way) for way in (side, -side)}
        routes = [self._tracked(arrow, way * depths[way]) for way in depths]
        if self._crossed(routes[0]) and not self._crossed(routes[1]):
            side, routes = -side, routes[1:]
        left, right = self._ends(arrow)
        self._tracks.append((side, left, right, depths[side]))
        return routes[0]

    def _side(self, arrow: Arrow) -> int:
        """Beside which lane a track lies: -1 is the first, 1 the last."""
        (_, v0), (_, v1) = self.middle(arrow.source), self.middle(arrow.target)
        lanes = [part.place[1] * self.pitch for part in self.of.parts]
        return -1 if v0 < v1 or (v0 == v1 and v0 < (min(lanes) + max(lanes)) / 2) else 1

    def _ends(self, arrow: Arrow) -> Point:
        """Between which u an arrow runs."""
        u0, u1 = self.middle(arrow.source)[0], self.middle(arrow.target)[0]
        return min(u0, u1), max(u0, u1)

    def _depth(self, arrow: Arrow, way: int) -> float:
        """How far out a track has to lie on this side."""
        left, right = self._ends(arrow)
        over = [
            way * self.middle(n)[1] + self._reach(n)[1][1 if way > 0 else 0]
            for n in self.of.named
            if left - 30 <= self.middle(n)[0] <= right + 30
        ]
        taken = [
            depth
            for side, start, end, depth in self._tracks
            if side == way and start < right and left < end
        ]
        return max(over + taken) + TRACK

    def _tracked(self, arrow: Arrow, track: float) -> Route:
        (u0, v0), (u1, v1) = self.middle(arrow.source), self.middle(arrow.target)
        way = -1 if track < v1 else 1
        side = 1 if way > 0 else 0
        v0 += way * (self._reach(arrow.source)[1][side] + CLEAR)
        v1 += way * (self._reach(arrow.target)[1][side] + CLEAR)
        u1 += self._entry(arrow)
        corners = [(u0, v0), (u0, track), (u1, track), (u1, v1)]
        return Route(arrow, _path(corners, radius=12), (0, -way))

    def _entry(self, arrow: Arrow) -> float:
        """Where along its side a part takes what runs back, if it takes more there."""
        same = [
            other.source
            for other in self.of.arrows
            if other.target == arrow.target
            and self._runs_back(other)
            and self._side(other) == self._side(arrow)
        ]
        return 16 * (same.index(arrow.source) - (len(same) - 1) / 2)

    # The frame, and whether all is well in it

    def sign(self, route: Route) -> tuple[float, float, str]:
        """Where an arrow's symbol stands, in (x, y), with its anchor."""
        u, v = route.middle
        x, y = self.axes.at(u, v)
        if route.arrow.flow.way == "gradient":
            return x, y + 5, "middle"
        (x0, y0), (x1, y1) = (
            self.axes.at(*point) for point in (route.curves[0][0], route.tip)
        )
        if abs(x1 - x0) < abs(y1 - y0):
            return x + 14, y + 5, "start"
        return x, y - (16 if route.arrow.flow.way == "tether" else 9), "middle"

    def sign_box(self, route: Route) -> Box:
        x, y, anchor = self.sign(route)
        w = symbol_width(route.arrow.flow.symbol)
        left = x if anchor == "start" else x - w / 2
        return (left, y - 13, left + w, y + 5)

    @property
    def words(self) -> Iterator[tuple[str, Box]]:
        """Where words and signs stand, with the part or arrow they belong to."""
        for name, shape in self.shapes.items():
            for label in shape.labels:
                yield name, self.box(name, label.box)
        for route in self.routes:
            if route.arrow.flow.symbol:
                yield told(route.arrow), self.sign_box(route)
            if route.arrow.flow.factor:
                x, y = self.axes.at(*route.middle)
                box = (x - FACTOR, y - FACTOR, x + FACTOR, y + FACTOR)
                yield told(route.arrow), box

    def _frame(self) -> tuple[Point, Point]:
        """The top left corner, and width and height."""
        boxes = [self.box(name, shape.reach) for name, shape in self.shapes.items()]
        boxes += [box for _, box in self.words]
        for route in self.routes:
            xs, ys = zip(*(self.axes.at(*p) for p in route.points), strict=True)
            boxes.append((min(xs) - 3, min(ys) - 3, max(xs) + 3, max(ys) + 3))
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        left, top = min(lefts) - MARGIN, min(tops) - MARGIN
        width, height = max(rights) + MARGIN - left, max(bottoms) + MARGIN - top
        limit = LIMIT[self.axes.tall]
        if width > limit:
            kind, things = ("tall", "lanes") if self.axes.tall else ("wide", "columns")
            raise ValueError(
                f"the {kind} picture takes {width:.0f} pixels, of {limit}: fewer "
                f"{things}, shorter names or notes"
            )
        if self.axes.tall:  # always of one scale, so that type has one size
            left, width = left - (limit - width) / 2, limit
        return (left, top), (round(width), round(height))

    def _check(self) -> None:
        for (name, first), (other, second) in combinations(self._areas(), 2):
            if name != other and _overlap(first, second):
                raise ValueError(
                    f"in the {'tall' if self.axes.tall else 'wide'} picture “{name}” "
                    f"and “{other}” lie on each other: move one, or shorten it"
                )
        for route in self.routes:
            if crossed := self._crossed(route):
                raise ValueError(
                    f"in the {'tall' if self.axes.tall else 'wide'} picture the arrow "
                    f"{told(route.arrow)} runs through “{crossed}”: lead it round with "
                    "lane=, or move a part"
                )

    def _areas(self) -> list[tuple[str, Box]]:
        """All that may not lie on each other."""
        bodies = [(name, self.box(name)) for name in self.shapes]
        return bodies + list(self.words)

    def _crossed(self, route: Route) -> str:
        """The part that a route runs through, or whose words."""
        ends = (route.arrow.source, route.arrow.target)
        points = [self.axes.at(*point) for point in route.points]
        for name, shape in self.shapes.items():
            own = name in ends
            boxes = [] if own else [shape.body]
            boxes += [label.box for label in shape.labels] if shape.outer else []
            near = 0 if own else NEAR
            for box in boxes:
                left, top, right, bottom = self.box(name, box)
                if any(
                    left - near < x < right + near and top - near < y < bottom + near
                    for x, y in points
                ):
                    return name
        return ""


def told(arrow: Arrow) -> str:
    return f"“{arrow.source}” → “{arrow.target}”"


def _overlap(first: Box, second: Box) -> bool:
    return (
        first[0] < second[2]
        and second[0] < first[2]
        and first[1] < second[3]
        and second[1] < first[3]
    )


def _line(start: Point, end: Point) -> Curve:
    (a, b), (c, d) = start, end
    return (
        start,
        (a + (c - a) / 3, b + (d - b) / 3),
        (c - (c - a) / 3, d - (d - b) / 3),
        end,
    )


def _bend(start: Point, end: Point) -> Curve:
    """From one lane to another, along u at both ends."""
    middle = (start[0] + end[0]) / 2
    return (start, (middle, start[1]), (middle, end[1]), end)


def _path(corners: Sequence[Point], radius: float) -> list[Curve]:
    """Lines with rounded corners."""
    curves, here = [], corners[0]
    for corner, following in pairwise(corners[1:]):
        size = min(
            radius,
            hypot(corner[0] - here[0], corner[1] - here[1]) / 2,
            hypot(following[0] - corner[0], following[1] - corner[1]) / 2,
        )
        entry, leave = towards(corner, here, size), towards(corner, following, size)
        curves += [_line(here, entry), (entry, corner, corner, leave)]
        here = leave
    return [*curves, _line(here, corners[-1])]


def _on(curve: Curve, t: float) -> Point:
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    u, v = (
        sum(w * point[i] for w, point in zip(weights, curve, strict=True))
        for i in (0, 1)
    )
    return u, v
