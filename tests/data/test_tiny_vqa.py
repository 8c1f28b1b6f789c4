"""Tiny VQA: answers recomputed from the scenes, images that show them, balance, one
modality alone."""

from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest
import torch

from mtmm_lib.batch import Batch
from mtmm_lib.data import tiny_vqa
from mtmm_lib.data.files import data_file
from mtmm_lib.data.tiny_vqa import (
    ANSWERS,
    COLOURS,
    IMAGE_SHAPE,
    KINDS,
    OBJECTS,
    POSITIONS,
    QUESTIONS,
    SHAPES,
    VOCABULARY,
    question_text,
)


def answer(scene: list[str], question: str) -> str | None:
    """The answer of a reader of the description; None where the question is not
    asked."""
    words = question.rstrip("?").split()
    if words[0] in ("what", "where"):
        found = [i for i, thing in enumerate(scene) if thing.endswith(words[-1])]
        if len(found) != 1:
            return None
        return (
            POSITIONS[found[0]] if words[0] == "where" else scene[found[0]].split()[0]
        )
    if words[0] == "is":
        return "yes" if " ".join(words[-2:]) in scene else "no"
    number = sum(thing.startswith(words[-1]) for thing in scene)
    return ("zero", "one", "two")[number] if number <= 2 else None


def description(batch: Batch, i: int) -> list[str]:
    return [OBJECTS[c] for c in batch.targets["cells"][i].tolist()]


@pytest.fixture(scope="module", params=range(2))
def splits(request):
    return tiny_vqa(seed=request.param)


def test_every_answer_is_the_one_that_the_scene_gives(splits):
    for batch in splits:
        for i, ids in enumerate(batch.inputs["question"]):
            text = question_text(ids)
            assert (
                answer(description(batch, i), text)
                == ANSWERS[batch.targets["answer"][i]]
            )
            kind = list(KINDS)[batch.targets["kind"][i]]
            assert (text[:-1], list(KINDS).index(kind)) in QUESTIONS
            assert ANSWERS[batch.targets["answer"][i]] in KINDS[kind]
            assert batch.lengths["question"][i] == len(text.split())


def test_sub_task_labels_describe_the_scene(splits):
    for batch in splits:
        for i in range(len(batch)):
            scene = description(batch, i)
            assert batch.targets["objects"][i].tolist() == [
                scene.count(thing) for thing in OBJECTS[1:]
            ]
            layout = [
                [float(thing.endswith(shape)) for shape in SHAPES]
                + [float(thing.startswith(colour)) for colour in COLOURS]
                for thing in scene
            ]
            assert batch.targets["layout"][i].reshape(4, 6).tolist() == layout


def test_images_show_the_scene():
    """The pixels of a cell tell its object: the colour by its channels, the shape by
    how many there are."""
    batch = tiny_vqa(seed=3).train
    image = batch.inputs["image"]
    assert image.shape[1:] == IMAGE_SHAPE and image.min() >= 0 and image.max() <= 1
    # [B, 3, 16, 16] → [B, 4 cells, 3 channels, 64 pixels]
    cells = (
        image.unflatten(3, (2, 8))
        .unflatten(2, (2, 8))
        .permute(0, 2, 4, 1, 3, 5)
        .flatten(4)
        .flatten(1, 2)
    )
    drawn = cells.std(2) > 0.05  # the background is grey
    red, green, blue = (
        (cells * drawn[:, :, None]).sum(3) / drawn.sum(2)[..., None].clamp(min=1)
    ).unbind(2)
    colour = torch.where(
        blue > red, COLOURS.index("blue"), (green > 0.5) * COLOURS.index("yellow")
    )
    size = drawn.sum(2)
    # circle, square, triangle
    shape = (size[..., None] == torch.tensor([21, 25, 13])).float().argmax(2)
    seen = torch.where(size == 0, 0, 1 + 3 * shape + colour)
    assert seen.equal(batch.targets["cells"])
    # Objects do not always stand in the same place.
    assert (
        len(
            {
                row.numpy().tobytes()
                for row in drawn[:, 0][batch.targets["cells"][:, 0] == 1]
            }
        )
        == 4
    )


