"""Quizzes: those of the chapters keep the rules, and the rules find what breaks
them."""

import copy
import json
from collections.abc import Iterator

import pytest

from mtmm_lib.lesson import book, questions, quiz
from tools.lesson import source

ANSWER = {"answer": "one", "correct": True, "feedback": "Yes."}
WRONG = {"answer": "two", "correct": False, "feedback": "No."}
QUESTION = {
    "question": "How many?",
    "type": "multiple_choice",
    "answers": [ANSWER, WRONG],
}


@pytest.mark.parametrize("chapter", book.lessons())
def test_quiz(chapter: str, capsys) -> None:
    loaded = questions.load(chapter)
    quiz(chapter)  # where there is no notebook: as plain text
    shown = capsys.readouterr().out
    assert f"{len(loaded)}. " in shown and "<sub>" not in shown


def test_a_quiz_of_another_chapter_is_refused() -> None:
    for chapter in ("another", "01", "../src/warm-up"):
        with pytest.raises(ValueError, match="the chapters are warm-up"):
            quiz(chapter)


def test_the_number_of_questions() -> None:
    for n in (4, 9):
        with pytest.raises(ValueError, match=f"5 to 8 questions, got {n}"):
            questions.check_quiz([QUESTION] * n)
    for n in (5, 8):
        questions.check_quiz([QUESTION] * n)


def broken(**changes) -> dict:
    return {**copy.deepcopy(QUESTION), **changes}


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        (broken(type="numeric"), '"type" is'),
        (broken(question=" "), 'needs a "question"'),
        (broken(answers=[ANSWER]), "at least two"),
        (broken(answers=[ANSWER, {**WRONG, "feedback": ""}]), 'a "feedback"'),
        (broken(answers=[ANSWER, {"answer": "two", "correct": False}]), 'a "feedback"'),
        (broken(answers=[ANSWER, {**WRONG, "correct": "no"}]), "true or false"),
        (
            broken(answers=[ANSWER, {**ANSWER, "answer": "two"}]),
            "exactly one correct answer, got 2",
        ),
        (
            broken(answers=[{**ANSWER, "correct": False}, WRONG]),
            "exactly one correct answer, got 0",
        ),
        (broken(type="many_choice"), "two or more correct answers, got 1"),
        (broken(answers=[ANSWER, {**WRONG, "answer": "one"}]), "are the same"),
        (broken(question="What is $z$?"), "no LaTeX"),
        (broken(objective="Shapes"), '"objective" is the number'),
        (broken(section="Shapes"), 'every question has a "section", or none'),
    ],
)
def test_a_broken_question_is_named(question: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=f"question 3: .*{problem}"):
        questions.check_quiz([QUESTION, QUESTION, question, QUESTION, QUESTION])


def test_a_self_test_takes_multiple_choices_only() -> None:
    many = {"type": "many_choice", "answers": [ANSWER, {**ANSWER, "answer": "two"}]}
    with pytest.raises(ValueError, match="question 2: .*multiple choices only"):
        questions.check_quiz(
            [{**QUESTION, "section": "A"}, {**broken(**many), "section": "B"}] * 3
        )


@pytest.mark.parametrize("chapter", book.lessons())
def test_the_sections_of_a_self_test_are_in_the_chapter(chapter: str) -> None:
    headings = source(book.lesson(chapter)).headings
    named = [
        question["section"]
        for question in questions.load(chapter)
        if "section" in question
    ]
    assert named == [heading for heading in headings if heading in named]


@pytest.fixture(scope="module")
def markup() -> str:
    """What a notebook shows for a self-test of six questions."""
    import nbformat
    from nbclient import NotebookClient

    test = [{**QUESTION, "section": f"</script> {letter}"} for letter in "ABCDEF"]
    cell = f"""from mtmm_lib.lesson import questions
questions.load = lambda chapter: {test}
questions.quiz("warm-up")"""
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(lesson, timeout=120, kernel_name="python3").execute()
    return lesson.cells[0].outputs[0]["data"]["text/html"]


@pytest.fixture
def self_test(browser, markup: str) -> Iterator:
    tab = browser.new_page()
    tab.problems = []
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.set_content(markup)
    tab.wait_for_selector(".MCButton")
    yield tab
    assert tab.problems == []
    tab.close()


def verdict(tab) -> str:
    return tab.locator(".mtmm-verdict").inner_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("", "6 of 6 right at the first go. You may skip this chapter."),
        (
            "C",
            "5 of 6 right at the first go. You may skip this chapter; only “C” "
            "deserves a look.",
        ),
        ("AF", "4 of 6 right at the first go. Read “A” and “F”."),
        ("BCD", "3 of 6 right at the first go. Read “B”, “C” and “D”."),
    ],
)
def test_the_verdict_follows_from_the_first_answers(
    self_test, wrong: str, said: str
) -> None:
    for letter, question in zip(
        "ABCDEF", self_test.locator(".Quiz").all(), strict=True
    ):
        assert verdict(self_test) == ""
        question.locator(
            f".MCButton[data-correct={json.dumps(letter not in wrong)}]"
        ).click()
        if letter != "F":  # a second answer changes nothing
            question.locator(
                f".MCButton[data-correct={json.dumps(letter in wrong)}]"
            ).click()
    assert verdict(self_test).replace("</script> ", "") == said


def test_by_keyboard_the_answer_that_is_left_counts(self_test) -> None:
    for question in self_test.locator(".Quiz").all():
        assert verdict(self_test) == ""
        right = (
            question.locator(".MCButton").first.get_attribute("data-correct") == "true"
        )
        question.locator("input").first.focus()
        self_test.keyboard.press("ArrowDown")
        if right:
            self_test.keyboard.press("ArrowUp")
    self_test.evaluate("document.activeElement.blur()")
    assert verdict(self_test).startswith("6 of 6 right")
