"""Checks of the chapter, Everything is a mapping."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mtmm_lib.lesson.exercises import Hint, exercise, wrong_lines

STAGES = ("encoder", "fusion", "sharing", "head", "balancer")
ARROWS = {
    "convolutions instead of an MLP over the pixels": "encoder",
    "adding the features up instead of joining them end to end": "fusion",
    "a trunk of its own for every task": "sharing",
    "an eleventh digit class for 'no digit at all'": "head",
    "counting the loss of ink ten times": "balancer",
}


@exercise("which-arrow")
def _(answer: dict[str, str]) -> None:
    wrong = wrong_lines(answer, ARROWS, STAGES)
    if not wrong:
        return
    given, right = answer[wrong[0]], ARROWS[wrong[0]]
    if {given, right} == {"fusion", "sharing"}:
        raise Hint(
            f"Look again at “{wrong[0]}”. Fusion joins what comes from several "
            "modalities; sharing "
            "decides what several tasks have in common. Which of the two is at stake "
            "here?"
        )
    if {given, right} == {"head", "balancer"}:
        raise Hint(
            f"Look again at “{wrong[0]}”. A head turns a feature into one task's "
            "prediction; the balancer "
            "turns the losses into one update, and no prediction changes shape "
            "through it."
        )
    raise Hint(
        f"{len(wrong)} of 5 are not right yet; begin with “{wrong[0]}” and follow "
        "the strip "
        "from left to right."
    )


@exercise("count-saving")
def _(saving) -> None:
    for _ in range(5):
        tasks = int(torch.randint(2, 9, ()))
        body = int(torch.randint(1_000, 50_000, ()))
        heads = torch.randint(50, 2_000, (tasks,)).tolist()
        got = float(saving(body, heads))
        right = (tasks * body + sum(heads)) / (body + sum(heads))
        if abs(got - right) < 1e-6 * right:
            continue
        if abs(got * right - 1) < 1e-6:
            raise Hint(
                "That is the ratio upside down: put the separate models above the "
                "shared one."
            )
        if abs(got - tasks) < 1e-6:
            raise Hint(
                "T would be right if heads cost nothing. Either side has one head "
                "per task and no more, "
                "so the ratio is below T: write both counts out first."
            )
        if abs(got - (tasks * body + sum(heads)) / body) < 1e-6 * got:
            raise Hint(
                "The shared model has heads too: below the line stands the body and "
                "all T heads."
            )
        raise Hint(
            f"For a body of {body:,} parameters and heads of {heads} the ratio is "
            f"{right:.3f}, "
            f"but yours is {got:.3f}."
        )
    if abs(float(saving(1_000, [10])) - 1) > 1e-9:
        raise Hint(
            "With a single task there is nothing to share, so the ratio has to be "
            "exactly 1."
        )


@exercise("masked-loss")
def _(masked_loss) -> None:
    for _ in range(5):
        logits = torch.randn(12, 4, dtype=torch.float64)
        target = torch.randint(0, 4, (12,))
        target[torch.randperm(12)[: int(torch.randint(2, 9, ()))]] = -1
        kept = target >= 0
        right = F.cross_entropy(logits[kept], target[kept])
        got = _scalar(masked_loss(logits.clone(), target.clone()))
        if torch.isclose(got, right):
            continue
        if torch.isclose(got, right * kept.sum() / len(target)):
            raise Hint(
                "You divide by the batch size. Divide by the number of samples that "
                "have a label, or a batch "
                "with few labels counts for little only because it has few."
            )
        if torch.isclose(got, right * kept.sum()):
            raise Hint(
                "That is the sum over the labelled samples; the mean was asked for."
            )
        if torch.isclose(got, F.cross_entropy(logits, target.clamp(min=0))):
            raise Hint(
                "The unlabelled samples count as class 0 here. They have to drop out "
                "of the mean."
            )
        raise Hint(
            f"On {int(kept.sum())} labelled samples of 12 the loss is {right:.4f}, "
            f"but yours is {got:.4f}."
        )
    nothing = _scalar(masked_loss(torch.zeros(3, 4), torch.full((3,), -1)))
    if nothing.isnan():
        raise Hint(
            "Without a single label your mean is 0/0, which is NaN. Return zero there."
        )
    if nothing != 0:
        raise Hint("Without a single label the loss has to be zero.")


def _scalar(value: Tensor) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float64).detach()
    if value.dim():
        raise Hint(
            "A loss is one number, a tensor of shape []; yours has shape "
            f"{list(value.shape)}."
        )
    return value


@exercise("fuse-present")
def _(fuse) -> None:
    for _ in range(5):
        z = {
            name: torch.randn(6, 3, dtype=torch.float64)
            for name in ("audio", "image", "text")
        }
        present = {name: torch.rand(6) < 0.6 for name in z}
        present["audio"] |= ~(present["image"] | present["text"])
        present["text"][0], present["audio"][0] = False, True
        for name in z:
            z[name][~present[name]] = torch.nan
        right = torch.stack(
            [
                torch.stack([z[m][i] for m in z if present[m][i]]).mean(0)
                for i in range(6)
            ]
        )
        got = fuse({name: value.clone() for name, value in z.items()}, present)
        if not isinstance(got, Tensor) or got.shape != right.shape:
            raise Hint(
                "Return a tensor of shape [B, D], here [6, 3]; got "
                f"{getattr(got, 'shape', type(got))}."
            )
        if torch.allclose(got, right):
            continue
        if got.isnan().any():
            raise Hint(
                "NaN came through. Multiplying by a mask of zeros does not remove "
                "it, because 0 · NaN is "
                "NaN; torch.where(mask, z, 0) does."
            )
        total = torch.stack([torch.where(present[m][:, None], z[m], 0) for m in z]).sum(
            0
        )
        if torch.allclose(got, total / 3):
            raise Hint(
                "You divide by the number of modalities. Divide by how many are "
                "present in each sample."
            )
        if torch.allclose(got, total):
            raise Hint(
                "That is the sum, which grows with the number of modalities; the "
                "mean was asked for."
            )
        raise Hint(
            "Not the mean over the present modalities yet. Try a batch of one sample "
            "with one modality."
        )


@exercise("shared-or-separate")
def _(paired) -> None:
    for _ in range(5):
        n = int(torch.randint(4, 20, ()))
        luck = 5 * torch.randn(n, dtype=torch.float64)
        a, b = (luck + torch.randn(n, dtype=torch.float64) for _ in range(2))
        d = a - b
        mean, error = d.mean().item(), d.std().item() / n**0.5
        try:
            got_mean, got_error = (
                float(value) for value in paired(a.tolist(), b.tolist())
            )
        except (TypeError, ValueError):
            raise Hint(
                "Return two numbers, the mean of the differences and its standard "
                "error."
            ) from None
        if abs(got_mean - mean) > 1e-9:
            raise Hint(
                f"The mean of the differences a − b is {mean:.4f} here, but yours is "
                f"{got_mean:.4f}."
            )
        if abs(got_error - error) < 1e-9:
            continue
        if abs(got_error - d.std().item()) < 1e-9:
            raise Hint(
                "That is the spread of single differences. The mean of n of them "
                "varies less, by the root "
                "of n."
            )
        if abs(got_error - (a.var() / n + b.var() / n).sqrt().item()) < 1e-9:
            raise Hint(
                "You combine the spreads of a and of b, as if the runs were "
                "unrelated. Take the differences "
                "first: what a seed does to both sides then cancels."
            )
        if abs(got_error - d.std(correction=0).item() / n**0.5) < 1e-9:
            raise Hint(
                "Divide the sum of squares by n − 1: the mean was estimated from the "
                "same n numbers."
            )
        raise Hint(
            f"The mean is right; the standard error is {error:.4f} here, but yours "
            f"is {got_error:.4f}."
        )
