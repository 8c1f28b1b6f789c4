"""Quizzes: questions in `quizzes/NN.json` in jupyterquiz's format, with feedback for
every choice.

Where the questions name the "section" that answers them, the quiz is a self-test: under
it stands, after the last answer, which sections to read. The browser works that out, so
that it needs no kernel.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from mtmm_lib.lesson import page
from mtmm_lib.lesson.article import CHAPTER_ARROWS

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
# jupyterquiz's sheet is made for slides: smaller type, choices as a list, a frame for
# the one chosen.
_STYLE = """<style>
.mtmm .Quiz{font-size:1rem;line-height:1.5;margin:0 0 1rem;padding:0;max-width:44rem!important}
.mtmm .MultipleChoiceQn,.mtmm .ManyChoiceQn{padding:0;font-weight:600}
.mtmm .ManyChoiceQn::after{content:" Choose all that apply.";font-weight:400;color:var(--mtmm-soft)}
.mtmm .Answer{display:flex;flex-direction:column;gap:.4rem;margin:.4rem 0}
.mtmm .MCButton{color:var(--mtmm-ink);font-size:.95rem;justify-content:flex-start;text-align:left;
padding:.45rem .8rem;border-radius:.4rem;margin:0;position:relative}
.mtmm .MCButton input{position:absolute;opacity:0;width:1px;height:1px}
.mtmm .MCButton:hover{border-color:var(--mtmm-soft)}
.mtmm .MCButton:focus-within{outline:2px solid var(--mtmm-blue);outline-offset:1px}
.mtmm .correctButton,.mtmm .incorrectButton{animation:none;color:var(--mtmm-ink)}
.mtmm .MCButton.correctButton{border:2px solid var(--mtmm-good)}
.mtmm .MCButton.incorrectButton{border:2px solid var(--mtmm-bad)}
.mtmm .correctButton::after{content:"✓";color:var(--mtmm-good);margin-left:auto;padding-left:.6rem}
.mtmm .incorrectButton::after{content:"✗";color:var(--mtmm-bad);margin-left:auto;padding-left:.6rem}
.mtmm .Quiz code{color:inherit;background:var(--mtmm-paper);font-size:.9em;padding:0 .2em;border:0}
.mtmm .Feedback{font-size:.95rem;text-align:left;min-height:1.5em}
.mtmm .mtmm-verdict{font-weight:600;min-height:1.5em;max-width:44rem}
</style>"""
# What jupyterquiz leaves out: groups with names, and feedback that a screen reader
# hears.
_NAME = """
(function name(tries){
  const quizzes = document.querySelectorAll("#%s .Quiz");
  if (!quizzes.length && tries) return setTimeout(() => name(tries - 1), 200);
  quizzes.forEach(quiz => {
    const choices = quiz.querySelector(".Answer");
    choices.setAttribute("role", "radiogroup");
    choices.setAttribute("aria-labelledby", quiz.firstElementChild.id);
    quiz.querySelector(".Feedback").setAttribute("aria-live", "polite");
  });
})(50);"""
# The first answer to a question counts. By keyboard one passes over choices: the one
# that is left counts.
_VERDICT = """
(function judge(sections, tries){
  const box = document.getElementById("%s"), quizzes = [...box.querySelectorAll(".Quiz")];
  if (!quizzes.length && tries) return setTimeout(() => judge(sections, tries - 1), 200);
  const right = sections.map(() => null);
  function settle(k, choice) {
    if (right[k] !== null || !choice) return;
    right[k] = choice.dataset.correct === "true";
    if (right.includes(null)) return;
    const read = sections.filter((_, i) => !right[i]).map(name => `“${name}”`), last = read.pop();
    const verdict = !last ? "You may skip this chapter."
      : !read.length ? `You may skip this chapter; only ${last} deserves a look.`
      : `Read ${read.join(", ")} and ${last}.`;
    box.querySelector(".mtmm-verdict").textContent =
      `${right.filter(Boolean).length} of ${right.length} right at the first go. ${verdict}`;
  }
  quizzes.forEach((quiz, k) => {
    quiz.addEventListener("click", event => event.detail && settle(k, event.target.closest(".MCButton")));
    quiz.addEventListener("focusout", event => quiz.contains(event.relatedTarget)
      || settle(k, quiz.querySelector(".correctButton, .incorrectButton")));
  });
})(%s, 50);"""


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
    file = files("mtmm_lib.lesson") / "quizzes" / f"{chapter}.json"
    if chapter not in CHAPTER_ARROWS or not file.is_file():
        raise ValueError(f"there is no quiz for chapter {chapter!r}")
    questions = json.loads(file.read_text(encoding="utf-8"))
    try:
        check_quiz(questions)
    except ValueError as error:
        raise ValueError(f"quiz {chapter}, {error}") from None
    return questions


def quiz(chapter: str) -> None:
    """Show the quiz of a chapter, as in `quiz("01")`. It works without a kernel and
    without a network.

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
    script = f"(function(){{var MathJax;{script}\n}})();{_NAME % name}"
    verdict = ""
    if "section" in questions[0]:
        verdict = '<p class="mtmm-verdict" role="status"></p>'
        script += _VERDICT % (
            name,
            json.dumps([question["section"] for question in questions]),
        )
    script = script.replace("</", "<\\/")
    page.show(
        f"{_STYLE}<div "
        f'id="{name}">{markup}</div>{verdict}</div><script>{script}</script>',
        re.sub("<[^>]*>", "", plain),
    )
