"""What the prose says, beside the measurement that bears it out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from html import escape
from math import inf
from typing import Any, Literal

from mtmm_lib.lesson import page, session
from mtmm_lib.lesson.article import STATEMENTS
from mtmm_lib.lesson.text import fill, inline, show
from mtmm_lib.results import Bound, Gain

MIN_PAIRS = 10

Verdict = Literal["supported", "refuted", "unresolved"]

_MARKS = {
    "supported": ("✓", "good"),
    "refuted": ("✗", "bad"),
    "unresolved": ("?", "open"),
}
_VERDICTS = {
    "supported": "This bears out the article:",
    "refuted": "This refutes the article:",
    "unresolved": "This leaves open what the article says:",
}


class ClaimError(AssertionError):
    """The measurement does not bear the claim out."""


@dataclass(frozen=True)
class Finding:
    """A sentence with the result that bears it out; `finding` makes and checks it."""

    template: str
    result: Gain | Bound
    supports: str | None
    verdict: Verdict
    missing: str
    fields: dict[str, Any]

    @property
    def statement(self) -> str:
        """The sentence, filled in."""
        given = {"number": self.result.size, **self.fields}
        return fill(self.template, given)

    @property
    def record(self) -> dict[str, Any]:
        """What the ledger reads."""
        ends = (inf, -inf)
        return {
            "kind": "claim",
            "chapter": session.chapter(),
            "statement": self.statement,
            "template": self.template,
            "fields": {name: _plain(value) for name, value in self.fields.items()},
            "supports": self.supports,
            "verdict": self.verdict,
            "missing": self.missing,
            "seed": session.book_seed(),
            "result": {
                "type": type(self.result).__name__,
                **{k: v for k, v in asdict(self.result).items() if v not in ends},
                "holds": self.result.holds,
                "text": self.result.text,
            },
        }


def finding(
    statement: str,
    result: Gain | Bound,
    /,
    *,
    supports: str | None = None,
    verdict: Verdict = "supported",
    missing: str = "",
    **fields: Any,
) -> Finding:
    """One sentence of a `measured` box, beside the measurement that bears it out.

    Args:
        statement: what was found, as a reader says it: a literal, so that it can be
            translated, with names in braces for what the cell computed. `{number}` is
            there by itself: the size of the result with its unit, as in "8.3 points".
            The sign is the sentence's business ("costs {number}").
        result: a `Gain` (`study.gain`, `paired_gain`, `Gain.of`) or a `Bound`
            (`at_least`, `at_most`, `between`).
        supports: the article's statement that this speaks about: A1–A6, C1–C7, F1–F7,
            S1–S12 or D1–D5; `None` for a fact of the book's own.
        verdict: what the result, which has to hold, means for the article's statement.
            An unresolved one needs `gain.undecided(margin)`, or words for what is
            `missing`.
        missing: what it would take to resolve the statement.
        **fields: what stands in the place of the names.

    Raises:
        TypeError: when the result is a bare number or bool.
        ValueError: an unknown label or verdict; a gain over fewer than 10 pairs; an
            unresolved statement without a reason, or a reason with another verdict.
    """
    _check(result, supports, verdict, missing)
    return Finding(statement, result, supports, verdict, missing, fields)


def measured(*findings: Finding) -> None:
    """Show what a section measured, in one box; raise when a sentence does not hold.

        measured(
            finding("Parity and size raise the digit by {number}.", up, supports="A2"),
            finding("The speaking rate costs {number}.", down.below(), supports="C1"),
        )

    In sight are the sentences, and what they mean for the article where they speak of
    it. Folded: the measurement, its standard error and its rule, and which population
    it speaks of.

    Raises:
        ClaimError: when a result does not hold; after everything was shown.
        TypeError: for anything but findings, or none.
    """
    if not findings or not all(isinstance(each, Finding) for each in findings):
        raise TypeError(
            "measured takes one or more findings, as in "
            'measured(finding("…", gain)), got '
            f"{[type(each).__name__ for each in findings]}"
        )
    broken = [each for each in findings if not each.result.holds]
    head = "This does not hold" if broken else "Measured"
    rows, proofs, plain = "", "", [head]
    for number, each in enumerate(findings, 1):
        words, about = each.statement, _about(each)
        notes = [about] if about else []
        notes += [f"What would settle it: {each.missing}"] if each.missing else []
        tone = "bad" if not each.result.holds else _MARKS[each.verdict][1]
        soft = "".join(
            f'<p class="mtmm-soft mtmm-{tone}">{escape(note)}</p>' for note in notes
        )
        rows += f"<li><p>{inline(words)}</p>{soft}</li>"
        proofs += f"<li>{escape(each.result.text)}</li>"
        plain += [f"{number}. {words}", *notes, f"({each.result.text})"]
    page.box(
        f'<p class="mtmm-head">{head}</p><ol class="mtmm-findings">{rows}</ol>'
        '<details class="mtmm-soft"><summary>How sure is that?</summary>'
        f"<ol>{proofs}</ol></details>",
        "\n".join(plain),
        "bad" if broken else "good",
        label=head,
        record={"kind": "measured", "claims": [each.record for each in findings]},
    )
    if broken:
        reasons = "; ".join(f"{each.statement}: {each.result.text}" for each in broken)
        raise ClaimError(reasons)


def _about(each: Finding) -> str:
    """What a finding means for the article, in words."""
    if each.supports is None:
        return ""
    if not each.result.holds:
        return f"✗ about {each.supports}, {STATEMENTS[each.supports]}"
    mark, verdict = _MARKS[each.verdict][0], _VERDICTS[each.verdict]
    return f"{mark} {verdict} {STATEMENTS[each.supports]} ({each.supports})"


def claim(
    statement: str,
    result: Gain | Bound,
    /,
    *,
    supports: str | None = None,
    verdict: Verdict = "supported",
    missing: str = "",
    **fields: Any,
) -> None:
    """A finding in a box of its own, as the lessons of the first edition have them.

    Args and errors: as `finding`.

    Raises:
        ClaimError: when the result does not hold.
    """
    about_it: dict[str, Any] = dict(supports=supports, verdict=verdict, missing=missing)
    made = finding(statement, result, **about_it, **fields)
    mark, tone = _MARKS[verdict] if result.holds else ("✗", "bad")
    about = f"{supports}, {STATEMENTS[supports]}" if supports else ""
    if not result.holds:
        head = "This claim does not hold"
    else:
        head = f"Claim · the article’s {about}: {verdict}" if supports else "Claim"
    lines = [f"{mark} {head}", made.statement, f"Measured: {result.text}."]
    lines += [f"Missing: {missing}"] if missing else []
    first, second, *rest = map(escape, lines)
    page.box(
        f'<p class="mtmm-head">{first}</p><p>{second}</p>'
        + "".join(f'<p class="mtmm-soft">{line}</p>' for line in rest),
        "\n".join(lines),
        tone,
        label="Claim",
        record=made.record,
    )
    if not result.holds:
        raise ClaimError(f"{made.statement}: {result.text}")


def _plain(value: Any) -> str | int | float:
    """A field as the record, which is JSON, holds it."""
    return value if isinstance(value, (str, int, float)) else show(value)


def _check(
    result: Gain | Bound, supports: str | None, verdict: str, missing: str
) -> None:
    if not isinstance(result, (Gain, Bound)):
        raise TypeError(
            "a claim needs a measurement with the rule that judges it, got "
            f"{type(result).__name__}: use paired_gain, Gain.of, or at_least, at_most, "
            "between"
        )
    if isinstance(result, Gain) and result.n < MIN_PAIRS:
        raise ValueError(
            f"a comparison needs at least {MIN_PAIRS} pairs, got {result.n}"
        )
    if supports is not None and supports not in STATEMENTS:
        raise ValueError(
            f"supports is one of {', '.join(STATEMENTS)} or None, got {supports!r}"
        )
    if verdict not in _MARKS:
        raise ValueError(f"verdict is one of {', '.join(_MARKS)}, got {verdict!r}")
    if supports is None and verdict != "supported":
        raise ValueError(
            f"{verdict!r} needs supports: the article's statement that it is about"
        )
    reason = bool(missing) or getattr(result, "relation", "") == "undecided"
    if reason != (verdict == "unresolved"):
        raise ValueError(
            "'unresolved', and no other verdict, goes with gain.undecided(margin) or "
            f"with missing=…; got {verdict!r} {'with' if reason else 'without'} one of "
            "them"
        )
