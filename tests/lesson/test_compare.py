"""What counts as the same value, and how values and texts are written."""

from math import inf, nan

import numpy as np
import pytest
import torch

from mtmm_lib.lesson.compare import (
    ENTRY,
    KEYS,
    KIND,
    LENGTH,
    NO_ARRAY,
    NO_DICT,
    NUMBER,
    SHAPE,
    VALUE,
    Raised,
    difference,
)
from mtmm_lib.lesson.text import fill, show, show_apart

ROW = torch.tensor([1.0, -2.0, 1e-3])


@pytest.mark.parametrize(
    ("yours", "expected"),
    [
        (np.float32(1 / 3), 1 / 3),
        (torch.tensor([[1 / 3]]), 1 / 3),
        (3.0, 3),
        (True, torch.tensor(True)),
        ([1.0, torch.tensor(-2.0), np.float64(0.001)], ROW),
        (ROW.double().numpy(), ROW),
        (ROW + torch.tensor([0, 0, 1e-4]), ROW),  # small beside the largest
        ((1, [2.0, 3]), [1, torch.tensor([2.0, 3.0])]),
        (map(float, (1, 2)), (1.0, 2.0)),
        ({"b": 2, "a": [1.0]}, {"a": torch.ones(1), "b": 2.0}),
        ([nan, inf, -inf], torch.tensor([nan, inf, -inf])),
        (1e-6, 0.0),
        (torch.zeros(0, 3), torch.zeros(0, 3)),
        ("a", "a"),
        (None, None),
        (Raised(KeyError("a")), Raised(KeyError("b"))),
    ],
)
def test_the_same(yours, expected) -> None:
    assert difference(yours, expected) is None


@pytest.mark.parametrize(
    ("yours", "expected", "template", "place"),
    [
        (0.3334, 1 / 3, VALUE, ()),
        (10_001, 10_000, VALUE, ()),  # whole numbers are exact
        (2.99, 3, VALUE, ()),
        (nan, 1.0, VALUE, ()),
        (inf, -inf, VALUE, ()),
        (ROW, 1.0, NUMBER, ()),
        (ROW[:2], ROW, SHAPE, ()),
        (ROW[None], ROW, SHAPE, ()),
        (ROW * torch.tensor([1, -1, 1]), ROW, ENTRY, (1,)),
        (ROW > 0, ROW > 1, ENTRY, (0,)),
        ((1.0, 2.0, 3.0), (1.0, 2.0), LENGTH, ()),
        (1.0, (1.0, 2.0), LENGTH, ()),
        ((1.0, ROW), (1.0, -ROW), ENTRY, (1, 0)),
        ({"a": 1}, {"b": 1}, KEYS, ()),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ENTRY, ("a", "b")),
        ([1.0], {"a": 1.0}, NO_DICT, ()),
        (1.0, ROW, NO_ARRAY, ()),
        ("1", 1.0, KIND, ()),
        (None, 1.0, KIND, ()),
        ({"a": 1.0}, (1.0,), KIND, ()),
        ("b", "a", VALUE, ()),
        (Raised(ValueError()), Raised(KeyError()), KIND, ()),
        (1.0, Raised(KeyError()), KIND, ()),
    ],
)
def test_different(yours, expected, template, place) -> None:
    found = difference(yours, expected)
    assert found is not None and (found.template, found.place) == (template, place)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1 / 3, "0.3333"),
        (torch.tensor([1.0, 2.5]), "[1, 2.5]"),
        (np.zeros((3, 5)), "tensor[3, 5]"),
        ({"a": (1, 2.0)}, "{'a': (1, 2)}"),
        (list(range(20)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …]"),
        (test_the_same, "test_the_same"),
        ("a", "a"),
        (None, "None"),
    ],
)
def test_values_in_few_characters(value, text: str) -> None:
    assert show(value) == text


def test_two_values_are_told_apart() -> None:
    assert show_apart(0.46631, 0.46632) == ("0.46631", "0.46632")
    assert show_apart(1.0, 1.0) == ("1", "1")


def test_fields_are_filled_in() -> None:
    text = "{name!r} has {x.shape}, {share:.0%} and {share}"
    filled = fill(text, {"name": "a", "x": ROW, "share": 2 / 3})
    assert filled == "'a' has [3], 67% and 0.6667"
    assert fill("{as it is}", {}) == "{as it is}"
