"""Universal Dependencies, English Web Treebank: parts of speech and the tree of every
sentence.

Where it comes from, its counts and its limits: `data/ud_english_ewt/CARD.md`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtmm_lib.data.registry import fetch
from mtmm_lib.data.text import PADDING, Corpus, corpus, encode

#: Universal parts of speech, in the order of the class numbers of the target `upos`.
UPOS = tuple(
    """
    ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X
    """.split()
)
#: Universal relations without their subtypes, in the order of the class numbers of the
#: target `relation`.
RELATIONS = tuple(
    """
    acl advcl advmod amod appos aux case cc ccomp clf compound conj cop csubj dep det
    discourse dislocated expl fixed flat goeswith iobj list mark nmod nsubj nummod obj
    obl orphan parataxis punct reparandum root vocative xcomp
    """.split()
)
#: Where the texts come from, in the order of the class numbers of the target `genre`.
GENRES = ("answers", "email", "newsgroup", "reviews", "weblog")
#: The share of the documents that become validation data.
VALID = 0.2


class ParsedSentence(NamedTuple):
    """A sentence and its tree.

    Args:
        words: the syntactic words: "didn't" is two of them, "did" and "n't".
        upos: the part of speech of each word.
        heads: the number, from 1 on, of the word that each word depends on; 0 for the
            root.
        relations: how each word depends on its head, with subtype, as in "nmod:poss".
        id: the sentence's name. Before its last hyphen stands the document's, before
            the first the genre.
    """

    words: tuple[str, ...]
    upos: tuple[str, ...]
    heads: tuple[int, ...]
    relations: tuple[str, ...]
    id: str

    @property
    def document(self) -> str:
        """The name of the document that the sentence is from."""
        return self.id.rpartition("-")[0]

    @property
    def genre(self) -> str:
        """Where the document was found, one of `GENRES`."""
        return self.id.partition("-")[0]


def read_conllu(path: Path) -> list[ParsedSentence]:
    """The sentences of a file in the format CoNLL-U.

    Lines of multiword tokens (numbered 3-4: the spelling of what the words 3 and 4 make
    up) and of empty nodes (3.1: words that were left unsaid, for the enhanced trees)
    are passed over, since neither is part of the basic tree.

    Raises:
        ValueError: for a line that has not ten columns, or whose word does not carry
            the next number.
    """
    sentences: list[ParsedSentence] = []
    rows: list[list[str]] = []
    name = ""
    lines = path.read_text(encoding="utf-8").split("\n")
    for at, line in enumerate((*lines, ""), 1):
        if line.startswith("#"):
            key, _, value = line[1:].partition("=")
            name = value.strip() if key.strip() == "sent_id" else name
        elif line:
            columns = line.split("\t")
            if len(columns) != 10:
                raise ValueError(
                    f"{path.name}, line {at}: expected ten columns, got {len(columns)}"
                )
            if "-" in columns[0] or "." in columns[0]:
                continue
            if columns[0] != str(len(rows) + 1):
                raise ValueError(
                    f"{path.name}, line {at}: expected word {len(rows) + 1}, got "
                    f"{columns[0]!r}"
                )
            rows.append(columns)
        elif rows:
            words, upos, heads, relations = zip(
                *((r[1], r[3], int(r[6]), r[7]) for r in rows), strict=True
            )
            sentences.append(ParsedSentence(words, upos, heads, relations, name))
            rows, name = [], ""
    return sentences


@cache
def _source(folder: Path) -> tuple[list[ParsedSentence], list[ParsedSentence]]:
    """The published sentences for development and for the test."""
    dev, test = (
        read_conllu(folder / f"en_ewt-ud-{part}.conllu") for part in ("dev", "test")
    )
    return dev, test


def _held_out(sentences: list[ParsedSentence], seed: int) -> set[str]:
    """Documents for validation: a share of each genre's, so that no genre is left
    out."""
    rng = np.random.default_rng(seed)
    chosen: set[str] = set()
    for genre in GENRES:
        documents = list(
            dict.fromkeys(s.document for s in sentences if s.genre == genre)
        )
        chosen |= {
            documents[i]
            for i in rng.permutation(len(documents))[: round(VALID * len(documents))]
        }
    return chosen


def _targets(sentences: list[ParsedSentence], size: int) -> dict[str, np.ndarray]:
    upos, _ = encode([s.upos for s in sentences], (PADDING, *UPOS), size)
    relation, _ = encode(
        [[name.partition(":")[0] for name in s.relations] for s in sentences],
        (PADDING, *RELATIONS),
        size,
    )
    head = np.full((len(sentences), size), -1)
    for row, sentence in zip(head, sentences, strict=True):
        row[: len(sentence.heads)] = sentence.heads
    genre = np.array([GENRES.index(sentence.genre) for sentence in sentences])
    return {"upos": upos - 1, "head": head, "relation": relation - 1, "genre": genre}


def ud_english_ewt(*, seed: int = 0) -> Corpus[ParsedSentence]:
    r"""Sentences with parts of speech and trees, from five genres of the web: about
    1,600 / 400 / 2,077.

    The large training file is left out. Its place take four fifths of the published
    development documents; the other fifth is for validation, and no document is in
    both. The published test data stay what they are.

    Args:
        seed: a number ≥ 0; redraws which documents are for validation.

    Returns:
        A corpus (see `text.Corpus`) whose sentences are of type `ParsedSentence`. The
        targets are all int64. For each word, and −1 behind the last: `upos` `[B, L]`,
        numbers into `UPOS`; `head` `[B, L]`, the number from 1 on of the word that it
        depends on, 0 for the root; `relation` `[B, L]`, numbers into `RELATIONS` (no
        subtypes). For each sentence: `genre` `[B]`, a number into `GENRES`.

    Raises:
        DataError: when the files cannot be had (see `registry.fetch`).
    """
    dev, test = _source(fetch("ud_english_ewt"))
    held_out = _held_out(dev, seed)
    train, valid = (
        [s for s in dev if (s.document in held_out) == wanted]
        for wanted in (False, True)
    )
    return corpus(train, valid, test, _targets)
