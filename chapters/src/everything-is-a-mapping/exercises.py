"""Exercises of the lesson "Everything is a mapping"."""

from __future__ import annotations

from statistics import fmean, pstdev, stdev

import torch
import torch.nn.functional as F
from torch import Tensor

from mtmm_lib.lesson.exercises import (
    confused,
    function,
    lines,
    real,
    whole,
    with_gradient,
)

lines(
    "new-numbers",
    {
        "the picture's feature": [2, 0],
        "the fused vector": [3, 2],
        "the trunk's output": [1, 1],
        "the predictions of ink and rate": [1, 2],
    },
    mistakes={
        "“{line}” is not {given}. The encoder of the picture takes the sum and the "
        "difference of its two numbers.": (
            lambda line, given, right: line == "the picture's feature"
        ),
        "“{line}”: {given} is one of the two features. Add the picture's and the "
        "sound's.": (
            lambda line, given, right: (
                line == "the fused vector" and list(given) in ([2, 0], [1, 2])
            )
        ),
        "“{line}”: {given} is in the wrong order. The first number is the first of z "
        "minus the second.": (
            lambda line, given, right: (
                line == "the trunk's output" and list(given) == [-1, 1]
            )
        ),
        "“{line}”: {given} are the predictions of the text's example. Both heads read "
        "the trunk's new output.": (
            lambda line, given, right: (
                line == "the predictions of ink and rate" and list(given) == [0, 3]
            )
        ),
        "“{line}” is not {given} yet. Work through the stages in their order: each one "
        "reads what the one before it made.": lambda line, given, right: True,
    },
    others=([2, 0], [1, 2], [-1, 1], [0, 3], [5, 7]),
)


lines(
    "which-arrow",
    {
        "convolutions instead of an MLP over the pixels": "encoder",
        "joining the features end to end instead of adding them up": "fusion",
        "a trunk of its own for every task": "sharing",
        "an eleventh digit class for 'no digit at all'": "head",
        "counting the loss of the rate ten times": "balancer",
    },
    words=("encoder", "fusion", "sharing", "head", "balancer"),
    mistakes={
        "Look again at “{line}”. Fusion joins what comes from several modalities; "
        "sharing decides what several tasks have in common. Which of the two is at "
        "stake here?": confused("fusion", "sharing"),
        "Look again at “{line}”. A head turns a feature into one task's prediction; "
        "the balancer turns the losses into one update, and no prediction changes "
        "shape through it.": confused("head", "balancer"),
        "{wrong} of {lines} are not right yet; begin with “{line}” and follow the "
        "strip from left to right.": lambda line, given, right: True,
    },
)


def _tiny() -> list[tuple[Tensor, ...]]:
    """Weights, inputs and outputs in several sizes; some of what the trunk makes is
    negative."""
    cases = []
    for pixels, bands, width, tasks in ((2, 2, 2, 2), (3, 2, 4, 3), (1, 5, 3, 1)):
        sizes = ((width, pixels), (width, bands), (width, width), (tasks, width))
        weights = [torch.randn(size) for size in sizes]
        picture, sound = torch.randn(pixels), torch.randn(bands)
        trunk = weights[2] @ (weights[0] @ picture + weights[1] @ sound)
        # at least one number on either side of zero
        weights[2][0] *= -trunk[0].sign()
        weights[2][1] *= trunk[1].sign()
        cases.append((picture, sound, *weights))
    return cases


@function(
    "two-in-two-out",
    inputs=_tiny,
    differs="Not the predictions yet. Check with the numbers of the text: from (2, 1) "
    "and (1, 3) come 0 and 3.",
    mistakes={
        "What the trunk makes negative has to become zero before the heads read it.": (
            lambda picture, sound, see, hear, trunk, heads: (
                heads @ (trunk @ (see @ picture + hear @ sound))
            )
        ),
        "The ReLU belongs behind the trunk. A prediction may well be negative.": (
            lambda picture, sound, see, hear, trunk, heads: (
                heads @ (trunk @ (see @ picture + hear @ sound))
            ).relu()
        ),
        "Only the picture gets through. The fusion adds both features up.": (
            lambda picture, sound, see, hear, trunk, heads: (
                heads @ (trunk @ (see @ picture)).relu()
            )
        ),
        "The trunk works on the sum, once. You send each feature through it and add up "
        "afterwards: with a ReLU that is not the same.": (
            lambda picture, sound, see, hear, trunk, heads: (
                heads
                @ ((trunk @ (see @ picture)).relu() + (trunk @ (hear @ sound)).relu())
            )
        ),
        "The trunk is left out: the heads read what it makes of the sum.": (
            lambda picture, sound, see, hear, trunk, heads: (
                heads @ (see @ picture + hear @ sound)
            )
        ),
    },
)
def forward(
    picture: Tensor,
    sound: Tensor,
    see: Tensor,
    hear: Tensor,
    trunk: Tensor,
    heads: Tensor,
) -> Tensor:
    return heads @ (trunk @ (see @ picture + hear @ sound)).relu()


def _labels() -> list[tuple[Tensor, Tensor]]:
    """Batches with all, most, few and none of the labels."""
    cases = []
    for size, classes, labelled in ((12, 4, 8), (5, 3, 5), (9, 6, 2), (3, 4, 0)):
        target = torch.randint(0, classes, (size,))
        target[torch.randperm(size)[labelled:]] = -1
        cases.append((torch.randn(size, classes), target))
    return cases


