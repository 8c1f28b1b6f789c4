"""SNIPS: decoding, slots on words, splits without leakage, numbers that say what the
sentences say."""

import json
import os
from collections import Counter

import numpy as np
import pytest
import torch

from mtmm_lib.data import snips
from mtmm_lib.data.files import data_file
from mtmm_lib.data.registry import SETS, fetch
from mtmm_lib.data.snips import INTENTS, SLOTS, TAGS, Utterance
from mtmm_lib.data.text import PADDING, UNKNOWN, decode, encode

ROOT = "2017-06-custom-intent-engines"
needs_the_real_set = pytest.mark.skipif(
    not os.environ.get("MTMM_DATA"),
    reason="MTMM_DATA names no folder with the real sets",
)


def said(text, **slots):
    """The pieces of a sentence; {name} stands for a slot's text."""
    data, rest = [], text
    for slot, value in slots.items():
        before, _, rest = rest.partition("{" + slot + "}")
        data += [{"text": before}] * bool(before) + [{"text": value, "entity": slot}]
    return {"data": data + [{"text": rest}] * bool(rest)}


SPECIAL = said(
    "Play {album}, by {artist}!",
    album="Música de\u00a0Antaño SLICE",
    artist="Zoë's band ",
)


@pytest.fixture
def made_up(stand_in):
    files = {"LICENSE": b"CC0"}
    for intent in INTENTS:
        train = [
            said(f"{intent} number {i} in {{city}}.", city=f"New {intent}ton{i}")
            for i in range(120)
        ]
        train += [said("Once more"), said("once MORE")]  # the same but for capitals
        test = [said(f"{intent} test {i} unheard{i}") for i in range(100)]
        if intent == "PlayMusic":
            train.append(SPECIAL)
            # is in training, too
            test.append(
                said(f"{intent} number 7 in {{city}}.", city=f"New {intent}ton7")
            )
        for name, items in (
            (f"train_{intent}_full", train),
            (f"validate_{intent}", test),
        ):
            content = json.dumps({intent: items}, ensure_ascii=False).encode()
            files[f"{ROOT}/{intent}/{name}.json"] = content.replace(
                b"SLICE", b"\xed\xa0\xbc\xed\xbd\x95"
            )
    return stand_in("snips", files)


def everything(corpus):
    return [utterance for part in corpus.sentences for utterance in part]


def test_a_sentence_is_cut_into_words_with_the_tags_of_its_pieces(made_up):
    [found] = [u for u in everything(snips()) if "!" in u.words]
    assert found == Utterance(
        words=(
            "Play",
            "Música",
            "de",
            "Antaño",
            "🍕",
            ",",
            "by",
            "Zoë",
            "'",
            "s",
            "band",
            "!",
        ),
        tags=("O", "B-album", "I-album", "I-album", "I-album", "O", "O")
        + ("B-artist", "I-artist", "I-artist", "I-artist", "O"),
        intent="PlayMusic",
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_published_split_stands_and_validation_comes_out_of_training(made_up, seed):
    corpus = snips(seed=seed)
    train, valid, test = corpus.sentences
    assert len(test) == 701 and all("test" in u.words or "7" in u.words for u in test)
    assert Counter(u.intent for u in valid) == dict.fromkeys(INTENTS, 100)
    assert len(train) == 7 * 22 + 1
    lower = [{" ".join(u.words).lower() for u in part} for part in corpus.sentences]
    assert not lower[1] & (lower[0] | lower[2]) and len(lower[1]) == 700


@pytest.mark.parametrize("seed", range(2))
def test_the_numbers_say_what_the_sentences_say(made_up, seed):
    corpus = snips(seed=seed)
    assert corpus.vocabulary[:2] == (PADDING, UNKNOWN) and len(
        set(corpus.vocabulary)
    ) == len(corpus.vocabulary)
    longest = max(len(u.words) for u in everything(corpus))
    for batch, part in zip(corpus.splits, corpus.sentences, strict=True):
        ids, slots = batch.inputs["text"], batch.targets["slots"]
        assert (
            ids.shape == slots.shape == (len(part), longest)
            and slots.dtype == torch.int64
        )
        for i, utterance in enumerate(part):
            n = len(utterance.words)
            known = [
                w.lower() if w.lower() in corpus.vocabulary else UNKNOWN
                for w in utterance.words
            ]
            assert (
                decode(ids[i], corpus.vocabulary).split() == known
                and batch.lengths["text"][i] == n
            )
            assert [TAGS[tag] for tag in slots[i, :n]] == list(utterance.tags)
            assert (slots[i, n:] == -1).all() and (ids[i, n:] == 0).all()
            assert INTENTS[batch.targets["intent"][i]] == utterance.intent


def test_the_vocabulary_knows_training_words_only_and_none_that_comes_once(made_up):
    corpus = snips()
    counts = Counter(word.lower() for u in corpus.sentences[0] for word in u.words)
    assert set(corpus.vocabulary[2:]) == {
        word for word, count in counts.items() if count > 1
    }
    assert (corpus.splits.train.inputs["text"] == 1).any(), (
        "so that the unknown word is learned"
    )
    assert "test" not in corpus.vocabulary


def test_an_unknown_word_needs_an_id_of_its_own():
    known = (PADDING, "play", UNKNOWN)
    ids, lengths = encode(["play", ("play", "it"), ()], known, 3)
    assert ids.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]] and lengths.tolist() == [
        1,
        2,
        0,
    ]
    with pytest.raises(KeyError, match="it"):
        encode(["play it"], known[:2], 2)


