"""A prediction before the run: one answer at a time unfolds, and it fits the choice."""

import re

import pytest

from mtmm_lib.lesson import guess

CHOICES = {"falls": "It starts that way.", "stays": "Why `should` it?", "rises": "So."}


def test_each_choice_has_its_own_answer(capsys, monkeypatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("IPython.display.display", lambda it: shown.append(it.html))
    guess("a-b", "What does ℓ₁ do?", CHOICES, right="rises")
    folded = re.findall(r"<details name=.*?</details>", shown[0], re.DOTALL)
    assert len(folded) == 3
    for (choice, answer), html in zip(CHOICES.items(), folded, strict=True):
        assert f"<summary>{choice}</summary>" in html and 'name="guess-a-b"' in html
        assert answer.split()[0] in html
        assert ("Yes." in html) == (choice == "rises") != ("No." in html)
        assert " open" not in html.split(">")[0]
    assert "<code>should</code>" in shown[0]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((("a-b", "So?", CHOICES), "sinks"), "right is one of .*'sinks'"),
        ((("a-b", "So?", {"falls": "It."}), "falls"), "2 to 4 choices, got 1"),
        ((("a-b", "So?", {"falls": "It.", "rises": " "}), "falls"), "needs words"),
        ((("a-b", "", CHOICES), "falls"), "needs words"),
    ],
)
def test_what_is_missing_is_named(arguments, words: str) -> None:
    given, right = arguments
    with pytest.raises(ValueError, match=words):
        guess(*given, right=right)
