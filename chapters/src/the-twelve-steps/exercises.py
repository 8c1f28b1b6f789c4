"""Exercises of the lesson "The twelve steps"."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from math import comb
from statistics import mean

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import Hint, exercise, function, lines, real, whole

lines(
    "which-part",
    {
        "the mean and deviation by which inputs are standardised": "train",
        "the bounds between brisk, middling and slow": "train",
        "the epoch at which to stop": "valid",
        "gates or a plain sum": "valid",
        "the weight of the ink's loss": "valid",
        "the accuracy that goes into the report": "test",
    },
    words=("train", "valid", "test"),
    mistakes={
        "“{line}”: what the test part helped to decide, it cannot judge any more.": (
            lambda line, given, right: given == "test"
        ),
        "“{line}”: the {given} part has been used already, to learn from or to choose "
        "by, and would flatter.": lambda line, given, right: right == "test",
        "“{line}”: it is computed, like a parameter. From which part are those "
        "computed?": lambda line, given, right: right == "train",
        "“{line}”: on the samples it learned from, a model looks better the longer it "
        "trains, and the larger it is.": lambda line, given, right: right == "valid",
    },
)


lines(
    "what-to-save",
    {
        "the parameters": True,
        "the optimiser's running means of the gradients": True,
        "how many epochs are done, which orders the samples": True,
        "the best parameters so far and their validation loss": True,
        "the gradients of the last step": False,
        "the predictions for the validation data": False,
    },
    words=(True, False),
    mistakes={
        "Without “{line}” the run goes on, but it goes elsewhere: at the next step, or "
        "at the end, something different happens.": (
            lambda line, given, right: right is True
        ),
        "“{line}”: will it be used again, or computed anew before anybody needs it?": (
            lambda line, given, right: right is False
        ),
    },
)


NO_MASK = (
    "Return a bool tensor of the same shape as `groups`, true where a sample is held "
    "out."
)
CUT = "Group {group} is on both sides: hold out whole groups."
COUNT = (
    "Groups to be held out: {count}; yours holds {found} out. (Their numbers may have "
    "gaps.)"
)
NOT_AGAIN = (
    "The same seed has to give the same split: draw from a generator that is seeded "
    "with it."
)
ALWAYS = (
    "Every seed gives the same split: the seed has to decide which groups are held out."
)


def _order(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _picked(groups: Tensor, order: Tensor, count: int) -> Tensor:
    return torch.isin(groups, groups.unique()[order[:count]])


@exercise(
    "split-by-group",
    mistakes={
        NO_MASK: lambda groups, count, seed: groups.unique()[:count],
        CUT: lambda groups, count, seed: _order(len(groups), seed) < 20,
        COUNT: (
            lambda groups, count, seed: groups == groups[seed],
            lambda groups, count, seed: _picked(
                groups, _order(len(groups.unique()), seed), 2
            ),
            lambda groups, count, seed: torch.isin(
                groups, _order(int(groups.max()) + 1, seed)[:count]
            ),
        ),
        NOT_AGAIN: lambda groups, count, seed: _picked(
            groups, torch.randperm(len(groups.unique())), count
        ),
        ALWAYS: lambda groups, count, seed: _picked(groups, torch.arange(9), count),
    },
)
def _(split: Callable[[Tensor, int, int], Tensor]) -> None:
    """The groups held out are random, so their properties are looked at."""
    for count in (1, 2, 4):
        names = torch.randperm(99)[: whole(6, 12)] - 40  # any numbers, with gaps
        groups = names[torch.randint(len(names), (whole(60, 90),))]
        masks = []
        for seed in [*range(8)] * 2:
            mask = torch.as_tensor(split(groups.clone(), count, seed))
            if mask.shape != groups.shape or mask.dtype != torch.bool:
                raise Hint(NO_MASK)
            inside, outside = (set(groups[m].tolist()) for m in (mask, ~mask))
            if inside & outside:
                raise Hint(CUT, group=min(inside & outside))
            if len(inside) != count:
                raise Hint(COUNT, count=count, found=len(inside))
            masks.append(tuple(mask.tolist()))
        if masks[:8] != masks[8:]:
            raise Hint(NOT_AGAIN)
        if len({*masks}) == 1:
            raise Hint(ALWAYS)


@function(
    "gate-gradient",
    inputs=lambda: [
        (torch.randn(shape), torch.rand(shape), torch.randn(shape), torch.randn(shape))
        for shape in ((5, 3), (2, 4), (6,))
    ],
    mistakes={
        "The gradients for a and b are exchanged: a is what the gate lets through.": (
            lambda dz, gate, a, b: (
                dz * (a - b) * gate * (1 - gate),
                dz * (1 - gate),
                dz * gate,
            )
        ),
        "The gradients are those for a, b and s. First asked for is that for s.": (
            lambda dz, gate, a, b: (
                dz * gate,
                dz * (1 - gate),
                dz * (a - b) * gate * (1 - gate),
            )
        ),
        "Your first gradient is that for the gate. One step further to the left stands "
        "the sigmoid.": lambda dz, gate, a, b: (
            dz * (a - b),
            dz * gate,
            dz * (1 - gate),
        ),
        "The gate opens for a and closes for b at the same time: b enters the "
        "gradient for s with a minus.": (
            lambda dz, gate, a, b: (
                dz * a * gate * (1 - gate),
                dz * gate,
                dz * (1 - gate),
            ),
            lambda dz, gate, a, b: (
                dz * (a + b) * gate * (1 - gate),
                dz * gate,
                dz * (1 - gate),
            ),
        ),
        "The sign of the gradient for s: where a is larger than b, opening the gate "
        "raises z.": lambda dz, gate, a, b: (
            dz * (b - a) * gate * (1 - gate),
            dz * gate,
            dz * (1 - gate),
        ),
        "By which factors do a and b enter z? Their gradients have the same ones.": (
            lambda dz, gate, a, b: (dz * (a - b) * gate * (1 - gate), dz, dz)
        ),
        "These are the slopes of z. Each is to be multiplied by the gradient that "
        "comes from the right, dz.": lambda dz, gate, a, b: (
            (a - b) * gate * (1 - gate),
            gate,
            1 - gate,
        ),
    },
)
def gate_gradient(dz: Tensor, gate: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    s, a, b = (x.requires_grad_() for x in (gate.logit(), a, b))
    z = s.sigmoid() * a + (1 - s.sigmoid()) * b
    return torch.autograd.grad(z, (s, a, b), dz)


def _exactly(p: float, n: int, ways: Callable[[int, int], int] = comb) -> list[float]:
    """The probabilities of 0, …, n − 1 right."""
    return [ways(n, i) * p**i * (1 - p) ** (n - i) for i in range(n)]


def _exceeded(at_most: Iterable[float], k: int) -> list[float]:
    """The probabilities that the best of k has more than 0, …, n − 1 right."""
    return [1 - F**k for F in at_most]


@function(
    "best-of",
    inputs=lambda: [
        (real(0.4, 0.95), n, k) for n, k in ((1, 1), (2, 3), (10, 2), (25, 7), (50, 30))
    ],
    mistakes={
        "That is the promise of one trial. All k stay at or below i with F(i)^k.": (
            lambda p, n, k: p
        ),
        "Your sum begins at i = 1. To exceed 0 counts as well.": (
            lambda p, n, k: mean([0, *_exceeded(accumulate(_exactly(p, n)), k)[1:]])
        ),
        "That is how many samples are right. Asked for is the share: divide by n.": (
            lambda p, n, k: n * promise(p, n, k)
        ),
        "(1 - F)^k is the probability that all k trials exceed i. One that does is "
        "enough.": lambda p, n, k: mean(
            [(1 - F) ** k for F in accumulate(_exactly(p, n))]
        ),
        "Without the factor comb(n, i) only one order of right and wrong counts.": (
            lambda p, n, k: mean(
                _exceeded(accumulate(_exactly(p, n, lambda n, i: 1)), k)
            )
        ),
        "F(i) is the probability of at most i right: add up, from 0 to i.": (
            lambda p, n, k: mean(_exceeded(_exactly(p, n), k))
        ),
    },
)
def promise(p: float, n: int, k: int) -> float:
    return mean(_exceeded(accumulate(_exactly(p, n)), k))


def _trials() -> list[tuple[Tensor, int]]:
    """Trials of which one alone is the best on the first samples."""
    cases: list[tuple[Tensor, int]] = []
    while len(cases) < 6:
        n = whole(5, 30)
        right = (torch.rand(whole(3, 9), whole(40, 60)) < 0.7).float()
        first, second = right[:, :n].mean(1).topk(2).values
        if first > second:
            cases.append((right, n))
    return cases


def _kept(chosen: Tensor, judged: Tensor) -> tuple[float, float]:
    best = chosen.mean(1).argmax()
    return chosen[best].mean().item(), judged[best].mean().item()


@function(
    "winners-curse",
    inputs=_trials,
    mistakes={
        "You choose a second time, on the samples that were to judge: the same trial "
        "goes on.": lambda right, n: (
            right[:, :n].mean(1).max(),
            right[:, n:].mean(1).max(),
        ),
        "What the winner keeps counts the other samples only, not those by which it "
        "was chosen.": lambda right, n: _kept(right[:, :n], right),
        "You choose by all samples. The winner is the best on the first n.": (
            lambda right, n: (
                right[:, :n].mean(1)[right.mean(1).argmax()],
                _kept(right, right[:, n:])[1],
            ),
            lambda right, n: _kept(right, right[:, n:]),
        ),
        "These are numbers of right answers. Asked for are the shares.": (
            lambda right, n: (
                promised_and_kept(right, n)[0] * n,
                promised_and_kept(right, n)[1] * (right.shape[1] - n),
            )
        ),
    },
)
def promised_and_kept(right: Tensor, n: int) -> tuple[float, float]:
    return _kept(right[:, :n], right[:, n:])
