"""Claims: what the prose says, beside the measurement that bears it out."""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from typing import Literal

from mtmm_lib.lesson import page, session
from mtmm_lib.lesson.article import STATEMENTS
from mtmm_lib.results import Bound, Gain

MIN_PAIRS = 10

_TONES = {"supported": ("good", "✓"), "refuted": ("bad", "✗"), "unresolved": ("open", "?")}


class ClaimError(AssertionError):
    """A claim that the measurement does not bear out."""


def claim(
    statement: str,
    result: Gain | Bound,
    *,
    supports: str | None = None,
    verdict: Literal["supported", "refuted", "unresolved"] = "supported",
    missing: str = "",
) -> None:
    """Show a statement with its measurement, and raise when the measurement does not hold.

    Args:
        statement: what was found, in one sentence.
        result: a `Gain` or a `Bound` (`at_least`, `at_most`, `between`); it has to hold.
        supports: the article's statement that this is about: A1–A6, C1–C7, F1–F7, S1–S12, D1–D5; `None`: a fact
            of the book's own.
        verdict: what the result means for the article's statement. Unresolved needs `gain.undecided(margin)` or
            `missing`.
        missing: for an unresolved statement: what would settle it.

    Raises:
        ClaimError: when the result does not hold.
        TypeError: when the result is a bare number or bool.
        ValueError: unknown label or verdict; a gain over fewer than 10 pairs; unresolved without a reason.
    """
    if not isinstance(result, (Gain, Bound)):
        raise TypeError(
            f"a claim needs a measurement with the rule that judges it, got {type(result).__name__}: give a Gain "
            "(paired_gain, Gain.of) or at_least, at_most, between (value, bound)"
        )
    if isinstance(result, Gain) and result.n < MIN_PAIRS:
        raise ValueError(f"a comparison needs at least {MIN_PAIRS} pairs, got {result.n}")
    if supports is not None and supports not in STATEMENTS:
        raise ValueError(f"supports is one of {', '.join(STATEMENTS)} or None, got {supports!r}")
    if verdict not in _TONES:
        raise ValueError(f"verdict is one of {', '.join(_TONES)}, got {verdict!r}")
    if supports is None and verdict != "supported":
        raise ValueError(
            f"a fact of the book's own cannot be {verdict}: name the article's statement in supports"
        )
    is_open = isinstance(result, Gain) and result.relation == "undecided"
    if (verdict == "unresolved") != (is_open or bool(missing)):
        raise ValueError(
            "verdict 'unresolved' goes with gain.undecided(margin) or with missing=…, and these go with no other verdict"
        )
    record = {
        "kind": "claim",
        "chapter": session.chapter(),
        "statement": statement,
        "supports": supports,
        "verdict": verdict,
        "missing": missing,
        "seed": session.book_seed(),
        "result": {
            "type": type(result).__name__,
            **{
                name: value
                for name, value in asdict(result).items()
                if value not in (float("inf"), -float("inf"))
            },
            "holds": result.holds,
            "text": result.text,
        },
    }
    tone, mark = _TONES[verdict] if result.holds else ("bad", "✗")
    about = f"{supports}, {STATEMENTS[supports]}" if supports else ""
    head = "Claim" if not supports else f"Claim · the article’s {about}: {verdict}"
    if not result.holds:
        head = f"This claim does not hold{f' · {about}' if about else ''}"
    lines = [f"{mark} {head}", statement, f"Measured: {result.text}"] + (
        [f"Missing: {missing}"] if missing else []
    )
    classes = ("mtmm-head", "", "mtmm-soft", "mtmm-soft")
    html = "".join(f'<p class="{c}">{escape(line)}</p>' for c, line in zip(classes, lines))
    page.show(
        f'<div class="mtmm-box" style="--mtmm-tone:var(--mtmm-{tone})" role="note" aria-label="Claim">{html}</div>',
        "\n".join(lines),
        record,
    )
    if not result.holds:
        raise ClaimError(f"{statement}: {result.text}")