def test_kinds_questions_and_answers_are_balanced(splits):
    for batch in splits:
        kinds = batch.targets["kind"].bincount()
        assert kinds.max() - kinds.min() <= 1
        by_question = defaultdict(Counter)
        for ids, a in zip(
            batch.inputs["question"], batch.targets["answer"].tolist(), strict=True
        ):
            by_question[question_text(ids)[:-1]][a] += 1
        assert set(by_question) == {text for text, _ in QUESTIONS}
        for text, kind in QUESTIONS:
            frequencies = by_question[text].values()
            assert len(frequencies) == len(list(KINDS.values())[kind])
            assert max(frequencies) - min(frequencies) <= 1


def test_no_scene_is_in_two_splits(splits):
    scenes = [set(map(tuple, b.targets["cells"].tolist())) for b in splits]
    assert sum(map(len, scenes)) == len(set.union(*scenes))
    assert [len(b) for b in splits] == [4000, 500, 1000]


def test_a_seed_gives_the_same_data_and_another_one_others():
    a, b, c = (tiny_vqa(seed=s) for s in (0, 0, 1))
    for one, same, other in zip(a, b, c, strict=True):
        for group in ("inputs", "targets", "lengths"):
            for key, value in getattr(one, group).items():
                assert value.equal(getattr(same, group)[key])
        assert not one.inputs["image"].equal(other.inputs["image"])
        assert not one.inputs["question"].equal(other.inputs["question"])


def test_the_best_that_one_modality_can_do_is_what_the_card_says():
    """Bayes' accuracy from the image, and from the question, by enumeration of all
    scenes and questions."""
    which = defaultdict(list)  # (question, answer) → scenes
    for scene in product(OBJECTS, repeat=4):
        for text, _ in QUESTIONS:
            which[text, answer(list(scene), text)].append(scene)
    of_kind = Counter(kind for _, kind in QUESTIONS)
    from_image, from_question = defaultdict(float), defaultdict(float)
    for text, kind in QUESTIONS:
        answers = list(KINDS.values())[kind]
        for a in answers:
            share = 1 / len(KINDS) / of_kind[kind] / len(answers)
            from_question[text, a] += share
            for scene in which[text, a]:
                from_image[scene, a] += share / len(which[text, a])
    assert sum(from_image.values()) == pytest.approx(1)
    bayes = []
    for joint in (from_question, from_image):
        best = defaultdict(float)
        for (given, _), share in joint.items():
            best[given] = max(best[given], share)
        bayes.append(100 * sum(best.values()))
    card = data_file("tiny_vqa", "CARD.md").read_text(encoding="utf-8")
    for value in bayes:
        assert f"{value:.1f} %" in card and f"{value:.1f} %" in tiny_vqa.__doc__


def test_the_vocabulary_is_what_the_questions_use():
    assert set(VOCABULARY[1:]) == {
        word for text, _ in QUESTIONS for word in text.split()
    }
    assert len(set(VOCABULARY)) == len(VOCABULARY) and len(set(ANSWERS)) == len(ANSWERS)
    used = torch.cat([b.inputs["question"].flatten() for b in tiny_vqa()])
    assert set(used.tolist()) == set(range(len(VOCABULARY)))


def test_a_model_of_the_question_alone_learns_which_answers_are_possible_and_no_more():
    """The commonest answer to each question in training, used on the test set."""
    train, _, test = tiny_vqa(seed=5)
    counts = defaultdict(Counter)
    for ids, a in zip(
        train.inputs["question"], train.targets["answer"].tolist(), strict=True
    ):
        counts[tuple(ids.tolist())][a] += 1
    right = [
        counts[tuple(ids.tolist())].most_common(1)[0][0] == a
        for ids, a in zip(
            test.inputs["question"], test.targets["answer"].tolist(), strict=True
        )
    ]
    assert np.mean(right) == pytest.approx(
        (1 / 3 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=0.01
    )
