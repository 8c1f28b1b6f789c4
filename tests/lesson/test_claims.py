"""Claims hold or stop the lesson; verdicts need what they say."""

import ast
import json

import numpy as np
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager

from mtmm_lib.lesson import (
    Bound,
    ClaimError,
    Gain,
    at_least,
    at_most,
    book,
    claim,
    claims,
)
from mtmm_lib.lesson.article import STATEMENTS
from tools.lesson import source

UP, DOWN, NOISE = Gain(5, 1, 10), Gain(-5, 1, 10), Gain(0.5, 1, 10)


@pytest.mark.parametrize(
    "result",
    [UP, DOWN.below(), NOISE.within(3), at_least(2, 1), at_most(1, 2), Bound(1, 0, 2)],
)
@pytest.mark.parametrize(
    "about", [{}, {"supports": "A2"}, {"supports": "A1", "verdict": "refuted"}]
)
def test_what_holds_passes(result, about, capsys) -> None:
    claim("It is so", result, **about)
    shown = capsys.readouterr().out
    assert "It is so" in shown and result.text in shown
    assert about.get("verdict", "") in shown


@pytest.mark.parametrize(
    "result", [DOWN, UP.below(), NOISE, NOISE.within(1), at_least(1, 2), at_most(2, 1)]
)
@pytest.mark.parametrize("verdict", ["supported", "refuted"])
def test_what_does_not_hold_raises_and_says_why(result, verdict: str, capsys) -> None:
    with pytest.raises(ClaimError) as raised:
        claim("It is so", result, supports="A1", verdict=verdict)
    assert "It is so" in str(raised.value) and result.text in str(raised.value)
    assert "does not hold" in capsys.readouterr().out


def test_unresolved_is_open_or_says_what_is_missing() -> None:
    claim("Open", NOISE.undecided(), supports="A1", verdict="unresolved")
    claim("Open", UP, supports="A1", verdict="unresolved", missing="a larger model")
    with pytest.raises(ClaimError):
        claim("Open", UP.undecided(), supports="A1", verdict="unresolved")
    for result, more in (
        (UP, {"verdict": "unresolved"}),
        (NOISE.undecided(), {}),
        (UP, {"missing": "a model"}),
    ):
        with pytest.raises(ValueError, match="unresolved"):
            claim("Open", result, supports="A1", **more)


@pytest.mark.parametrize("result", [True, 0.9, 3, "5 points", None, (1, 2)])
def test_numbers_are_never_typed_in(result) -> None:
    with pytest.raises(TypeError, match="the rule that judges it"):
        claim("It is so", result)


def test_the_rest_of_what_a_claim_needs() -> None:
    with pytest.raises(ValueError, match="at least 10 pairs, got 9"):
        claim("It is so", Gain(5, 1, 9))
    with pytest.raises(ValueError, match="supports is one of A1"):
        claim("It is so", UP, supports="A7")
    with pytest.raises(ValueError, match="verdict is one of"):
        claim("It is so", UP, supports="A1", verdict="true")
    with pytest.raises(ValueError, match="needs supports"):
        claim("It is so", UP, verdict="refuted")


def test_the_labels_are_those_of_the_article() -> None:
    counts = {"A": 6, "C": 7, "F": 7, "S": 12, "D": 5}
    assert list(STATEMENTS) == [
        f"{letter}{i}" for letter, n in counts.items() for i in range(1, n + 1)
    ]


def test_a_statement_is_a_template_with_fields(monkeypatch, capsys) -> None:
    """What readers see is filled in; what a translator sees is not."""
    kept = []
    monkeypatch.setattr(
        claims.page, "box", lambda *_, record, **__: kept.append(record)
    )
    claim("ρ = {rho:g}: {arm} is best, {share}", UP, rho=0.5, arm="it", share=2 / 3)
    assert kept[0]["statement"] == "ρ = 0.5: it is best, 0.6667"
    assert kept[0]["template"] == "ρ = {rho:g}: {arm} is best, {share}"
    assert kept[0]["fields"] == {"rho": 0.5, "arm": "it", "share": 2 / 3}
    claim("{rate} it is", UP, rate=torch.tensor(0.25))
    assert json.loads(json.dumps(kept[1]))["fields"] == {"rate": "0.25"}
    with pytest.raises(ClaimError, match="^it is so: "):
        claim("{arm} is so", DOWN, arm="it")


@pytest.mark.parametrize("slug", book.lessons())
def test_every_claim_of_a_lesson_is_one_text(slug: str) -> None:
    for cell in source(book.lesson(slug)).code:
        nodes = [*ast.walk(ast.parse(TransformerManager().transform_cell(cell)))]
        named = {
            target.id: node.value
            for node in nodes
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in nodes:
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim":
                said = node.args[0]
                said = named.get(said.id) if isinstance(said, ast.Name) else said
                assert isinstance(said, ast.Constant), ast.unparse(node)


def test_the_record_says_what_an_error_speaks_of(monkeypatch) -> None:
    kept = []
    monkeypatch.setattr(
        claims.page, "box", lambda *_, record, **__: kept.append(record)
    )
    gain = Gain.of(range(5, 15), pool=(np.int64(1000), 100))
    for result in (Gain.of(range(5, 15)), gain, gain.of_this_pool()):
        claim("It is so", result)
    results = [json.loads(json.dumps(record))["result"] for record in kept]
    assert [r["speaks_of"] for r in results] == ["draws", "population", "pool"]
    assert [r["pool"] for r in results] == [None, [1000, 100], [1000, 100]]
    assert "one pool" not in results[0]["text"]
    assert "error for new data" in results[1]["text"]
    assert "error for this pool" in results[2]["text"]
