"""Quizzes: those of the chapters keep the rules, and the rules find what breaks them."""

import copy

import pytest

from mtmm_lib.lesson import questions, quiz
from mtmm_lib.lesson.article import CHAPTER_ARROWS

FOLDER = questions.files("mtmm_lib.lesson") / "quizzes"
FILES = sorted(file.name for file in FOLDER.iterdir())
ANSWER = {"answer": "one", "correct": True, "feedback": "Yes."}
WRONG = {"answer": "two", "correct": False, "feedback": "No."}
QUESTION = {"question": "How many?", "type": "multiple_choice", "answers": [ANSWER, WRONG]}


@pytest.mark.parametrize("name", FILES)
def test_quiz(name: str, capsys) -> None:
    chapter = name.removesuffix(".json")
    assert chapter in CHAPTER_ARROWS
    loaded = questions.load(chapter)
    quiz(chapter)  # where there is no notebook: as plain text
    shown = capsys.readouterr().out
    assert f"{len(loaded)}. " in shown and "<sub>" not in shown


def test_a_quiz_of_another_chapter_is_refused() -> None:
    for chapter in ("99", "1", "../quizzes/01"):
        with pytest.raises(ValueError, match="no quiz"):
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
        (broken(answers=[ANSWER, {**ANSWER, "answer": "two"}]), "exactly one correct answer, got 2"),
        (broken(answers=[{**ANSWER, "correct": False}, WRONG]), "exactly one correct answer, got 0"),
        (broken(type="many_choice"), "two or more correct answers, got 1"),
        (broken(answers=[ANSWER, {**WRONG, "answer": "one"}]), "are the same"),
        (broken(question="What is $z$?"), "no LaTeX"),
    ],
)
def test_a_broken_question_is_named(question: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=f"question 3: .*{problem}"):
        questions.check_quiz([QUESTION, QUESTION, question, QUESTION, QUESTION])
