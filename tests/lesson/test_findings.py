"""The box of a section: sentences in sight, their proof folded; it stops the lesson
where one of them does not hold."""

import pytest

from mtmm_lib.lesson import ClaimError, Gain, at_least, finding, measured

UP, DOWN, NOISE = (
    Gain(5.03, 0.41, 12, "points"),
    Gain(-5.0, 1, 10),
    Gain(0.5, 1, 10),
)


def test_a_sentence_gets_its_number_from_the_result(capsys) -> None:
    measured(
        finding("{what} brings {number}.", UP, what="The helper"),
        finding("It costs {number}.", Gain(-12.34, 0.004, 10, "%").below()),
        finding("It takes {number} of {of:.0%}.", at_least(1234, 1, "clips"), of=0.5),
    )
    shown = capsys.readouterr().out
    assert "1. The helper brings 5.0 points." in shown
    assert "2. It costs 12.340%." in shown
    assert "3. It takes 1,234 clips of 50%." in shown
    assert UP.text in shown


@pytest.mark.parametrize(
    "verdict, words",
    [("supported", "bears out"), ("refuted", "refutes"), ("unresolved", "leaves open")],
)
def test_a_mark_says_in_words_what_it_means_for_the_article(
    verdict: str, words: str, capsys
) -> None:
    missing = {"missing": "a larger model"} if verdict == "unresolved" else {}
    measured(finding("So.", UP, supports="A1", verdict=verdict, **missing))
    shown = capsys.readouterr().out
    assert f"This {words} " in shown and "(A1)" in shown
    assert ("✗" in shown) == (verdict == "refuted")
    assert ("a larger model" in shown) == (verdict == "unresolved")


def test_a_plain_finding_has_no_mark(capsys) -> None:
    measured(finding("So.", DOWN.below()))
    assert not set("✓✗?") & set(capsys.readouterr().out.replace("How sure", ""))


def test_everything_is_shown_before_the_lesson_stops(capsys) -> None:
    with pytest.raises(ClaimError, match="The second.") as raised:
        measured(
            finding("The first.", UP),
            finding("The second.", NOISE, supports="C1"),
            finding("The third.", DOWN),
        )
    assert "The first" not in str(raised.value) and "The third" in str(raised.value)
    assert NOISE.text in str(raised.value)
    shown = capsys.readouterr().out
    assert "This does not hold" in shown and "The first." in shown
    assert "bears out" not in shown


def test_a_finding_is_checked_where_it_is_made() -> None:
    with pytest.raises(TypeError, match="the rule that judges it"):
        finding("So", 3.0)
    with pytest.raises(ValueError, match="at least 10 pairs, got 9"):
        finding("So", Gain(5, 1, 9))
    with pytest.raises(ValueError, match="supports is one of A1"):
        finding("So", UP, supports="A7")
    with pytest.raises(KeyError, match="what"):
        measured(finding("{what}", UP))
    for nothing in ((), (UP,), ("So",)):
        with pytest.raises(TypeError, match="one or more findings"):
            measured(*nothing)
