"""SNIPS: what people say to a voice assistant, what they want (the intent), with which
details (the slots).

"play" "Regulate" "by" "Warren" "G" has the intent `PlayMusic` and the tags O, B-track,
O, B-artist, I-artist. Where the set comes from, its counts and its limits:
`data/snips/CARD.md`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtmm_lib.data.registry import fetch
from mtmm_lib.data.text import PADDING, Corpus, corpus, encode

#: In the order of the class numbers of the target `intent`.
INTENTS = (
    "AddToPlaylist",
    "BookRestaurant",
    "GetWeather",
    "PlayMusic",
    "RateBook",
    "SearchCreativeWork",
    "SearchScreeningEvent",
)
SLOTS = tuple(
    """
    album artist best_rating city condition_description condition_temperature country
    cuisine current_location entity_name facility genre geographic_poi location_name
    movie_name movie_type music_item object_location_type object_name
    object_part_of_series_type object_select object_type party_size_description
    party_size_number playlist playlist_owner poi rating_unit rating_value
    restaurant_name restaurant_type served_dish service sort spatial_relation state
    timeRange track year
    """.split()
)
#: O: outside of all slots; B: a slot begins; I: it goes on. In the order of the class
#: numbers of `slots`.
TAGS = ("O", *(f"{place}-{slot}" for slot in SLOTS for place in "BI"))
#: How many sentences of each intent become validation data.
VALID = 100

_WORD = re.compile(r"\w+|[^\w\s]")


class Utterance(NamedTuple):
    """What somebody said: its words, a tag for each of them, and the intent."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    intent: str


def _decode(content: bytes) -> str:
    # One file is not UTF-8, for one character: a slice of pizza is written as two
    # surrogates of three bytes each (CESU-8). Everything else in it is UTF-8, so that
    # reading it as Latin-1 would spoil the accents.
    text = content.decode("utf-8", "surrogatepass")
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


def _read(path: Path) -> list[Utterance]:
    """The sentences of one file. They come in pieces, and a slot is a piece: no word
    crosses its border."""
    [(intent, items)] = json.loads(_decode(path.read_bytes())).items()
    utterances = []
    for item in items:
        words, tags = [], []
        for piece in item["data"]:
            found = _WORD.findall(piece["text"])
            words += found
            slot = piece.get("entity")
            tags += [
                f"{'I' if i else 'B'}-{slot}" if slot else "O"
                for i in range(len(found))
            ]
        utterances.append(Utterance(tuple(words), tuple(tags), intent))
    return utterances


@cache
def _source(folder: Path) -> tuple[list[Utterance], list[Utterance]]:
    """The published training and validation sentences."""
    root = folder / "2017-06-custom-intent-engines"
    names = ("train_{}_full.json", "validate_{}.json")
    train, test = (
        [u for i in INTENTS for u in _read(root / i / name.format(i))] for name in names
    )
    return train, test


def _targets(utterances: list[Utterance], size: int) -> dict[str, np.ndarray]:
    tags, _ = encode(
        [utterance.tags for utterance in utterances], (PADDING, *TAGS), size
    )
    intents = [INTENTS.index(utterance.intent) for utterance in utterances]
    return {"intent": np.array(intents), "slots": tags - 1}


def snips(*, seed: int = 0) -> Corpus[Utterance]:
    r"""Sentences with intent and slots: 13,084 / 700 / 700.

    The published validation sentences, 100 of each intent, are the test data. 100
    training sentences of each intent become validation data: only sentences that occur
    once, so that none is in both.

    Args:
        seed: a number ≥ 0; redraws which training sentences become validation data.

    Returns:
        A corpus (see `text.Corpus`) whose sentences are of type `Utterance`. The
        targets are `intent` int64 `[B]`, a number into `INTENTS`, and `slots` int64
        `[B, L]`, for each word a number into `TAGS`, −1 behind the last word.

    Raises:
        DataError: when the files cannot be had (see `registry.fetch`).
    """
    train, test = _source(fetch("snips"))
    lower = [" ".join(utterance.words).lower() for utterance in train]
    times = Counter(lower + [" ".join(utterance.words).lower() for utterance in test])
    order = np.random.default_rng(seed).permutation(len(train))
    taken: Counter[str] = Counter()
    parts: tuple[list[Utterance], list[Utterance]] = ([], [])
    for i in order:
        intent = train[i].intent
        chosen = times[lower[i]] == 1 and taken[intent] < VALID
        taken[intent] += chosen
        parts[chosen].append(train[i])
    return corpus(*parts, test, _targets)
