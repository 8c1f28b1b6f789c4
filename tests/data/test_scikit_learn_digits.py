"""scikit-learn's digits as the book takes them, and their card."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mtmm_lib.data import scikit_learn_digits
from mtmm_lib.data.files import data_file


def test_images_are_the_published_ones_divided_by_the_highest_level():
    digits, given = load_digits(), scikit_learn_digits()
    assert given["image"].shape == (1797, 1, 8, 8)
    assert (given["image"][:, 0] * 16 == digits.images).all()
    assert (given["digit"] == digits.target).all()
    ink = given["ink"]
    assert (ink.mean(), ink.std()) == pytest.approx((0, 1), abs=1e-5)
    whole = digits.images.mean((1, 2))
    assert np.corrcoef(ink, whole)[0, 1] == pytest.approx(1, abs=1e-6)


def test_nobody_changes_what_others_read():
    with pytest.raises(ValueError, match="read-only"):
        scikit_learn_digits()["image"][0] = 0


def test_the_card_counts_the_digits():
    card = data_file("scikit_learn_digits", "CARD.md").read_text(encoding="utf-8")
    counts = np.bincount(load_digits().target)
    assert "| images | " + " | ".join(map(str, [*counts, counts.sum()])) + " |" in card
