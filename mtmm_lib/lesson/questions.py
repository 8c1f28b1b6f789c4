"""Quizzes: questions in JSON, feedback for every choice."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from mtmm_lib.lesson.article import CHAPTER_ARROWS


def load(chapter: str) -> list[dict[str, Any]]:
    """The questions of a chapter, checked.

    Raises:
        ValueError: when there is no quiz, or it breaks a rule; says which.
    """
    file = files("mtmm_lib.lesson") / "quizzes" / f"{chapter}.json"
    if chapter not in CHAPTER_ARROWS or not file.is_file():
        raise ValueError(f"there is no quiz for chapter {chapter!r}")
    return json.loads(file.read_text(encoding="utf-8"))


def quiz(chapter: str) -> None:
    """Show the chapter's quiz."""
    from jupyterquiz import display_quiz

    display_quiz(load(chapter))
