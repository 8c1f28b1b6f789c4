"""Quizzes: questions in a lesson's `quiz.json` in jupyterquiz's format, with feedback
for every choice.

Where the questions name the "section" that answers them, the quiz is a self-test: under
it stands, after the last answer, which sections to read. The browser works that out, so
that it needs no kernel. A question may also name the "objective" of the lesson that it
tests, by its number.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mtmm_lib.lesson import book, page

QUESTIONS = range(5, 9)

_COLOURS = {
    "--jq-multiple-choice-bg": "transparent",
    "--jq-many-choice-bg": "transparent",
    "--jq-mc-button-bg": "var(--mtmm-paper)",
    "--jq-mc-button-border": "var(--mtmm-line)",
    "--jq-mc-button-inset-shadow": "transparent",
    "--jq-text-color": "var(--mtmm-ink)",
    "--jq-correct-color": "var(--mtmm-good)",
    "--jq-incorrect-color": "var(--mtmm-bad)",
    "--jq-link-color": "var(--mtmm-blue)",
}


def check_quiz(questions: list[dict[str, Any]]) -> None:
    """Check the rules of a quiz.

    Raises:
        ValueError: says which question breaks which rule.
    """
    if len(questions) not in QUESTIONS:
        raise ValueError(
            f"a quiz has {QUESTIONS[0]} to {QUESTIONS[-1]} questions, got "
            f"{len(questions)}"
        )
    for number, question in enumerate(questions, 1):
        answers = question.get("answers", [])
        correct = sum(answer.get("correct") is True for answer in answers)
        texts = [question.get("question", "")]
        texts += [
            answer.get(key, "") for answer in answers for key in ("answer", "feedback")
        ]
        if question.get("type") not in ("multiple_choice", "many_choice"):
            problem = (
                '"type" is "multiple_choice" or "many_choice", got '
                f"{question.get('type')!r}"
            )
        elif len(answers) < 2:
            problem = "it needs at least two answers"
        elif any(not text.strip() for text in texts):
            problem = (
                'it needs a "question", and every answer an "answer" and a "feedback"'
            )
        elif any(not isinstance(answer.get("correct"), bool) for answer in answers):
            problem = 'every answer needs "correct": true or false'
        elif question["type"] == "multiple_choice" and correct != 1:
            problem = f"a multiple choice has exactly one correct answer, got {correct}"
        elif question["type"] == "many_choice" and correct < 2:
            problem = f"a many choice has two or more correct answers, got {correct}"
        elif len({answer["answer"] for answer in answers}) < len(answers):
            problem = "two of its answers are the same"
        elif ("section" in question) != ("section" in questions[0]):
            problem = 'either every question has a "section", or none'
        elif "section" in question and question["type"] != "multiple_choice":
            problem = (
                "a self-test counts first answers, so that it takes multiple "
                "choices only"
            )
        elif not isinstance(question.get("objective", 1), int):
            problem = (
                '"objective" is the number of the one that it tests, got '
                f"{question['objective']!r}"
            )
        elif any("$" in text for text in texts):
            problem = (
                "a quiz shows no LaTeX (JupyterLab could not): write HTML, as "
                "in h<sub>t</sub>"
            )
        else:
            continue
        raise ValueError(f"question {number}: {problem}")


def load(chapter: str) -> list[dict[str, Any]]:
    """The questions of a chapter, checked.

    Raises:
        ValueError: when there is no such quiz, or it breaks a rule.
    """
    file = book.lesson(chapter).folder / "quiz.json"
    if not file.is_file():
        raise ValueError(f"there is no quiz for chapter {chapter!r}")
    questions: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    try:
        check_quiz(questions)
    except ValueError as error:
        raise ValueError(f"quiz {chapter}, {error}") from None
    return questions


def quiz(chapter: str) -> None:
    """Show the quiz of a chapter, as in `quiz("warm-up")`. It works without a kernel
    and without a network.

    A self-test says in the end whether to skip the chapter, or which of its sections to
    read.

    Raises:
        ValueError: when there is no such quiz, or it breaks a rule.
    """
    from IPython.utils.capture import capture_output
    from jupyterquiz import display_quiz

    questions = load(chapter)
    plain = "\n".join(
        f"{number}. {question['question']}\n"
        + "\n".join(f"   - {a['answer']}" for a in question["answers"])
        for number, question in enumerate(questions, 1)
    )
    with capture_output() as shown:
        display_quiz(questions, colors=_COLOURS, border_radius=0)
    markup = "".join(output.data.get("text/html", "") for output in shown.outputs)
    script = "".join(
        output.data.get("application/javascript", "") for output in shown.outputs
    )
    name = f"quiz-{chapter}"
    # The script looks for a global MathJax and would load it from the network, but
    # there is nothing to set.
    script = f"(function(){{var MathJax;{script}\n}})();"
    script += f'({page.static("names.js")})("{name}");'
    verdict = ""
    if "section" in questions[0]:
        verdict = '<p class="mtmm-verdict" role="status"></p>'
        sections = json.dumps([question["section"] for question in questions])
        script += f'({page.static("verdict.js")})("{name}", {sections});'
    script = script.replace("</", "<\\/")
    page.show(
        f'{page.style("questions")}<div id="{name}">{markup}</div>{verdict}</div>'
        f"<script>{script}</script>",
        re.sub("<[^>]*>", "", plain),
    )
