"""Exercises of the lesson "Attention as adaptive weighting"."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mtmm_lib.lesson.exercises import function, lines, whole

lines(
    "match-weights",
    {
        "the tokens of one modality, anew for each token of another": (
            "cross-modal attention"
        ),
        "known values, by how near their places are": "kernel smoothing",
        "modalities, by how sure they are": "product of experts",
        "experts, by learned keys, for one task": "gate",
        "features, each by itself, for one task": "task attention",
        "all tokens of all modalities, for a few learned queries": "Perceiver",
    },
    words=(
        "kernel smoothing",
        "cross-modal attention",
        "product of experts",
        "gate",
        "task attention",
        "Perceiver",
    ),
    mistakes={
        "Look again at “{line}”. Ask who looks: the tokens of a modality, or latents "
        "that were learned?": lambda line, given, right: (
            right in ("cross-modal attention", "Perceiver")
        ),
        "Look again at “{line}”. A gate weighs experts that compete; a mask weighs "
        "each feature by itself.": lambda line, given, right: (
            right in ("gate", "task attention")
        ),
        "Look again at “{line}”. In kernel smoothing nothing is learned; in a product "
        "of experts the scores are log-precisions.": lambda line, given, right: True,
    },
)


def _tokens() -> list[tuple[Tensor, Tensor, Tensor, Tensor, int]]:
    """With padding, which looks like everything else."""
    cases = []
    for batch, length, other, dim, heads in (
        (3, 4, 5, 8, 2),
        (2, 3, 7, 6, 1),
        (2, 5, 3, 12, 4),
        (1, 1, 4, 6, 3),
    ):
        q, k, v = (torch.randn(batch, n, dim) for n in (length, other, other))
        valid = torch.rand(batch, other) < 0.6
        valid[:, -1], valid[0, 0] = True, False
        cases.append((q, k, v, valid, heads))
    return cases


def _apart(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)  # [B, H, L, d]


def _heads(
    weights: Callable[[Tensor, Tensor, int], Tensor],
) -> Callable[..., Tensor]:
    """A mistake in the weights: made of the scores (before the root is taken of the
    width), of what is shown, and of the width of a head."""

    def attend(q: Tensor, k: Tensor, v: Tensor, valid: Tensor, heads: int) -> Tensor:
        scores = _apart(q, heads) @ _apart(k, heads).mT
        made = weights(scores, valid[:, None, None], q.shape[2] // heads)
        return (made @ _apart(v, heads)).transpose(1, 2).flatten(2)

    return attend


def _masked(scores: Tensor, shown: Tensor, value: float = -torch.inf) -> Tensor:
    return scores.masked_fill(~shown, value)


@function(
    "heads-by-hand",
    inputs=_tokens,
    differs="Each head takes a softmax of q·k/√d over the valid keys, then the mean of "
    "its part of v.",
    mistakes={
        "Padding takes part. Mask the scores before the softmax.": _heads(
            lambda scores, shown, d: (scores / d**0.5).softmax(-1)
        ),
        "The weights no longer sum to one: mask before the softmax.": _heads(
            lambda scores, shown, d: (scores / d**0.5).softmax(-1) * shown
        ),
        "A score of zero is not a weight of zero: exp(0) is one.": _heads(
            lambda scores, shown, d: (scores / d**0.5 * shown).softmax(-1)
        ),
        "Divide by the root of the head's width d = D/H, not of D.": (
            lambda q, k, v, valid, heads: attend(q / heads**0.5, k, v, valid, heads)
        ),
        "The root is missing: divide the scores by √d.": _heads(
            lambda scores, shown, d: _masked(scores, shown).softmax(-1)
        ),
        "Divide by the root of d, not by d.": _heads(
            lambda scores, shown, d: _masked(scores / d, shown).softmax(-1)
        ),
        "Every query's weights sum to one, over the keys.": _heads(
            lambda scores, shown, d: _masked(scores / d**0.5, shown, -1e30).softmax(-2)
        ),
        "That is a single head. Cut q, k and v into H parts of width D/H first.": (
            lambda q, k, v, valid, heads: attend(q, k, v, valid, 1)
        ),
        "The other way round: `valid` is false at padding.": (
            lambda q, k, v, valid, heads: attend(q, k, v, ~valid, heads)
        ),
    },
)
def attend(q: Tensor, k: Tensor, v: Tensor, valid: Tensor, heads: int) -> Tensor:
    q, k, v = (_apart(x, heads) for x in (q, k, v))
    shown = valid[:, None, None]
    means = F.scaled_dot_product_attention(q, k, v, attn_mask=shown)
    return means.transpose(1, 2).flatten(2)


def _instead(
    kind: str, count: Callable[[list[int], int], int]
) -> Callable[[str, list[int], int], int]:
    """A mistake in one of the three kinds."""
    return lambda given, lengths, few: (
        count(lengths, few) if given == kind else weights(given, lengths, few)
    )


@function(
    "count-weights",
    inputs=lambda: [
        (kind, [whole(3, 12) for _ in range(modalities)], whole(2, 5))
        for modalities in (2, 3, 1)
        for kind in ("MulT", "bottleneck", "Perceiver")
    ],
    differs="{kind} with {lengths} tokens and {few} few: {yours} is not right. Which "
    "queries look at which keys?",
    mistakes={
        "MulT: after looking at each other, the modalities attend to themselves.": (
            _instead("MulT", lambda n, few: sum(n) ** 2 - sum(m * m for m in n))
        ),
        "MulT: pairs are ordered, a looks at b, and b looks at a.": _instead(
            "MulT", lambda n, few: (sum(n) ** 2 + sum(m * m for m in n)) // 2
        ),
        "bottleneck: the modalities meet in the few only; each has a map of its own.": (
            _instead("bottleneck", lambda n, few: (sum(n) + few) ** 2)
        ),
        "bottleneck: the few attend to each other, too, with every modality.": (
            _instead("bottleneck", lambda n, few: sum(m * (m + 2 * few) for m in n)),
            _instead(
                "bottleneck", lambda n, few: sum(m * (m + 2 * few) for m in n) + few**2
            ),
        ),
        "bottleneck: the few look at the tokens, and the tokens at the few.": (
            _instead("bottleneck", lambda n, few: sum(m * (m + few) for m in n))
        ),
        "Perceiver: after looking at the tokens, the latents attend to each other.": (
            _instead("Perceiver", lambda n, few: few * sum(n))
        ),
        "Perceiver: only the latents look; the tokens do not.": (
            _instead("Perceiver", lambda n, few: (sum(n) + few) ** 2)
        ),
    },
)
def weights(kind: str, lengths: list[int], few: int) -> int:
    total = sum(lengths)
    if kind == "MulT":
        return total**2
    if kind == "bottleneck":
        return sum((n + few) ** 2 for n in lengths)
    return few * total + few**2


Predict = Callable[[Tensor], Tensor]


def _predictors() -> list[tuple[Predict, Tensor, Tensor]]:
    cases = []
    for batch, length, width, classes in ((6, 4, 3, 3), (8, 5, 2, 4), (5, 6, 1, 2)):
        mix = torch.randn(length, width, classes)

        def predict(x: Tensor, mix: Tensor = mix) -> Tensor:
            return (1.5 * torch.einsum("blf,lfc->bc", x.tanh(), mix)).softmax(1)

        cases.append((predict, torch.randn(batch, length, width), torch.randn(width)))
    return cases


def _costs(predict: Predict, x: Tensor, blank: Tensor, pile: bool = False) -> Tensor:
    """What each deletion takes from each class, [B, L, C]; if they pile up, all those
    before it remain."""
    found, now = [], x.clone()
    for step in range(x.shape[1]):
        now = now if pile else x.clone()
        now[:, step] = blank
        found.append(predict(x) - predict(now))
    return torch.stack(found, 1)


def _of_winner(predict: Predict, x: Tensor, costs: Tensor) -> Tensor:
    return costs[torch.arange(len(x)), :, predict(x).argmax(1)]  # [B, L]


@function(
    "delete-and-see",
    inputs=_predictors,
    differs="Sample {place}: step {yours} is not the one. Take the class that wins on "
    "the full input, and see how much of it each deletion costs.",
    unchanged="The input has changed: clone it before you delete a step.",
    mistakes={
        "Delete one step at a time: the earlier ones come back.": (
            lambda predict, x, blank: _of_winner(
                predict, x, _costs(predict, x, blank, pile=True)
            ).argmax(1)
        ),
        "Put the blank in the place of the step, not zeros.": (
            lambda predict, x, blank: most_needed(predict, x, 0 * blank)
        ),
        "That is the step whose deletion helps the winner most.": (
            lambda predict, x, blank: _of_winner(
                predict, x, _costs(predict, x, blank)
            ).argmin(1)
        ),
        "A deletion that helps the winner costs nothing: no absolute value.": (
            lambda predict, x, blank: (
                _of_winner(predict, x, _costs(predict, x, blank)).abs().argmax(1)
            )
        ),
        "Only the winner's probability counts, not that of all classes.": (
            lambda predict, x, blank: _costs(predict, x, blank).abs().sum(2).argmax(1)
        ),
        "The winner is another class for each sample.": (
            lambda predict, x, blank: _costs(predict, x, blank)[..., 0].argmax(1)
        ),
    },
)
def most_needed(predict: Predict, x: Tensor, blank: Tensor) -> Tensor:
    return _of_winner(predict, x, _costs(predict, x, blank)).argmax(1)
