"""Seeds, start and footer."""

import random

import numpy as np
import pytest
import torch

from mtmm_lib.lesson import book, footer, seed, seeds, start


def test_seeds_of_two_books_never_meet(monkeypatch) -> None:
    used = []
    for number in range(20):
        monkeypatch.setenv("MTMM_SEED", str(number))
        used += seeds(1000)
    assert len(set(used)) == len(used) == 20_000


def test_seeds_are_the_first_ones_by_default(monkeypatch) -> None:
    monkeypatch.delenv("MTMM_SEED", raising=False)
    assert seeds(3) == [seed(0), seed(1), seed(2)] == [0, 1, 2]
    assert seeds(2, first=7) == [7, 8]


def test_any_whole_number_gives_seeds_of_its_own(monkeypatch) -> None:
    """Dates, times in nanoseconds and longer ones, too, for everything that a lesson
    seeds."""
    numbers = [0, 1, 4_294_967, 4_294_968, 20260101, 20260101123000, 2**52 - 1, 2**52]
    numbers += [2**52 + 1, 2**53, 2**64, 2**64 + 1, 10**40, 10**40 + 1]
    used, drawn = [], []
    for number in numbers:
        monkeypatch.setenv("MTMM_SEED", str(number))
        used += seeds(1000)
        start("everything-is-a-mapping")
        drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))
        torch.Generator().manual_seed(seed(999))
        np.random.default_rng([seed(999), 1])
    assert len(set(used)) == len(used)
    assert all(len(set(values)) == len(numbers) for values in zip(*drawn, strict=True))
    assert used[:2000] == list(range(2000)) and used[4000] == 20260101000


def test_an_empty_book_seed_is_none(monkeypatch) -> None:
    monkeypatch.setenv("MTMM_SEED", "")
    assert seeds(2) == [0, 1]


@pytest.mark.parametrize("value", ["-1", "1.5", "one"])
def test_a_wrong_book_seed_is_refused(monkeypatch, value: str) -> None:
    monkeypatch.setenv("MTMM_SEED", value)
    with pytest.raises(ValueError, match="MTMM_SEED"):
        seed()


@pytest.mark.parametrize("k", [-1, 1000])
def test_a_seed_of_another_book_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="0 to 999"):
        seed(k)


@pytest.mark.parametrize(
    "draw", [random.random, np.random.rand, lambda: torch.rand(()).item()]
)
def test_start_seeds_everything(monkeypatch, draw) -> None:
    drawn = []
    for number in ("1", "1", "2"):
        monkeypatch.setenv("MTMM_SEED", number)
        start("everything-is-a-mapping")
        drawn.append(draw())
    assert drawn[0] == drawn[1] != drawn[2]


def test_start_takes_one_thread_unless_told_otherwise(monkeypatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        start("everything-is-a-mapping")
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "")
        start("everything-is-a-mapping")
        assert torch.get_num_threads() == 1
        torch.set_num_threads(2)
        monkeypatch.delenv("OMP_NUM_THREADS")
        start("everything-is-a-mapping")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_start_says_the_picture_in_words_where_there_is_no_notebook(capsys) -> None:
    start("three-levels-of-fusion")
    assert capsys.readouterr().out.strip().endswith("Highlighted: fusion.")
    for chapter in ("another", "01", ""):
        with pytest.raises(ValueError, match="the chapters are warm-up"):
            start(chapter)
    numbers = [lesson.number for lesson in book.lessons().values()]
    assert numbers == [f"{place:02}" for place in range(len(numbers))]


def test_footer_says_what_a_reader_needs_to_repeat_the_lesson(
    capsys, monkeypatch
) -> None:
    monkeypatch.setenv("MTMM_SEED", "4")
    footer()
    text = capsys.readouterr().out
    for part in (
        f"torch {torch.__version__}",
        "mtmm_lib ",
        "Python 3.",
        " s ·",
        "MTMM_SEED 4",
        "thread",
    ):
        assert part in text
