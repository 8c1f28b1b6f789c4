"""Checks of the chapter, Three levels of fusion."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import Hint, exercise, wrong_lines

WORDS = ("feature", "modality", "decision")
LEVELS = {
    "both features, end to end, are the input of one network": "feature",
    "a question scales the channels of a picture's features": "modality",
    "two networks vote, and the votes are averaged": "decision",
    "a gate that sees both features weighs one against the other": "modality",
    "projected features are added up before a common trunk": "feature",
    "the probabilities of two models are multiplied": "decision",
}


@exercise("which-level")
def _(answer: dict[str, str]) -> None:
    wrong = wrong_lines(answer, LEVELS, WORDS)
    if not wrong:
        return
    look = f"Look again at “{wrong[0]}”. "
    if LEVELS[wrong[0]] == "decision":
        raise Hint(look + "What is combined there has been decided already.")
    if LEVELS[wrong[0]] == "modality":
        raise Hint(look + "Does one modality act on another one there?")
    raise Hint(
        look
        + (
            "Nobody has decided yet, and nobody acts on anybody before the common "
            "network."
        )
    )


def _additive(s: Tensor) -> Tensor:
    axes = range(s.dim())
    means = (s.mean([k for k in axes if k != axis], keepdim=True) for axis in axes)
    return sum(means) - (s.dim() - 1) * s.mean()


@exercise("additive-part")
def _(additive) -> None:
    for shape in ((2, 3, 4), (5, 2, 2)):
        s = 2 + torch.randn(shape, dtype=torch.float64)
        got = torch.as_tensor(additive(s.clone()))
        if got.shape != s.shape:
            raise Hint(
                f"Expected a table [A, B, C] = {list(s.shape)}, got {list(got.shape)}."
            )
        right, total = _additive(s), s.mean()
        pairs = sum(s.mean(axis, keepdim=True) for axis in range(3))
        for mistaken, hint in (
            (
                right + 2 * total,
                "The mean of everything is in each of the three means; it must come "
                "once.",
            ),
            (
                right + total,
                "You took the mean of everything away once. It comes three times in "
                "all.",
            ),
            (
                right + 2 * total - 3 * total,
                "Now the mean of everything is missing altogether.",
            ),
            (
                s - right,
                "That is the interaction, what no sum can say. Asked for is the rest.",
            ),
            (
                pairs - 2 * total,
                "A mean over one axis still depends on two modalities together.",
            ),
        ):
            if torch.allclose(got, mistaken):
                raise Hint(hint)
        if not torch.allclose(got, right):
            raise Hint(
                "f₁(a) is the mean of s over all b and c, up to a constant; so for b "
                "and for c."
            )


@exercise("left-over")
def _(left_over) -> None:
    for (rows, columns), rank in itertools.product(((4, 4), (3, 6)), (0, 1, 2, 5)):
        q = (
            1
            + torch.randn(rows, columns, dtype=torch.float64)
            + 2 * torch.randn(rows, 1).double()
        )
        s = torch.linalg.svdvals(q - _additive(q))  # descending
        right, got = (
            float(s[rank:].square().sum()) / q.numel(),
            float(left_over(q.clone(), rank)),
        )
        if abs(got - right) < 1e-9:
            continue
        bare, mean = torch.linalg.svdvals(q), torch.linalg.svdvals(q - q.mean())
        half = torch.linalg.svdvals(q - q.mean(1, keepdim=True))
        for value, hint in (
            (
                bare[rank:].square().sum() / q.numel(),
                "The sum f(a) + g(b) is free here: take it away first.",
            ),
            (
                mean[rank:].square().sum() / q.numel(),
                "You took the mean away. The whole sum is free, not one number.",
            ),
            (
                half[rank:].square().sum() / q.numel(),
                "You took f(a) away, but not g(b).",
            ),
            (
                s[rank:].square().sum(),
                "The error is a mean over all cells: divide by their number.",
            ),
            (
                s[rank:].sum() / q.numel(),
                "Squared errors go with squared singular values.",
            ),
            (
                s[:rank].square().sum() / q.numel(),
                "That is what the products explain, not what they leave.",
            ),
        ):
            if abs(got - float(value)) < 1e-9:
                raise Hint(hint)
        raise Hint(
            f"For a table of {rows} × {columns} and R = {rank} this gives {got:.4g}, "
            f"expected {right:.4g}: "
            "the squared singular values from R + 1 on, of the table without its "
            "additive part."
        )


def _information(p: Tensor) -> Tensor:
    return torch.special.xlogy(
        p, p / (p.sum(1, keepdim=True) * p.sum(0, keepdim=True))
    ).nansum()


@exercise("co-information")
def _(difference) -> None:
    bit = torch.log(torch.tensor(2.0, dtype=torch.float64))
    xor = torch.zeros(2, 2, 2, dtype=torch.float64)
    for a, b in itertools.product((0, 1), repeat=2):
        xor[a, b, a ^ b] = 0.25
    drawn = [
        torch.rand(shape, dtype=torch.float64).square()
        for shape in ((2, 3, 4), (3, 2, 2))
    ]
    for p in (*(q / q.sum() for q in drawn), xor):
        both, first, second = (
            _information(q) / bit for q in (p.flatten(0, 1), p.sum(1), p.sum(0))
        )
        right, got = float(both - first - second), float(difference(p.clone()))
        if got != got:
            raise Hint(
                "That is NaN: 0 · log 0 counts as zero, so leave out cells without "
                "probability."
            )
        if abs(got - right) < 1e-9:
            continue
        for value, hint in (
            (-right, "That is redundancy minus synergy."),
            (
                right * float(bit),
                "That is in nats. Bits have the logarithm to base two.",
            ),
            (float(both), "That is what both together know. What do they know alone?"),
            (float(both - first), "And what the second one knows alone?"),
        ):
            if abs(got - value) < 1e-9:
                raise Hint(hint)
        raise Hint(
            f"For a table of shape {list(p.shape)} this gives {got:.4g}, expected "
            f"{right:.4g}: "
            "I(y; x₁, x₂) − I(y; x₁) − I(y; x₂). The last axis is y."
        )


@exercise("bayes-of-slips")
def _(bayes) -> None:
    for modalities, samples, classes in ((2, 5, 3), (3, 4, 2), (1, 3, 4)):
        slips = torch.randn(modalities, samples, classes, dtype=torch.float64).softmax(
            -1
        )
        prior = torch.randn(classes, dtype=torch.float64).softmax(-1)
        got = torch.as_tensor(bayes(slips.clone(), prior.clone()))
        if got.shape != slips.shape[1:]:
            raise Hint(
                f"Expected posteriors [B, C] = {list(slips.shape[1:])}, got "
                f"{list(got.shape)}."
            )
        plain = slips.prod(0)
        right = plain / prior ** (modalities - 1)
        for mistaken, hint in (
            (
                right,
                "Proportional is not equal: over the classes, posteriors sum to one.",
            ),
            (
                plain,
                "These are bare products; they do not sum to one, and the prior is "
                "in them M times.",
            ),
            (
                plain / plain.sum(-1, keepdim=True),
                "That is the plain product: it counts the prior M times.",
            ),
            (slips.mean(0), "That is the mean of the slips, the other rule."),
            (
                _normal(plain / prior**modalities),
                "Divided by the prior once too often: it has to stay once.",
            ),
            (
                _normal(plain * prior),
                "The prior is in the slips already: divide, do not multiply.",
            ),
            (
                _normal(plain / prior),
                "For two modalities that is right. For M of them?",
            ),
        ):
            if torch.allclose(got, mistaken) and not torch.allclose(
                mistaken, _normal(right)
            ):
                raise Hint(hint)
        if not torch.allclose(got, _normal(right)):
            raise Hint(
                "Multiply the slips, divide by prior^(M − 1), and make every row sum "
                "to one."
            )


def _normal(p: Tensor) -> Tensor:
    return p / p.sum(-1, keepdim=True)
