"""Checks of the chapter, Attention as adaptive weighting."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mtmm_lib.lesson.exercises import Hint, exercise, wrong_lines

WORDS = (
    "kernel smoothing",
    "cross-modal attention",
    "product of experts",
    "gate",
    "task attention",
    "Perceiver",
)
METHODS = {
    "the tokens of one modality, anew for each token of another": "cross-modal "
    "attention",
    "known values, by how near their places are": "kernel smoothing",
    "modalities, by how sure they are": "product of experts",
    "experts, by learned keys, for one task": "gate",
    "features, each by itself, for one task": "task attention",
    "all tokens of all modalities, for a few learned queries": "Perceiver",
}


@exercise("match-weights")
def _(answer: dict[str, str]) -> None:
    wrong = wrong_lines(answer, METHODS, WORDS)
    if not wrong:
        return
    look = f"Look again at “{wrong[0]}”. "
    if METHODS[wrong[0]] in ("cross-modal attention", "Perceiver"):
        raise Hint(
            look
            + "Ask who looks: the tokens of a modality, or latents that were learned?"
        )
    if METHODS[wrong[0]] in ("gate", "task attention"):
        raise Hint(
            look
            + (
                "A gate weighs experts that compete; a mask weighs each feature by "
                "itself."
            )
        )
    raise Hint(
        look
        + (
            "Nothing is learned in one of these; in the other the scores are "
            "log-precisions."
        )
    )


@exercise("heads-by-hand")
def _(attend) -> None:
    for batch, length, other, dim, heads in (
        (3, 4, 5, 8, 2),
        (2, 3, 7, 6, 1),
        (2, 5, 3, 12, 4),
    ):
        q = torch.randn(batch, length, dim, dtype=torch.float64)
        k, v = (torch.randn(batch, other, dim, dtype=torch.float64) for _ in range(2))
        valid = torch.rand(batch, other) < 0.6
        valid[:, -1], valid[0, 0] = True, False

        def apart(x: Tensor, heads: int = heads) -> Tensor:
            return x.unflatten(2, (heads, -1)).transpose(1, 2)  # [B, H, L, d]

        def joined(x: Tensor) -> Tensor:
            return x.transpose(1, 2).flatten(2)

        shown = valid[:, None, None]
        right = joined(
            F.scaled_dot_product_attention(
                apart(q), apart(k), apart(v), attn_mask=shown
            )
        )
        got = torch.as_tensor(
            attend(q.clone(), k.clone(), v.clone(), valid.clone(), heads)
        )
        if got.shape != right.shape:
            raise Hint(
                f"Expected the means as [B, L, D] = {list(right.shape)}, got "
                f"{list(got.shape)}."
            )
        scores = apart(q) @ apart(k).mT / (dim / heads) ** 0.5
        masked = scores.masked_fill(~shown, -torch.inf)
        root = heads**0.5
        for mistaken, hint in (
            (
                scores.softmax(-1),
                "Padding takes part. Mask the scores before the softmax.",
            ),
            (
                scores.softmax(-1) * shown,
                "The weights no longer sum to one: mask before the softmax.",
            ),
            (
                (scores * shown).softmax(-1),
                "A score of zero is not a weight of zero: exp(0) is one.",
            ),
            (
                (masked / root).softmax(-1),
                "Divide by the root of the head's width d = D/H, not of D.",
            ),
            (
                (masked * (dim / heads) ** 0.5).softmax(-1),
                "The root is missing: divide the scores by √d.",
            ),
            (
                scores.masked_fill(~shown, -1e30).softmax(-2),
                "Every query's weights sum to one, over the keys.",
            ),
        ):
            wrong = joined(mistaken @ apart(v))
            if torch.allclose(got, wrong) and not torch.allclose(wrong, right):
                raise Hint(hint)
        whole = F.scaled_dot_product_attention(q, k, v, attn_mask=valid.unsqueeze(1))
        if torch.allclose(got, whole) and not torch.allclose(whole, right):
            raise Hint(
                "That is a single head. Cut q, k and v into H parts of width D/H first."
            )
        if not torch.allclose(got, right):
            raise Hint(
                "Each head takes a softmax of q·k/√d over the valid keys, then the "
                "mean of its part of v."
            )


@exercise("count-weights")
def _(weights) -> None:
    for lengths, few in (((6, 9), 4), ((5, 7, 3), 2), ((8,), 3)):
        total = sum(lengths)
        alone = sum(n**2 for n in lengths)
        right = {
            "MulT": total**2,
            "bottleneck": sum((n + few) ** 2 for n in lengths),
            "Perceiver": few * total + few**2,
        }
        mistakes = {
            "MulT": (
                (
                    total**2 - alone,
                    "After looking at each other, the modalities attend to themselves.",
                ),
                (
                    (total**2 + alone) // 2,
                    "Pairs are ordered: a looks at b, and b looks at a.",
                ),
            ),
            "bottleneck": (
                (
                    (total + few) ** 2,
                    "The modalities meet in the few only: each has a map of its own.",
                ),
                (
                    alone + 2 * few * total,
                    "The few attend to each other, too, with every modality.",
                ),
                (
                    alone + few * total,
                    "The few look at the tokens, and the tokens at the few.",
                ),
            ),
            "Perceiver": (
                (
                    few * total,
                    "After looking at the tokens, the latents attend to each other.",
                ),
                ((total + few) ** 2, "Only the latents look; the tokens do not."),
            ),
        }
        for kind, value in right.items():
            got = weights(kind, list(lengths), few)
            if got == value:
                continue
            for mistaken, hint in mistakes[kind]:
                if got == mistaken and mistaken != value:
                    raise Hint(f"{kind}: {hint}")
            raise Hint(
                f"{kind} with {list(lengths)} tokens and {few} few: expected "
                f"{value}, got {got}."
            )


@exercise("delete-and-see")
def _(most_needed) -> None:
    for batch, length, width, classes in ((6, 4, 3, 3), (8, 5, 2, 4)):
        x = torch.randn(batch, length, width, dtype=torch.float64)
        blank = torch.randn(width, dtype=torch.float64)
        mix = torch.randn(length, width, classes, dtype=torch.float64)

        def predict(x: Tensor, mix: Tensor = mix) -> Tensor:
            return (1.5 * torch.einsum("blf,lfc->bc", x.tanh(), mix)).softmax(1)

        def lost(blank: Tensor | float, x: Tensor = x, *, pile: bool = False) -> Tensor:
            """What each deletion takes from each class: [B, C, L]."""
            found, now = [], x.clone()
            for step in range(x.shape[1]):
                now = now if pile else x.clone()
                now[:, step] = blank
                found.append(predict(x) - predict(now))
            return torch.stack(found, 2)

        winner = predict(x).argmax(1)
        rows = torch.arange(batch)
        right = lost(blank)[rows, winner].argmax(1)
        given = x.clone()
        got = torch.as_tensor(most_needed(predict, given, blank.clone()))
        if not torch.equal(given, x):
            raise Hint("The input has changed: clone it before you delete a step.")
        if got.shape != right.shape:
            raise Hint(
                f"Expected one step for each sample, [B] = [{batch}], got "
                f"{list(got.shape)}."
            )
        for mistaken, hint in (
            (
                lost(blank, pile=True)[rows, winner],
                "Delete one step at a time: the earlier ones come back.",
            ),
            (
                lost(0.0)[rows, winner],
                "Put the blank in the place of the step, not zeros.",
            ),
            (
                -lost(blank)[rows, winner],
                "That is the step whose deletion helps the winner most.",
            ),
            (
                lost(blank).abs().sum(1),
                "Only the winner's probability counts, not that of all classes.",
            ),
            (lost(blank)[:, 0], "The winner is another class for each sample."),
        ):
            wrong = mistaken.argmax(1)
            if torch.equal(got, wrong) and not torch.equal(wrong, right):
                raise Hint(hint)
        if not torch.equal(got, right):
            raise Hint(
                "Take the class that wins on the full input, and see how much of it "
                "each deletion costs."
            )
