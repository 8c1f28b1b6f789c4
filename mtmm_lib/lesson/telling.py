"""A diagram in words: the flow in sentences, made of what its author described."""

from __future__ import annotations

from collections.abc import Sequence

from mtmm_lib.lesson.parts import FLOWING, Description, Flow, Part, typeset


def told(of: Description) -> str:
    """The sentences, in the order of the flows; parts without an arrow come last."""
    teller = _Teller(of)
    sentences = [sentence for flow in of.flows for sentence in teller.flow(flow)]
    if left := [name for name in of.named if name not in teller.known]:
        sentences.append(f"Beside them: {teller.together(left)}.")
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


class _Teller:
    def __init__(self, of: Description) -> None:
        self.of, self.known = of, set[str]()

    def flow(self, flow: Flow) -> list[str]:
        tell = {
            "forward": self._forward,
            "gradient": self._gradient,
            "steering": self._steering,
            "tether": self._tether,
        }
        return tell[flow.way](flow)

    def together(self, names: Sequence[str]) -> str:
        return listed([self._part(name) for name in names])

    def _forward(self, flow: Flow) -> list[str]:
        stations = flow.stations
        clauses = []
        for i in range(0, len(stations) - 1, 2):
            source, target, *further = stations[i : i + 3]
            clause = f"{self._enter(source, target)}"
            if further:
                clause += f", {self._which(target, further[0])}"
            clauses.append(clause)
        if flow.weights:
            clauses[-1] += f" with the weights {numbers(flow.weights)}"
        clauses[-1] += _on_the_way(flow)
        return [f"{clause}." for clause in clauses]

    def _enter(self, source: list[str], target: list[str]) -> str:
        """ "The sound enters the trunk", "the trunk gives the feature"."""
        many = len(source) > 1 or self._plural(source[0])
        if self._mapping(source) and not self._mapping(target):
            verb = "give" if many else "gives"
            return f"{self.together(source)} {verb} {self.together(target)}"
        subject = self.together(source)
        if self._mapping(source):
            many = len(source) > 1
            subject = f"the output{'s' if many else ''} of {subject}"
        return f"{subject} {'enter' if many else 'enters'} {self.together(target)}"

    def _which(self, source: list[str], target: list[str]) -> str:
        many = len(source) > 1 or self._plural(source[0])
        what = self.together(target)
        if self._mapping(source) and not self._mapping(target):
            return f"which {'give' if many else 'gives'} {what}"
        if self._mapping(source):
            return f"whose output{'s enter' if many else ' enters'} {what}"
        return f"which {'enter' if many else 'enters'} {what}"

    def _gradient(self, flow: Flow) -> list[str]:
        first, *further = flow.stations
        symbol = f" {spoken(flow.symbol)}" if flow.symbol else ""
        way = ", then to ".join(self.together(names) for names in further)
        return [
            f"the gradient{symbol} of {self.together(first)} flows back to "
            f"{way}{_on_the_way(flow)}."
        ]

    def _steering(self, flow: Flow) -> list[str]:
        first, *further = flow.stations
        verb = "steer" if len(first) > 1 else "steers"
        way = " and ".join(self.together(names) for names in further)
        symbol = f" with {spoken(flow.symbol)}" if flow.symbol else ""
        return [f"{self.together(first)} {verb} {way}{symbol}."]

    def _tether(self, flow: Flow) -> list[str]:
        symbol = f" {spoken(flow.symbol)}" if flow.symbol else ""
        ends = [name for station in flow.stations for name in station]
        return [f"a tether{symbol} holds {self.together(ends)} together."]

    def _mapping(self, names: list[str]) -> bool:
        return self.of.named[names[0]].kind not in FLOWING

    def _plural(self, name: str) -> bool:
        part = self.of.named[name]
        return part.kind == "tokens" and part.called.endswith("s")

    def _part(self, name: str) -> str:
        """A part's name, with all that is known of it where it comes first."""
        part = self.of.named[name]
        called = name if _proper(name) else f"the {name}"
        if name in self.known:
            return called
        self.known.add(name)
        symbol, facts = spoken(part.sign(self.of.tasks)), list(self._facts(part))
        if symbol and part.kind in FLOWING:
            called += f" {symbol}"
        elif symbol and part.kind != "node":
            facts.insert(0, symbol)
        return f"{called} ({'; '.join(facts)})" if facts else called

    def _facts(self, part: Part) -> list[str]:
        facts = []
        if part.kind == "box" and len(part.owners) > 1:
            facts.append(f"shared by {listed([f'the {o}' for o in part.owners])}")
        elif part.kind == "box" and part.owners and part.owners[0] not in part.called:
            alone = " alone" * (part.owners[0] in self.of.tasks)
            facts.append(f"of the {part.owners[0]}{alone}")
        facts += [typeset(part.note)] if part.note else []
        facts += [f"weights {numbers(part.bars)}"] if part.bars else []
        if part.rows:
            facts.append("weights by row: " + "; ".join(numbers(r) for r in part.rows))
        facts += {
            "frozen": ["frozen"],
            "absent": ["absent"],
            "new": ["highlighted"],
            "trained": [],
        }[part.state]
        return facts


def _on_the_way(flow: Flow) -> str:
    words = ""
    if flow.factor:
        factor = spoken(flow.factor)
        turned = flow.factor[0] in "-−"
        if flow.way == "gradient":
            words += f", multiplied by {factor}{', which turns it round' * turned}"
        elif turned:
            words += f"; on the way back the gradient is multiplied by {factor}"
        else:
            words += f", multiplied by {factor}"
    return words + "; no gradient flows back on this way" * flow.stop


def _proper(name: str) -> bool:
    """Whether a name goes without an article: "expert 1", "h₁", a single letter."""
    return len(name) == 1 or (name[-1].isdigit() and "’" not in name)


def spoken(symbol: str) -> str:
    return symbol.replace("_", "")


def listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def numbers(weights: Sequence[float]) -> str:
    return listed([f"{weight:g}" for weight in weights])
