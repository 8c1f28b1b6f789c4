"""UD English EWT: a reader of CoNLL-U, splits by document, numbers that say what the
sentences say."""

import os

import numpy as np
import pytest

from mtmm_lib.data import ud_english_ewt
from mtmm_lib.data.files import data_file
from mtmm_lib.data.registry import fetch
from mtmm_lib.data.text import UNKNOWN, decode
from mtmm_lib.data.ud_english_ewt import (
    GENRES,
    RELATIONS,
    UPOS,
    ParsedSentence,
    read_conllu,
)

needs_the_real_set = pytest.mark.skipif(
    not os.environ.get("MTMM_DATA"),
    reason="MTMM_DATA names no folder with the real sets",
)


def line(number, word, upos="_", head="_", relation="_"):
    fields = (number, word, word.lower(), upos, "_", "_", head, relation, "_")
    return "\t".join([*map(str, fields), "SpaceAfter=No"])


def block(name, rows):
    return "\n".join(
        ["# newdoc id = x", f"# sent_id = {name}", "# text = a = b", *rows, "", ""]
    )


ROWS = [
    line(1, "Cats", "NOUN", 4, "nsubj"),
    line("2-3", "don't"),
    line(2, "do", "AUX", 4, "aux"),
    line(3, "n't", "PART", 4, "advmod"),
    line(4, "bark", "VERB", 0, "root"),
    line("4.1", "dogs"),
    line(5, "loudly", "ADV", 4, "obl:unmarked"),
]
SENTENCE = ParsedSentence(
    words=("Cats", "do", "n't", "bark", "loudly"),
    upos=("NOUN", "AUX", "PART", "VERB", "ADV"),
    heads=(4, 4, 4, 0, 4),
    relations=("nsubj", "aux", "advmod", "root", "obl:unmarked"),
    id="weblog-a-b-0001",
)


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
def test_multiword_tokens_and_empty_nodes_are_passed_over(tmp_path, end):
    path = tmp_path / "x.conllu"
    second = block("email-z-0001", [line(1, "Hi", "INTJ", 0, "root")])
    path.write_text(
        block("weblog-a-b-0001", ROWS) + second.rstrip("\n") + end, encoding="utf-8"
    )
    sentences = read_conllu(path)
    assert sentences == [
        SENTENCE,
        ParsedSentence(("Hi",), ("INTJ",), (0,), ("root",), "email-z-0001"),
    ]
    assert (sentences[0].document, sentences[0].genre) == ("weblog-a-b", "weblog")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1\tone\ttwo"], "x.conllu, line 4: expected ten columns, got 3"),
        (
            [line(1, "a", "X", 0, "root"), line(3, "b", "X", 1, "dep")],
            "line 5: expected word 2, got '3'",
        ),
        ([line(0, "a", "X", 0, "root")], "line 4: expected word 1, got '0'"),
    ],
)
def test_a_line_that_is_not_conllu_is_refused(tmp_path, rows, message):
    path = tmp_path / "x.conllu"
    path.write_text(block("a-0001", rows), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_conllu(path)


@pytest.fixture
def made_up(stand_in):
    def part(name, documents, sentences):
        texts = []
        for genre in GENRES:
            for d in range(documents):
                for s in range(sentences):
                    rows = [*ROWS, line(6, f"{name}{genre}{d}", "PROPN", 4, "vocative")]
                    texts.append(block(f"{genre}-{name}{d}-{s:04}", rows))
        return "".join(texts).encode()

    files = {
        "en_ewt-ud-dev.conllu": part("dev", 10, 3),
        "en_ewt-ud-test.conllu": part("test", 2, 1),
    }
    return stand_in("ud_english_ewt", files | {"LICENSE.txt": b"CC BY-SA"})


@pytest.mark.parametrize("seed", range(3))
def test_no_document_is_in_two_splits_and_no_genre_is_left_out(made_up, seed):
    train, valid, test = ud_english_ewt(seed=seed).sentences
    assert [len(part) for part in (train, valid, test)] == [120, 30, 10]
    documents = [{s.document for s in part} for part in (train, valid, test)]
    assert sum(map(len, documents)) == len(set.union(*documents))
    assert all({s.genre for s in part} == set(GENRES) for part in (train, valid, test))


def numbers_agree(corpus):
    for batch, part in zip(corpus.splits, corpus.sentences, strict=True):
        ids, targets = batch.inputs["text"], batch.targets
        for i, s in enumerate(part):
            n = len(s.words)
            known = [
                w.lower() if w.lower() in corpus.vocabulary else UNKNOWN
                for w in s.words
            ]
            assert (
                decode(ids[i], corpus.vocabulary).split() == known
                and batch.lengths["text"][i] == n
            )
            assert [UPOS[k] for k in targets["upos"][i, :n]] == list(s.upos)
            assert targets["head"][i, :n].tolist() == list(s.heads)
            assert [RELATIONS[k] for k in targets["relation"][i, :n]] == [
                r.split(":")[0] for r in s.relations
            ]
            assert all(
                (targets[task][i, n:] == -1).all()
                for task in ("upos", "head", "relation")
            )
            assert GENRES[targets["genre"][i]] == s.genre


def test_the_numbers_say_what_the_sentences_say(made_up):
    numbers_agree(ud_english_ewt(seed=1))


def test_a_seed_gives_the_same_split_and_another_one_another(made_up):
    a, b, c = (ud_english_ewt(seed=seed).sentences for seed in (1, 1, 2))
    assert a == b and a[1] != c[1] and a[2] == c[2]


# The real set


@needs_the_real_set
def test_the_real_set_has_the_counts_of_its_card():
    card = data_file("ud_english_ewt", "CARD.md").read_text(encoding="utf-8")
    folder = fetch("ud_english_ewt")
    parts = [
        read_conllu(folder / f"en_ewt-ud-{part}.conllu") for part in ("dev", "test")
    ]

    def counts(genre):
        for part in parts:
            mine = [s for s in part if genre in ("all", s.genre)]
            yield from (
                len({s.document for s in mine}),
                len(mine),
                sum(len(s.words) for s in mine),
            )

    for genre in (*GENRES, "all"):
        assert (
            f"| {genre} | " + " | ".join(f"{count:,}" for count in counts(genre)) + " |"
            in card
        )
    everything = parts[0] + parts[1]
    assert len({s.id for s in everything}) == len(everything)
    assert {tag for s in everything for tag in s.upos} == set(UPOS)
    relations = {name.partition(":")[0] for s in everything for name in s.relations}
    assert relations < set(RELATIONS) and (len(relations), len(RELATIONS)) == (36, 37)
    assert max(len(s.words) for s in everything) == 81
    text = "".join(
        (folder / f"en_ewt-ud-{part}.conllu").read_text(encoding="utf-8")
        for part in ("dev", "test")
    )
    documents = {
        row.split(" = ")[1]
        for row in text.splitlines()
        if row.startswith("# newdoc id")
    }
    assert documents == {s.document for s in everything}
    first = [row.split("\t")[0] for row in text.splitlines() if row and row[0] != "#"]
    assert (sum("-" in x for x in first), sum("." in x for x in first)) == (713, 6)
    known = {tuple(w.lower() for w in s.words) for s in parts[0]}
    again = sum(tuple(w.lower() for w in s.words) in known for s in parts[1])
    assert f"{again} test sentences" in card


@needs_the_real_set
def test_every_real_sentence_is_a_tree():
    for part in ud_english_ewt().sentences:
        for s in part:
            assert s.heads.count(0) == 1 and s.relations[s.heads.index(0)] == "root"
            for word in range(1, len(s.words) + 1):
                steps = 0
                while word:
                    word, steps = s.heads[word - 1], steps + 1
                    assert steps <= len(s.words), s.id


@needs_the_real_set
def test_real_numbers_say_what_the_sentences_say():
    corpus = ud_english_ewt(seed=2)
    numbers_agree(corpus)
    documents = [{s.document for s in part} for part in corpus.sentences]
    assert sum(map(len, documents)) == len(set.union(*documents)) == 634


@needs_the_real_set
def test_the_sizes_that_the_card_and_the_docstring_state():
    for seed in range(8):
        train, valid, test = ud_english_ewt(seed=seed).sentences
        assert (
            280 < len(valid) < 540
            and len(train) + len(valid) == 2001
            and len(test) == 2077
        )


@needs_the_real_set
def test_the_cards_row_is_what_its_code_prints(capsys):
    card = data_file("ud_english_ewt", "CARD.md").read_text(encoding="utf-8")
    exec(card.split("```python")[1].split("```")[0], {})
    printed = capsys.readouterr().out.strip()
    row = next(
        row for row in card.splitlines() if row.count("|") == 4 and row[2].isdigit()
    )
    np.testing.assert_allclose(
        *(np.array(r.strip("| ").split("|"), float) for r in (row, printed)), atol=0.11
    )
