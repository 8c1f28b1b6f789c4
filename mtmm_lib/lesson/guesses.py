"""A question before the run: the reader commits to an answer, then sees what that
answer meets."""

from __future__ import annotations

from mtmm_lib.lesson import page
from mtmm_lib.lesson.text import inline

CHOICES = range(2, 5)


def guess(name: str, question: str, choices: dict[str, str], *, right: str) -> None:
    """Ask for a prediction. The answer to the reader's own choice unfolds under it.

        guess(
            "hard-parameter-sharing-copies",
            "Sixteen heads are all asked the same question. The trunk …",
            {
                "… learns it sixteen times as well.": "It would with fresh answers. …",
                "… learns what one head teaches it.": "The sixteen losses are one …",
                "… learns nothing.": "Nothing stops it: …",
            },
            right="… learns what one head teaches it.",
        )

    It stands where the text above decides the answer, and needs no kernel: the choices
    are the browser's own folded details, of which one at a time is open.

    Args:
        name: unique in the book; begins with the lesson's slug.
        question: what is asked; `code` and *emphasis* are set as such.
        choices: choice → what to say to somebody who made it, the reason with it. The
            text says why; that it is right or not stands before it by itself.
        right: the choice that is right.

    Raises:
        ValueError: for fewer than two or more than four choices, an empty text, or a
            `right` that is none of them.
    """
    if len(choices) not in CHOICES:
        raise ValueError(
            f"a guess has {CHOICES[0]} to {CHOICES[-1]} choices, got {len(choices)}"
        )
    for text in (name, question, *choices, *choices.values()):
        if not text.strip():
            raise ValueError(
                f"guess {name!r}: the question, every choice and every answer needs "
                "words"
            )
    if right not in choices:
        raise ValueError(
            f"guess {name!r}: right is one of {list(choices)}, got {right!r}"
        )
    body, plain = "", [f"Your guess: {question}"]
    for choice, answer in choices.items():
        verdict, tone = ("Yes.", "good") if choice == right else ("No.", "bad")
        body += (
            f'<details name="guess-{name}" class="mtmm-choice mtmm-{tone}"><summary>'
            f"{inline(choice)}</summary><p><strong>{verdict}</strong> "
            f"{inline(answer)}</p></details>"
        )
        plain += [f"- {choice}"]
    plain += [f"Answer: {right} {choices[right]}"]
    page.show(
        f'{page.style("guess")}<div class="mtmm-guess" role="group" '
        f'aria-label="Your guess"><p class="mtmm-ask">{inline(question)}</p>'
        f"{body}</div>",
        "\n".join(plain),
        {"kind": "guess", "name": name},
    )
