r"""Tiny VQA: questions about small scenes, which neither the picture nor the question
answers alone.

A scene has four cells, two by two; each is empty or holds one of three shapes in one of
three colours, so that there are 10⁴ scenes. There are 18 questions of four kinds:

| kind | question | answers | asked when |
|---|---|---|---|
| colour | what colour is the circle | red, yellow, blue | there is one circle |
| presence | is there a red circle | yes, no | always |
| count | how many shapes are red | zero, one, two | at most two are |
| position | where is the circle | top left, … bottom right | there is one circle |

Kinds are equally frequent, so are the questions of a kind and the answers to a
question: the words of a question tell which answers are possible and nothing more.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from torch import Tensor

from mtmm_lib.batch import Batch
from mtmm_lib.data.splits import Splits
from mtmm_lib.data.text import PADDING, decode, encode

SHAPES = ("circle", "square", "triangle")
COLOURS = ("red", "yellow", "blue")
#: What a cell can hold, in the order of the class numbers of the target `cells`.
OBJECTS = ("nothing", *(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS))
POSITIONS = ("top left", "top right", "bottom left", "bottom right")
#: Kind of question → the answers it can have.
KINDS: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "presence": ("yes", "no"),
    "count": ("zero", "one", "two"),
    "position": POSITIONS,
}
#: All answers, in the order of the class numbers of the target `answer`.
ANSWERS = tuple(answer for answers in KINDS.values() for answer in answers)
#: Every question, with the number of its kind.
QUESTIONS: tuple[tuple[str, int], ...] = (
    *((f"what colour is the {shape}", 0) for shape in SHAPES),
    *((f"is there a {colour} {shape}", 1) for shape in SHAPES for colour in COLOURS),
    *((f"how many shapes are {colour}", 2) for colour in COLOURS),
    *((f"where is the {shape}", 3) for shape in SHAPES),
)
#: Words of the questions; a word's position is its token id.
VOCABULARY = (
    PADDING,
    *dict.fromkeys(word for question, _ in QUESTIONS for word in question.split()),
)
QUESTION_LENGTH = 5
CELL = 8  # pixels
IMAGE_SHAPE = (3, 2 * CELL, 2 * CELL)
SIZES = (4000, 500, 1000)

_BACKGROUND = 0.15
_RGB = np.array(
    [[0.90, 0.25, 0.20], [0.95, 0.85, 0.20], [0.25, 0.50, 0.95]], np.float32
)
_PICTURES = (
    (".###.", "#####", "#####", "#####", ".###."),
    ("#####", "#####", "#####", "#####", "#####"),
    ("..#..", "..#..", ".###.", ".###.", "#####"),
)
_MASKS = np.array(
    [[[pixel == "#" for pixel in row] for row in picture] for picture in _PICTURES]
)


@cache
def _scenes() -> np.ndarray:
    """All scenes, as class numbers of what their cells hold, int64 `[10000, 4]`."""
    return np.array(list(itertools.product(range(len(OBJECTS)), repeat=4)), np.int64)


def _shapes_and_colours(scenes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bool `[N, 4, 3]` each: which shape, and which colour, is in which cell."""
    shape, colour = np.divmod(scenes[:, :, None] - 1, len(COLOURS))
    full = scenes[:, :, None] > 0
    return full & (shape == np.arange(len(SHAPES))), full & (
        colour == np.arange(len(COLOURS))
    )


@cache
def _answers() -> np.ndarray:
    """Answer of every question about every scene, int64 `[18, 10000]`; −1 where it is
    not asked."""
    shapes, colours = _shapes_and_colours(_scenes())
    unique = shapes.sum(1) == 1
    cell = shapes.argmax(1)  # of the first circle, square, triangle
    colour = np.take_along_axis(colours.argmax(2), cell, 1)
    there = (
        (shapes[:, :, :, None] & colours[:, :, None, :])
        .any(1)
        .reshape(-1, len(SHAPES) * len(COLOURS))
    )
    count = colours.sum(1)
    first = {kind: ANSWERS.index(answers[0]) for kind, answers in KINDS.items()}
    answers_to: np.ndarray = np.concatenate(
        [
            np.where(unique, first["colour"] + colour, -1),
            np.where(there, first["presence"], first["presence"] + 1),
            np.where(count <= 2, first["count"] + count, -1),
            np.where(unique, first["position"] + cell, -1),
        ],
        axis=1,
    ).T
    return answers_to


