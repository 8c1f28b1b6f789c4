"""Claims: what the prose says, beside the measurement that bears it out."""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from math import inf
from typing import Any, Literal

from mtmm_lib.lesson import page, session
from mtmm_lib.lesson.article import STATEMENTS
from mtmm_lib.lesson.text import fill, show
from mtmm_lib.results import Bound, Gain

MIN_PAIRS = 10

_MARKS = {
    "supported": ("✓", "good"),
    "refuted": ("✗", "bad"),
    "unresolved": ("?", "open"),
}


class ClaimError(AssertionError):
    """The measurement does not bear the claim out."""


def claim(
    statement: str,
    result: Gain | Bound,
    /,
    *,
    supports: str | None = None,
    verdict: Literal["supported", "refuted", "unresolved"] = "supported",
    missing: str = "",
    **fields: Any,
) -> None:
    """Show a statement with its measurement; raise when the measurement does not hold.

        claim("ρ = {rho:g}: the best tether beats pooling", gain, rho=rho)

    Args:
        statement: what was found, in one sentence: a literal, so that it can be
            translated, with names in braces for what changes from claim to claim.
        result: a `Gain` (`paired_gain`, `Gain.of`) or a `Bound` (`at_least`, `at_most`,
            `between`).
        supports: the article's statement that this speaks about: A1–A6, C1–C7, F1–F7,
            S1–S12 or D1–D5; `None` for a fact of the book's own.
        verdict: what the result, which has to hold, means for the article's statement.
            An unresolved one needs `gain.undecided(margin)`, or words for what is
            `missing`.
        missing: what it would take to resolve the statement.
        **fields: what stands in the place of the names.

    Raises:
        ClaimError: when the result does not hold.
        TypeError: when the result is a bare number or bool.
        ValueError: an unknown label or verdict; a gain over fewer than 10 pairs; an
            unresolved statement without a reason, or a reason with another verdict.
    """
    _check(result, supports, verdict, missing)
    template, statement = statement, fill(statement, fields)
    mark, tone = _MARKS[verdict] if result.holds else ("✗", "bad")
    about = f"{supports}, {STATEMENTS[supports]}" if supports else ""
    if not result.holds:
        head = "This claim does not hold"
    else:
        head = f"Claim · the article’s {about}: {verdict}" if supports else "Claim"
    lines = [f"{mark} {head}", statement, f"Measured: {result.text}."]
    lines += [f"Missing: {missing}"] if missing else []
    first, second, *rest = map(escape, lines)
    page.box(
        f'<p class="mtmm-head">{first}</p><p>{second}</p>'
        + "".join(f'<p class="mtmm-soft">{line}</p>' for line in rest),
        "\n".join(lines),
        tone,
        label="Claim",
        record={
            "kind": "claim",
            "chapter": session.chapter(),
            "statement": statement,
            "template": template,
            "fields": {name: _plain(value) for name, value in fields.items()},
            "supports": supports,
            "verdict": verdict,
            "missing": missing,
            "seed": session.book_seed(),
            "result": {
                "type": type(result).__name__,
                **{
                    key: value
                    for key, value in asdict(result).items()
                    if value not in (inf, -inf)
                },
                "holds": result.holds,
                "text": result.text,
            },
        },
    )
    if not result.holds:
        raise ClaimError(f"{statement}: {result.text}")


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
