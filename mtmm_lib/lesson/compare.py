"""Whether an answer's value is the expected one, whatever its clothing: float32 or
float64, a tensor, an array, a list or plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

VALUE = "With {arguments} it should be {expected}, but yours is {yours}."
ENTRY = (
    "With {arguments}, entry {place} of the result should be {expected}, but yours is "
    "{yours}."
)
NUMBER = "One number was expected; your result has the shape {yours}."
SHAPE = "A result of shape {expected} was expected; yours has the shape {yours}."
NO_ARRAY = "A result of shape {expected} was expected; yours is one number."
LENGTH = "{expected} values were expected; your result has {yours}."
KEYS = "The keys {expected} were expected; your result has {yours}."
NO_DICT = "A dictionary of {expected} was expected; your result is {yours}."
KIND = "Your result is {yours}, which cannot be compared with what was expected."


@dataclass(frozen=True)
class Difference:
    """The first place where two values differ, and what stands there: a template (one
    of the above) and what belongs into it."""

    template: str
    yours: Any
    expected: Any = None
    place: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Raised:
    """The outcome of a call that raised an exception."""

    error: Exception


def difference(
    yours: Any, expected: Any, tolerance: float = 1e-4, place: tuple[Any, ...] = ()
) -> Difference | None:
    """Where a value differs from what was expected; None where it is the same.

    Args:
        yours: any value. Numbers are compared as numbers, in double precision.
        expected: a number, a tensor, a text, or a list, tuple or dict of such.
        tolerance: for floats, relative to the largest absolute value of the number,
            tensor or list of numbers, or to 0.1 where that is less. Integers and bools
            have to be exact.
        place: where the two were found.
    """
    if isinstance(expected, Raised):
        same = isinstance(yours, Raised) and type(yours.error) is type(expected.error)
        return None if same else Difference(KIND, yours, expected, place)
    if isinstance(expected, Mapping):
        if not isinstance(yours, Mapping):
            return Difference(NO_DICT, yours, list(expected), place)
        if set(yours) != set(expected):
            return Difference(KEYS, list(yours), list(expected), place)
        pairs = [(key, yours[key], expected[key]) for key in expected]
    elif isinstance(expected, tuple) or (wanted := _numbers(expected)) is None:
        if not isinstance(expected, (list, tuple)):
            same = type(yours) is type(expected) and yours == expected
            return None if same else Difference(VALUE, yours, expected, place)
        if yours is None or isinstance(yours, (Raised, str, Mapping)):
            return Difference(KIND, yours, expected, place)
        items = _items(yours)
        if len(items) != len(expected):
            return Difference(LENGTH, len(items), len(expected), place)
        pairs = [*zip(range(len(items)), items, expected, strict=True)]
    else:
        return _numeric(yours, wanted, tolerance, place)
    found = (difference(a, b, tolerance, (*place, key)) for key, a, b in pairs)
    return next(filter(None, found), None)


def _items(value: Any) -> list[Any]:
    try:
        return list(value)
    except TypeError:  # a single number
        return [value]


def _numeric(
    yours: Any, expected: Tensor, tolerance: float, place: tuple[Any, ...]
) -> Difference | None:
    got = _numbers(yours)
    if got is None:
        return Difference(KIND, yours, expected, place)
    if got.numel() == expected.numel() == 1 and not expected.shape:
        got = got.reshape(())
    if got.shape != expected.shape:
        template = NUMBER if not expected.shape else SHAPE if got.shape else NO_ARRAY
        return Difference(template, list(got.shape), list(expected.shape), place)
    if not expected.numel():
        return None
    exact = not expected.is_floating_point()
    got, expected = got.double(), expected.double()
    size = expected.abs().nan_to_num(0, 0, 0).max().item()
    limit = 1e-3 if exact else tolerance * max(size, 0.1)
    alike = (got == expected) | (got.isnan() & expected.isnan())
    alike |= (got - expected).abs() <= limit
    if alike.all():
        return None
    at = tuple((~alike).nonzero()[0].tolist())
    yours, wanted = got[at].item(), expected[at].item()
    return Difference(ENTRY if place + at else VALUE, yours, wanted, place + at)


def _numbers(value: Any) -> Tensor | None:
    """A number, or numbers in an array or in lists, as a tensor; None if it is
    something else."""
    try:
        if isinstance(value, Tensor):
            return value.detach().cpu()
        if isinstance(value, (list, tuple)) and value:
            return torch.stack([torch.as_tensor(_numbers(each)) for each in value])
        return None if value is None else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return None