def render(scenes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scenes int `[N, 4]` → images float32 `[N, 3, 16, 16]` in [0, 1].

    Each object stands at a random one of four places in its cell.
    """
    image = np.full((len(scenes), *IMAGE_SHAPE), _BACKGROUND, np.float32)
    sample, cell = np.nonzero(scenes)
    shape, colour = np.divmod(scenes[sample, cell] - 1, len(COLOURS))
    top, left = (
        CELL * corner + rng.integers(1, 3, len(cell)) for corner in np.divmod(cell, 2)
    )
    side = np.arange(_MASKS.shape[1])
    rows, columns = top[:, None, None] + side[:, None], left[:, None, None] + side
    for channel in range(3):
        value = np.where(_MASKS[shape], _RGB[colour, channel, None, None], _BACKGROUND)
        image[sample[:, None, None], channel, rows, columns] = value
    return image


def question_text(ids: Tensor) -> str:
    """Token ids `[L]` of one question → the question, as in "where is the circle?"."""
    return decode(ids, VOCABULARY) + "?"


def tiny_vqa(*, seed: int = 0) -> Splits:
    r"""Questions about scenes: 4,000 / 500 / 1,000 samples; no scene is in two splits.

    Answers are balanced to the nearest sample: the best that can be done with the
    question alone is 35.4 % of the answers (the mean of 1/3, 1/2, 1/3 and 1/4), with
    the image alone 22.9 % (by enumeration of all scenes). Which scenes are possible
    depends on what is asked, so that an image says a little about it.

    Args:
        seed: a number ≥ 0; redraws which scenes are in which split, the questions and
            the images.

    Returns:
        Splits of batches with the inputs `image` float `[B, 3, 16, 16]` in [0, 1];
        `question` int64 `[B, 5]`, ids of `VOCABULARY`, with `lengths`. Targets:
        `answer` int64 `[B]`, a number into `ANSWERS`. Sub-tasks: `kind` int64 `[B]`,
        the kind of the question, a number into `KINDS`; `objects` float `[B, 9]`, how
        many the scene has of each of `OBJECTS[1:]`; `layout` float `[B, 24]`, for each
        cell three zeros and ones for `SHAPES` and three for `COLOURS`; `cells` int64
        `[B, 4]`, the scene itself, numbers into `OBJECTS`.
    """
    scenes, answers = _scenes(), _answers()
    ids, lengths = encode([text for text, _ in QUESTIONS], VOCABULARY, QUESTION_LENGTH)
    kinds = np.array([kind for _, kind in QUESTIONS])
    order = np.random.default_rng([seed, 0]).permutation(len(scenes))
    parts = np.split(order, np.cumsum(SIZES)[:-1] * len(scenes) // sum(SIZES))
    batches = []
    for split, (part, size) in enumerate(zip(parts, SIZES, strict=True)):
        rng = np.random.default_rng([seed, 1 + split])
        asked, scene = np.empty(size, np.int64), np.empty(size, np.int64)
        rank, kind = np.divmod(rng.permutation(size), len(KINDS))
        for k, possible in enumerate(KINDS.values()):
            # Counting through the kind's answers and questions makes all of them
            # equally frequent.
            mine = np.flatnonzero(kind == k)
            questions = np.flatnonzero(kinds == k)
            asked[mine] = questions[rank[mine] // len(possible) % len(questions)]
            wanted = ANSWERS.index(possible[0]) + rank[mine] % len(possible)
            for q, a in itertools.product(questions, np.unique(wanted)):
                here = mine[(asked[mine] == q) & (wanted == a)]
                scene[here] = rng.choice(part[answers[q, part] == a], len(here))
        content = scenes[scene]
        batches.append(
            Batch(
                inputs={
                    "image": torch.from_numpy(render(content, rng)),
                    "question": torch.from_numpy(ids[asked]),
                },
                targets={
                    "answer": torch.from_numpy(answers[asked, scene]),
                    "kind": torch.from_numpy(kind),
                    "objects": torch.from_numpy(
                        (content[:, :, None] == np.arange(1, len(OBJECTS)))
                        .sum(1)
                        .astype(np.float32)
                    ),
                    "layout": torch.from_numpy(
                        np.concatenate(_shapes_and_colours(content), 2)
                        .reshape(size, -1)
                        .astype(np.float32)
                    ),
                    "cells": torch.from_numpy(content),
                },
                lengths={"question": torch.from_numpy(lengths[asked])},
            )
        )
    return Splits(*batches)
