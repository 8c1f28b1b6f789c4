"""What a diagram is made of, as its author describes it: parts, and what flows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Literal, get_args

from mtmm_lib.lesson.drawing import MODALITIES

Kind = Literal[
    "input",
    "tokens",
    "feature",
    "prediction",
    "loss",
    "encoder",
    "fusion",
    "box",
    "gate",
    "head",
    "node",
    "table",
]
State = Literal["trained", "frozen", "new", "absent"]
Way = Literal["forward", "gradient", "steering", "tether"]

FLOWING = ("input", "tokens", "feature", "prediction", "loss")  # all else are mappings
_SYMBOLS = {"feature": "h", "prediction": "ŷ", "loss": "ℓ"}
_LABELS = {"encoder": "encoder", "gate": "gate", "fusion": "fusion"}
TASKS = 3  # as many as have a colour


@dataclass(frozen=True)
class Part:
    """One part of a diagram.

    Args:
        kind: what it is, and so how it is drawn. Of what flows: "input", a card with
            its modality's sign; "tokens", a row of squares, which are features too;
            "feature", a task's larger square; "prediction", a circle; "loss", a
            diamond. Of what is trained: "encoder", a trapezium; "fusion", squares of
            all modalities; "box", a trunk, an expert, a layer or any other step, with
            stripes of those who own it; "gate", the bars of its weights; "head", which
            points at its prediction; "node", a circle with a symbol such as "Σ", "+",
            "×" or "⊙"; "table", weights in rows: a stitch, a mask, attention.
        place: (column, lane). Columns and lanes are numbers that order the parts;
            their distances follow from what stands there. A lane of 0.5 lies between 0
            and 1.
        name: what arrows and the text call it; by default after whom it belongs
            to: "digit's head", and "digit's trunk" for a box of the label "trunk"; or
            just its kind.
        of: whose it is: a task, a modality, or several of them.
        label: what stands in or beside it; by default the task of a head, "encoder",
            "gate", and the name of an input or a box.
        symbol: in the notation of `drawing.symbol`, as in "h_1"; features, predictions
            and losses of a task have theirs by default.
        note: a few words in smaller type, "192 numbers".
        state: "frozen" is hatched, "new" glows, "absent" is dashed.
        weights: of a gate, a number per bar; of a table, rows of numbers from 0 to 1.
        count: the squares of "tokens".
    """

    kind: Kind
    place: tuple[float, float]
    name: str = ""
    of: str | Sequence[str] = ()
    label: str | None = None
    symbol: str = ""
    note: str = ""
    state: State = "trained"
    weights: Sequence[float] | Sequence[Sequence[float]] = ()
    count: int = 3

    @property
    def owners(self) -> tuple[str, ...]:
        return (self.of,) if isinstance(self.of, str) else tuple(self.of)

    @property
    def called(self) -> str:
        """Its name, given or by default."""
        if self.name or len(self.owners) != 1:
            return self.name or self.kind
        if self.kind == "input":
            return self.owners[0]
        what = {"tokens": "features", "box": self.label or "box"}
        return f"{self.owners[0]}’s {what.get(self.kind, self.kind)}"

    @property
    def shown(self) -> str:
        """The words in or beside it."""
        if self.label is not None:
            return self.label
        if self.kind in ("input", "box"):
            return self.called
        if self.kind == "head":
            return self.owners[0] if self.owners else "head"
        return _LABELS.get(self.kind, "")

    def sign(self, tasks: Sequence[str]) -> str:
        """Its symbol, given or by default."""
        letter = _SYMBOLS.get(self.kind, "")
        indices = [i for i, task in enumerate(tasks, 1) if task in self.owners]
        return self.symbol or (f"{letter}_{indices[0]}" if letter and indices else "")

    @property
    def rows(self) -> list[list[float]]:
        """The weights of a table."""
        return [list(row) for row in self.weights if not isinstance(row, float | int)]

    @property
    def bars(self) -> list[float]:
        """The weights of a gate."""
        return [float(w) for w in self.weights if isinstance(w, float | int)]


@dataclass(frozen=True)
class Arrow:
    """One arrow of a flow."""

    source: str
    target: str
    flow: Flow
    weight: float | None = None


class Flow:
    """Arrows from part to part, along the names given.

    `Flow("sound", "trunk", ["digit’s head", "rate’s head"])` draws three: where a list
    stands in the place of a name, each of its parts gets an arrow. An apostrophe may be
    the typewriter's.

    Args:
        path: names of parts, or lists of names.
        way: "forward"; "gradient", dotted, which runs back beside the drawing;
            "steering", dashed: sets weights and carries no data; "tether", a spring.
        of: the task or modality whose colour the arrows have.
        weights: a number from 0 to 1 for each arrow, which is drawn as its width.
        symbol: stands beside the arrow, as in "g_1".
        factor: what multiplies on the way, in a circle. One that begins with a minus
            turns the gradient round and is red.
        stop: no gradient flows back here: two bars across.
        lane: leads the arrows along this lane, round what stands between.
    """

    def __init__(
        self,
        *path: str | Sequence[str],
        way: Way = "forward",
        of: str = "",
        weights: Sequence[float] = (),
        symbol: str = "",
        factor: str = "",
        stop: bool = False,
        lane: float | None = None,
    ) -> None:
        self.path, self.way, self.of, self.weights = path, way, of, weights
        self.symbol, self.factor, self.stop, self.lane = symbol, factor, stop, lane

    @property
    def stations(self) -> list[list[str]]:
        """The path, with a list of names at each station."""
        return [
            [typeset(name) for name in ([step] if isinstance(step, str) else step)]
            for step in self.path
        ]

    @property
    def arrows(self) -> list[Arrow]:
        pairs = [pair for a, b in pairwise(self.stations) for pair in product(a, b)]
        weights: list[float | None] = [*self.weights] or [None] * len(pairs)
        if len(weights) != len(pairs):
            raise ValueError(
                f"{self}: {len(weights)} weights for {len(pairs)} arrows; one each"
            )
        return [Arrow(a, b, self, w) for (a, b), w in zip(pairs, weights, strict=True)]

    def __str__(self) -> str:
        return "the flow " + " → ".join(" + ".join(step) for step in self.stations)


def typeset(name: str) -> str:
    return name.replace("'", "’")


@dataclass(frozen=True)
class Description:
    """A diagram as it was described, checked.

    Raises:
        ValueError: an unknown kind, state, way, task, modality or part; two parts of
            one name or in one place; a part that lacks what its kind needs.
    """

    parts: Sequence[Part]
    flows: Sequence[Flow]
    tasks: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.tasks) > TASKS:
            raise ValueError(
                f"{len(self.tasks)} tasks, of which {TASKS} have a colour: draw fewer"
            )
        _once("parts are called", Counter(typeset(p.called) for p in self.parts))
        _once("parts stand at", Counter(tuple(p.place) for p in self.parts))
        for part in self.parts:
            self._check_part(part)
        for flow in self.flows:
            self._check_flow(flow)

    @property
    def named(self) -> dict[str, Part]:
        return {typeset(part.called): part for part in self.parts}

    @property
    def arrows(self) -> Iterator[Arrow]:
        for flow in self.flows:
            yield from flow.arrows

    def colour(self, owner: str) -> str:
        """The class of a task's or a modality's colour."""
        if owner in self.tasks:
            return f"t{list(self.tasks).index(owner)}"
        return f"m{MODALITIES.index(owner)}" if owner in MODALITIES else "none"

    def _check_part(self, part: Part) -> None:
        what = f"the part “{typeset(part.called)}”"
        _among(what, "kind", part.kind, get_args(Kind))
        _among(what, "state", part.state, get_args(State))
        for owner in part.owners:
            self._check_owner(what, owner)
        lacks = {
            "input": "of= one of " + ", ".join(MODALITIES),
            "encoder": "of= its modality or modalities",
            "node": "symbol= what it does, “Σ” or “+”",
            "table": "weights= rows of numbers",
        }
        has = {
            "input": len(part.owners) == 1 and part.owners[0] in MODALITIES,
            "encoder": bool(part.owners),
            "node": bool(part.symbol),
            "table": bool(part.rows) and len({len(row) for row in part.rows}) == 1,
        }
        if not has.get(part.kind, True):
            raise ValueError(
                f"{what} is of the kind “{part.kind}”: give it {lacks[part.kind]}"
            )

    def _check_flow(self, flow: Flow) -> None:
        _among(str(flow), "way", flow.way, get_args(Way))
        if flow.of:
            self._check_owner(str(flow), flow.of)
        if len(flow.path) < 2:
            raise ValueError(f"{flow} has one end: name two parts or more")
        for station in flow.stations:
            for name in station:
                _among(str(flow), "part", name, tuple(self.named))
        for arrow in flow.arrows:
            if arrow.source == arrow.target:
                raise ValueError(f"{flow} leads from “{arrow.source}” to itself")

    def _check_owner(self, what: str, owner: str) -> None:
        if self.colour(owner) == "none":
            raise ValueError(
                f"{what} has of=“{owner}”, which is neither a task of this diagram "
                f"({', '.join(self.tasks) or 'it has none: tasks=…'}) nor a modality "
                f"({', '.join(MODALITIES)})"
            )


def _once(what: str, count: Counter[str] | Counter[tuple[float, ...]]) -> None:
    for value, times in count.items():
        if times > 1:
            shown = f"“{value}”" if isinstance(value, str) else value
            raise ValueError(f"{times} {what} {shown}")


def _among(what: str, field: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(
            f"{what} has the {field} “{value}”; there are: {', '.join(known)}"
        )
