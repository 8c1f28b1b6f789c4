"""Handwritten digits that come with scikit-learn, all of them and as they are: the
images of the paired sets.

Where they come from, their counts and their limits: `data/scikit_learn_digits/CARD.md`.
"""

from __future__ import annotations

from functools import cache

import numpy as np


@cache
def scikit_learn_digits() -> dict[str, np.ndarray]:
    """The images and what is known about them, in the order of scikit-learn.

    Returns:
        `image` float32 `[1797, 1, 8, 8]` in [0, 1], `digit` int64 `[1797]`, and `ink`
        float32 `[1797]`, the mean of the image, standardised. They cannot be written
        to, for all who ask share them.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    image = (digits.images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    ink = image.mean((1, 2, 3))
    arrays = {
        "image": image,
        "digit": digits.target.astype(np.int64),
        "ink": (ink - ink.mean()) / ink.std(),
    }
    for array in arrays.values():
        array.setflags(write=False)
    return arrays