@function(
    "masked-loss",
    inputs=_labels,
    call=with_gradient(of=0),
    mistakes={
        "The number is right, but it carries no gradient, so that nothing could learn "
        "from it: compute with tensors up to the end.": (
            lambda logits, target: masked_loss(logits, target).detach()
        ),
        "You divide by the batch size. Divide by the number of samples that have a "
        "label, or a batch with few labels counts for little only because it has "
        "few.": (
            lambda logits, target: (
                F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
                / len(target)
            )
        ),
        "That is the sum over the labelled samples; the mean was asked for.": (
            lambda logits, target: F.cross_entropy(
                logits, target, ignore_index=-1, reduction="sum"
            )
        ),
        "The unlabelled samples count as class 0 here. They have to drop out of the "
        "mean.": lambda logits, target: F.cross_entropy(logits, target.clamp(min=0)),
        "Without a single label your mean is 0/0, which is NaN. Return zero there.": (
            lambda logits, target: F.cross_entropy(logits, target, ignore_index=-1)
        ),
    },
)
def masked_loss(logits: Tensor, target: Tensor) -> Tensor:
    each = F.cross_entropy(logits, target, ignore_index=-1, reduction="none")
    return each.sum() / (target >= 0).sum().clamp(min=1)


def _senses() -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Samples with one or more of some modalities; what is absent is junk that looks
    like everything else, or NaN."""
    cases = []
    for names, size, junk in (
        (("audio", "image", "text"), 6, None),
        (("image", "audio"), 5, None),
        (("audio", "image", "text"), 7, torch.nan),
        (("text",), 2, None),
        (("audio", "image"), 1, torch.inf),
    ):
        z = {name: torch.randn(size, 3) for name in names}
        present = {name: torch.rand(size) < 0.6 for name in names}
        present[names[0]] |= ~torch.stack([*present.values()]).any(0)
        present[names[-1]][0] = len(names) == 1
        present[names[0]][0] = True
        for name in names if junk is not None else ():
            z[name][~present[name]] = junk
        cases.append((z, present))
    return cases


def _total(z: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
    return torch.stack([torch.where(present[m][:, None], z[m], 0) for m in z]).sum(0)


@function(
    "fuse-present",
    inputs=_senses,
    differs="Not the mean over the present modalities yet. Try a batch of one sample "
    "with one modality.",
    mistakes={
        "NaN came through. Multiplying by a mask of zeros does not remove it, because "
        "0 · NaN is NaN; torch.where(mask, z, 0) does.": lambda z, present: (
            sum(z[m] * present[m][:, None] for m in z)
            / sum(present[m][:, None] for m in z)
        ),
        "You look for NaN. What is absent may hold anything, ordinary numbers too: "
        "`present` says what counts.": lambda z, present: (
            torch.stack([*z.values()]).nan_to_num(torch.nan, torch.nan).nanmean(0)
        ),
        "You divide by the number of modalities. Divide by how many are present in "
        "each sample.": lambda z, present: _total(z, present) / len(z),
        "That is the sum, which grows with the number of modalities; the mean was "
        "asked for.": _total,
    },
)
def fuse(z: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
    return _total(z, present) / sum(present[m][:, None] for m in z)


@function(
    "count-saving",
    inputs=lambda: [
        (whole(1_000, 50_000), [whole(50, 2_000) for _ in range(tasks)])
        for tasks in (4, 2, 9, 1, 5)
    ],
    mistakes={
        "That is the ratio upside down: put the separate models above the shared "
        "one.": (lambda body, heads: 1 / saving(body, heads)),
        "T would be right if heads cost nothing. Either side has one head per task and "
        "no more, so the ratio is below T: write both counts out first.": (
            lambda body, heads: len(heads)
        ),
        "The shared model has heads too: below the line stands the body and all T "
        "heads.": lambda body, heads: (len(heads) * body + sum(heads)) / body,
    },
)
def saving(body: int, heads: list[int]) -> float:
    return (len(heads) * body + sum(heads)) / (body + sum(heads))


def _runs() -> list[tuple[list[float], list[float]]]:
    """Scores of seeds that are lucky, or not, on both sides."""
    cases = []
    for n in (12, 4, 2, 19):
        luck = [real(60, 80) for _ in range(n)]
        cases.append(([x + real(1, 4) for x in luck], [x + real(-1, 1) for x in luck]))
    return cases


def _differences(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


@function(
    "shared-or-separate",
    inputs=_runs,
    mistakes={
        "That is the spread of single differences. The mean of n of them varies less, "
        "by the root of n.": lambda a, b: (
            paired(a, b)[0],
            stdev(_differences(a, b)),
        ),
        "You combine the spreads of a and of b, as if the runs were unrelated. Take "
        "the differences first: what a seed does to both sides then cancels.": (
            lambda a, b: (
                paired(a, b)[0],
                ((stdev(a) ** 2 + stdev(b) ** 2) / len(a)) ** 0.5,
            )
        ),
        "Divide the sum of squares by n − 1: the mean was estimated from the same n "
        "numbers.": lambda a, b: (
            paired(a, b)[0],
            pstdev(_differences(a, b)) / len(a) ** 0.5,
        ),
        "The other way round: a − b is what a has more.": lambda a, b: paired(b, a),
        "Return two numbers, the mean of the differences and its standard error.": (
            lambda a, b: paired(a, b)[0]
        ),
    },
)
def paired(a: list[float], b: list[float]) -> tuple[float, float]:
    d = _differences(a, b)
    return fmean(d), stdev(d) / len(d) ** 0.5
