"""Exercises of the lesson "Three levels of fusion"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import function, lines

lines(
    "which-level",
    {
        "both features, end to end, are the input of one network": "feature",
        "a question scales the channels of a picture's features": "modality",
        "two networks vote, and the votes are averaged": "decision",
        "a gate that sees both features weighs one against the other": "modality",
        "projected features are added up before a common trunk": "feature",
        "the probabilities of two models are multiplied": "decision",
    },
    words=("feature", "modality", "decision"),
    mistakes={
        "Look again at “{line}”. What is combined there has been decided already.": (
            lambda line, given, right: right == "decision"
        ),
        "Look again at “{line}”. Does one modality act on another one there?": (
            lambda line, given, right: right == "modality"
        ),
        "Look again at “{line}”. Nobody has decided yet, and nobody acts on anybody "
        "before the common network.": lambda line, given, right: right == "feature",
    },
)


def _sum_of_means(s: Tensor, times: float) -> Tensor:
    """The means over all axes but one, added up, less the mean of everything."""
    axes = range(s.dim())
    means = (s.mean([k for k in axes if k != axis], keepdim=True) for axis in axes)
    return sum(means, -times * s.mean())


@function(
    "additive-part",
    inputs=lambda: [
        (2 + torch.randn(shape),) for shape in ((2, 3, 4), (5, 2, 2), (3, 1, 2))
    ],
    differs="f₁(a) is the mean of s over all b and c, up to a constant; so for b and "
    "for c.",
    mistakes={
        "The mean of everything is in each of the three means; it must come once.": (
            lambda s: _sum_of_means(s, 0)
        ),
        "You took the mean of everything away once. It comes three times in all.": (
            lambda s: _sum_of_means(s, 1)
        ),
        "Now the mean of everything is missing altogether.": (
            lambda s: _sum_of_means(s, 3)
        ),
        "That is the interaction, what no sum can say. Asked for is the rest.": (
            lambda s: s - additive(s)
        ),
        "A mean over one axis still depends on two modalities together.": (
            lambda s: sum(s.mean(k, keepdim=True) for k in range(3)) - 2 * s.mean()
        ),
    },
)
def additive(s: Tensor) -> Tensor:
    return _sum_of_means(s, 2)


def _tables() -> list[tuple[Tensor, int]]:
    """With rows, columns and a mean of their own."""
    return [
        (1 + torch.randn(a, b) + 2 * torch.randn(a, 1) + torch.randn(b), rank)
        for a, b, rank in (
            (4, 4, 1),
            (3, 6, 0),
            (5, 4, 2),
            (4, 4, 0),
            (3, 6, 1),
            (4, 3, 5),
        )
    ]


def _least(rest: Tensor, R: int) -> Tensor:
    return torch.linalg.svdvals(rest)[R:].square().sum() / rest.numel()


def _interaction(Q: Tensor) -> Tensor:
    return Q - _sum_of_means(Q, 1)


@function(
    "left-over",
    inputs=_tables,
    differs="For R = {R} and a table of shape {Q.shape} it should be {expected}, but "
    "yours is {yours}: the squared singular values from R + 1 on, of the table without "
    "its additive part, over the number of cells.",
    mistakes={
        "The sum f(a) + g(b) is free here: take it away first.": _least,
        "You took the mean away. The whole sum is free, not one number.": (
            lambda Q, R: _least(Q - Q.mean(), R)
        ),
        "You took f(a) away, but not g(b).": (
            lambda Q, R: _least(Q - Q.mean(1, keepdim=True), R)
        ),
        "You took g(b) away, but not f(a).": lambda Q, R: _least(Q - Q.mean(0), R),
        "The mean of everything is in the means of rows and of columns: you took it "
        "away twice.": lambda Q, R: _least(_interaction(Q) - Q.mean(), R),
        "The error is a mean over all cells: divide by their number.": (
            lambda Q, R: left_over(Q, R) * Q.numel()
        ),
        "Squared errors go with squared singular values.": lambda Q, R: (
            torch.linalg.svdvals(_interaction(Q))[R:].sum() / Q.numel()
        ),
        "That is what the products explain, not what they leave.": lambda Q, R: (
            left_over(Q, 0) - left_over(Q, R)
        ),
    },
)
def left_over(Q: Tensor, R: int) -> Tensor:
    return _least(_interaction(Q), R)


def _tables_of_three() -> list[tuple[Tensor]]:
    """Random probabilities, and those of XOR, AND and a copy, with zeros."""
    cases = []
    for shape in ((2, 3, 4), (3, 2, 2), (4, 1, 3)):
        p = torch.rand(shape).square()
        cases.append((p / p.sum(),))
    a, b = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])
    for y in (a ^ b, a & b):
        p = torch.zeros(2, 2, 2)
        p[a, b, y] = 0.25
        cases.append((p,))
    return cases


def _bits(q: Tensor) -> Tensor:
    seen = q > 0
    return (q[seen] * (q / (q.sum(1, keepdim=True) * q.sum(0)))[seen].log2()).sum()


def _careless(q: Tensor) -> Tensor:
    return (q * (q / (q.sum(1, keepdim=True) * q.sum(0))).log2()).sum()


def _of_sources(
    p: Tensor, information: Callable[[Tensor], Tensor] = _bits
) -> tuple[Tensor, ...]:
    """What both together know of y, what the first one does, and the second."""
    return tuple(information(q) for q in (p.flatten(0, 1), p.sum(1), p.sum(0)))


def _less_alone(both: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return both - first - second


@function(
    "co-information",
    inputs=_tables_of_three,
    differs="For a table of shape {p.shape} it should be {expected}, but yours is "
    "{yours}: I(y; x₁, x₂) − I(y; x₁) − I(y; x₂). The last axis is y.",
    mistakes={
        "With some tables yours is NaN: 0 · log 0 counts as zero, so leave out cells "
        "without probability.": lambda p: _less_alone(*_of_sources(p, _careless)),
        "That is redundancy minus synergy.": lambda p: -difference(p),
        "That is in nats. Bits have the logarithm to base two.": (
            lambda p: difference(p) * torch.tensor(2.0).log()
        ),
        "That is what both together know. What do they know alone?": (
            lambda p: _of_sources(p)[0]
        ),
        "And what the second one knows alone?": (
            lambda p: _of_sources(p)[0] - _of_sources(p)[1]
        ),
        "And what the first one knows alone?": (
            lambda p: _of_sources(p)[0] - _of_sources(p)[2]
        ),
    },
)
def difference(p: Tensor) -> Tensor:
    return _less_alone(*_of_sources(p))


def _normal(p: Tensor) -> Tensor:
    return p / p.sum(-1, keepdim=True)


@function(
    "bayes-of-slips",
    inputs=lambda: [
        (torch.randn(m, n, c).softmax(-1), torch.randn(c).softmax(-1))
        for m, n, c in ((2, 5, 3), (3, 4, 2), (1, 3, 4), (4, 1, 3), (2, 3, 3))
    ],
    differs="Multiply the slips, divide by prior^(M − 1), and make every row sum to "
    "one.",
    mistakes={
        "Proportional is not equal: over the classes, posteriors sum to one.": (
            lambda slips, prior: slips.prod(0) / prior ** (len(slips) - 1)
        ),
        "These are bare products; they do not sum to one, and the prior is in them M "
        "times.": lambda slips, prior: slips.prod(0),
        "That is the plain product: it counts the prior M times.": (
            lambda slips, prior: _normal(slips.prod(0))
        ),
        "That is the mean of the slips, the other rule.": (
            lambda slips, prior: slips.mean(0)
        ),
        "Divided by the prior once too often: it has to stay once.": (
            lambda slips, prior: _normal(slips.prod(0) / prior ** len(slips))
        ),
        "The prior is in the slips already: divide, do not multiply.": (
            lambda slips, prior: _normal(slips.prod(0) * prior)
        ),
        "For two modalities that is right. For M of them?": (
            lambda slips, prior: _normal(slips.prod(0) / prior)
        ),
    },
)
def bayes(slips: Tensor, prior: Tensor) -> Tensor:
    return _normal(slips.prod(0) / prior ** (len(slips) - 1))
