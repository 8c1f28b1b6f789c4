"""The book's one picture, drawn: inputs, mappings, losses and the update; a chapter's arrows are highlighted."""

from __future__ import annotations

from mtmm_lib.lesson.article import ARROWS, CHAPTER_ARROWS


def _arrows(chapter: str | None) -> tuple[str, ...]:
    if chapter is None:
        return ()
    if chapter not in CHAPTER_ARROWS:
        raise ValueError(f"chapters are {', '.join(CHAPTER_ARROWS)}; got {chapter!r}")
    return CHAPTER_ARROWS[chapter]


def alt(chapter: str | None = None) -> str:
    """The picture in words."""
    text = (
        "Inputs of several modalities pass through encoders to features, through fusion to one representation, "
        "through sharing to a feature per task, and through heads to predictions. Tasks turn the predictions into "
        "losses, and a balancer turns the losses into one update of the parameters."
    )
    arrows = _arrows(chapter)
    if set(arrows) == set(ARROWS):
        return text + " This chapter uses every arrow."
    return text + (f" This chapter changes: {' and '.join(arrows)}." if arrows else "")


def svg(chapter: str | None = None) -> str:
    """The picture as inline SVG; `None`: nothing highlighted."""
    return f'<svg role="img" aria-label="{alt(chapter)}" viewBox="0 0 10 1"></svg>'
