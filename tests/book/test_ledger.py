"""The tool that runs the claims under many seeds, and the page that gathers them."""

import math
import re
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mtmm_lib.lesson import book
from mtmm_lib.lesson.article import SECTIONS, STATEMENTS
from mtmm_lib.lesson.book import Planned
from mtmm_lib.results import Gain, between
from tools import claims, generate
from tools.lesson import minutes, source
from tools.project import lessons

numbers = st.floats(-100, 100, allow_nan=False)


def as_result(measured):
    kept = {
        name: value
        for name, value in asdict(measured).items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    return {
        "type": type(measured).__name__,
        "holds": measured.holds,
        "text": measured.text,
        **kept,
    }


@given(
    numbers,
    st.floats(0.01, 10),
    st.sampled_from(["above", "below", "within", "undecided"]),
    st.floats(0, 50),
)
def test_the_margin_of_a_gain_is_positive_where_it_holds(mean, se, relation, bound):
    gain = getattr(Gain(mean, se, 10), relation)(bound)
    margin = claims.margin(as_result(gain))
    assume(abs(margin) > 1e-9)
    assert (margin > 0) == gain.holds


@given(numbers, numbers, st.floats(0.1, 50))
def test_the_margin_of_a_bound_is_positive_where_it_holds(value, low, width):
    bound = between(value, low, low + width)
    margin = claims.margin(as_result(bound))
    assume(abs(margin) > 1e-9)
    assert (margin > 0) == bound.holds


def claim(
    statement,
    result,
    *,
    seed=0,
    supports=None,
    verdict="supported",
    missing="",
    chapter="everything-is-a-mapping",
):
    return {
        "kind": "claim",
        "chapter": chapter,
        "statement": statement,
        "supports": supports,
        "verdict": verdict,
        "missing": missing,
        "seed": seed,
        "result": as_result(result),
    }


def test_a_claim_that_fails_under_one_seed_or_is_not_made_is_reported():
    good, bad = Gain(2.0, 0.1, 10), Gain(0.1, 0.1, 10)
    made = [claim("A", good, seed=seed) for seed in range(3)]
    made += [
        claim("B", good, seed=0),
        claim("B", bad, seed=1),
        claim("B", good, seed=2),
    ]
    made += [claim("C", good, seed=seed) for seed in range(2)]
    lines, failed = claims.table(made, seeds=3)
    assert len(lines) == 4 and " 3/3 " in lines[1] and " 2/3 " in lines[2]
    assert failed == [
        "chapter 01: B (fails under MTMM_SEED 1)",
        "chapter 01: C (fails under MTMM_SEED missing)",
    ]


def test_the_ledger_shows_every_statement_with_what_was_measured():
    gain = Gain(2.0, 0.1, 10, "points")
    made = [
        claim("Sharing helped", gain, supports="A1"),
        claim("Sharing cost nothing", gain, supports="A3", verdict="refuted"),
        claim(
            "Nobody knows",
            gain.undecided(9),
            supports="C1",
            verdict="unresolved",
            missing="more data",
        ),
        claim("A fact", gain),
    ]
    page = generate.ledger(made)
    for label, words in STATEMENTS.items():
        if label[0] in "AC":
            assert f"| {label} | {words} |" in page
    assert page.count("not tested yet") == 13 - 3
    assert "C7 | decisions are hard to interpret | not tested yet (planned: " in page
    assert "A2 | better use of data | not tested yet |" in page
    assert "([chapter 01](../../chapters/01-everything-is-a-mapping.ipynb))" in page
    assert (
        "| A1 | better generalisation, less overfitting | [✓ supported](#ledger-a1) |"
        in page
    )
    assert f"- **✗ refuted.** Sharing cost nothing. *Measured:* {gain.text}" in page
    assert "What would settle it: more data" in page
    assert page.index("A fact") > page.index("## Facts of the book's own")


@pytest.mark.parametrize(
    "name", ["mtmm_lib.lesson", "mtmm_lib.training", "mtmm_lib.data"]
)
def test_the_reference_documents_what_a_reader_imports(name):
    assert name in generate.documented()


def test_the_reference_documents_nothing_twice():
    import importlib

    listed = [
        (module, name)
        for module, names in generate.documented().items()
        for name in names
    ]
    assert len(
        {id(getattr(importlib.import_module(module), name)) for module, name in listed}
    ) == len(listed)


def test_the_article_page_names_every_label_and_every_chapter_that_speaks_of_it():
    page = generate.article()
    taken_up = set()
    for lesson in [*book.lessons().values(), *book.planned().values()]:
        assert set(lesson.article) <= {*STATEMENTS, *SECTIONS}, lesson.slug
        taken_up |= set(lesson.article)
        for label in lesson.article:
            (row,) = re.findall(rf"^\| {re.escape(label)} \|.*$", page, re.MULTILINE)
            assert lesson.title in row
    assert taken_up == {*STATEMENTS, *SECTIONS}


@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.slug)
def test_a_chapter_takes_up_what_its_claims_speak_about(lesson):
    measured = source(lesson).supports
    assert measured <= set(lesson.article), (
        f"{lesson.slug} measures {measured}: name them in its front matter"
    )


def test_a_planned_lesson_falls_out_once_it_is_written(monkeypatch):
    planned = list(book.planned())
    monkeypatch.setitem(book.lessons(), planned[0], lessons()[0])
    book.planned.cache_clear()
    try:
        assert list(book.planned()) == planned[1:]
    finally:
        book.planned.cache_clear()


def test_the_front_page_has_the_map_and_a_line_for_each_lesson():
    page = generate.lessons()
    for lesson in lessons():
        name = f"[{lesson.number} · {lesson.title}](chapters/{lesson.name}.ipynb)"
        assert f"- {name}. {lesson.card} *{minutes(source(lesson))}*\n" in page
        assert f'href="chapters/{lesson.name}.html"' in page
    for lesson in book.planned().values():
        assert f"- {lesson.title} (planned). {lesson.card}\n" in page
    parts = re.findall(r"^### (.*)$", page, re.MULTILINE)
    assert parts == list(dict.fromkeys(lesson.part for lesson in book.course()))


def test_a_planned_lesson_stands_where_it_belongs():
    order = [lesson.slug for lesson in book.course()]
    assert set(order) == {*book.lessons(), *book.planned()}
    assert [slug for slug in order if slug in book.lessons()] == list(book.lessons())
    for slug, lesson in book.planned().items():
        before = order.index(slug) - 1
        assert order[before] == lesson.after
    parts = [lesson.part for lesson in book.course()]
    assert len(set(parts)) == 1 + sum(a != b for a, b in pairwise(parts))


def test_a_planned_lesson_follows_a_lesson_that_there_is(monkeypatch):
    lost = Planned("lost", "A part", "Lost", "A card.", (), after="nowhere")
    monkeypatch.setitem(book.planned(), "lost", lost)
    book.course.cache_clear()
    try:
        with pytest.raises(ValueError, match="lost after 'nowhere'"):
            book.course()
    finally:
        book.course.cache_clear()