def test_a_seed_gives_the_same_split_and_another_one_another(made_up):
    a, b, c = (snips(seed=seed).sentences for seed in (1, 1, 2))
    assert a == b and a[1] != c[1] and a[2] == c[2]


# The real set


@needs_the_real_set
def test_the_real_set_has_the_published_counts_and_those_of_its_card():
    corpus = snips()
    assert [len(part) for part in corpus.sentences] == [13_084, 700, 700]
    card = data_file("snips", "CARD.md").read_text(encoding="utf-8")
    for intent in INTENTS:
        counts = [sum(u.intent == intent for u in part) for part in corpus.sentences]
        assert f"| {intent} | {counts[0]:,} | {counts[1]} | {counts[2]} |" in card
    everywhere = {tag for u in everything(corpus) for tag in u.tags}
    assert everywhere < set(TAGS) and len(everywhere) == 72 and len(TAGS) == 79
    assert {tag[2:] for tag in everywhere if tag != "O"} == set(SLOTS)
    assert {len(tag) and tag[0] for tag in set(TAGS) - everywhere} == {"I"}
    lengths = [len(u.words) for u in everything(corpus)]
    assert (min(lengths), max(lengths)) == (2, 39)
    unknown = (
        corpus.splits.test.inputs["text"] == 1
    ).sum() / corpus.splits.test.lengths["text"].sum()
    assert round(100 * unknown.item()) == 7 and abs(len(corpus.vocabulary) - 4460) < 50
    outside = np.mean([tag == "O" for u in corpus.sentences[2] for tag in u.tags])
    assert f"{100 * outside:.1f} % of the words are outside" in card


@needs_the_real_set
def test_a_slot_begins_with_b_and_goes_on_with_i():
    for utterance in everything(snips()):
        assert len(utterance.words) == len(utterance.tags)
        for before, tag in zip(("O", *utterance.tags), utterance.tags, strict=False):
            assert tag[0] != "I" or before[2:] == tag[2:]


@needs_the_real_set
def test_one_real_file_is_not_utf8_and_comes_out_right():
    broken = []
    for path in SETS["snips"].files:
        try:
            (fetch("snips") / path).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            broken.append(path)
    assert broken == [f"{ROOT}/PlayMusic/train_PlayMusic_full.json"]
    words = Counter(
        word for u in everything(snips()) if u.intent == "PlayMusic" for word in u.words
    )
    assert words["🍕"] == 1 and words["Noctámbulo"] == 2 and words["Expresión"] == 1
    assert not [
        word
        for word in words
        if "Ã" in word or any("\ud800" <= c <= "\udfff" for c in word)
    ]


@needs_the_real_set
def test_how_many_real_test_sentences_are_in_the_training_set():
    train, valid, test = snips().sentences
    known = {tuple(w.lower() for w in u.words) for u in train + valid}
    count = sum(tuple(w.lower() for w in u.words) in known for u in test)
    assert f"{count} of the 700 test sentences" in data_file(
        "snips", "CARD.md"
    ).read_text(encoding="utf-8")


@needs_the_real_set
def test_the_cards_row_is_what_its_code_prints(capsys):
    card = data_file("snips", "CARD.md").read_text(encoding="utf-8")
    exec(card.split("```python")[1].split("```")[0], {})
    assert capsys.readouterr().out.strip() in card
