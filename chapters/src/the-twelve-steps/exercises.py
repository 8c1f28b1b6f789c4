"""Checks of the chapter, The twelve steps."""

from __future__ import annotations

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import Hint, exercise, keeps_lines, wrong_lines

PARTS = ("train", "valid", "test")
DECISIONS = {
    "the mean and deviation by which inputs are standardised": "train",
    "the bounds between brisk, middling and slow": "train",
    "the epoch at which to stop": "valid",
    "gates or a plain sum": "valid",
    "the weight of the ink's loss": "valid",
    "the accuracy that goes into the report": "test",
}
SAVED = {
    "the parameters": True,
    "the optimiser's running means of the gradients": True,
    "how many epochs are done, which decides the order of the next samples": True,
    "the best parameters so far and their validation loss": True,
    "the gradients of the last step": False,
    "the predictions for the validation data": False,
}


@exercise("which-part")
def _(answer: dict[str, str]) -> None:
    for decision in wrong_lines(answer, DECISIONS, PARTS):
        given, part = answer[decision], DECISIONS[decision]
        if given == "test":
            raise Hint(
                f"“{decision}”: what the test part helped to decide, it cannot judge "
                "any more."
            )
        if part == "test":
            raise Hint(
                f"“{decision}”: the {given} part has been used already, to learn "
                "from or to choose by, and "
                "would flatter."
            )
        if part == "train":
            raise Hint(
                f"“{decision}”: it is computed, like a parameter. From which part "
                "are those computed?"
            )
        raise Hint(
            f"“{decision}”: on the samples it learned from, a model looks better the "
            "longer it trains."
        )


@exercise("split-by-group")
def _(split) -> None:
    for _ in range(6):
        groups = torch.randint(0, int(torch.randint(4, 12, ())), (80,))
        held_out = split(groups.clone(), 2, 7)
        if (
            not isinstance(held_out, Tensor)
            or held_out.shape != groups.shape
            or held_out.dtype != torch.bool
        ):
            raise Hint(
                "Return a bool tensor of the same shape as `groups`, true where a "
                "sample is held out."
            )
        inside, outside = (
            set(groups[held_out].tolist()),
            set(groups[~held_out].tolist()),
        )
        if inside & outside:
            raise Hint(
                f"Group {min(inside & outside)} is on both sides: hold out whole "
                "groups."
            )
        if len(inside) != 2:
            raise Hint(f"Two groups were to be held out, and it is {len(inside)}.")
    groups = torch.arange(10).repeat(5)
    first, again = split(groups, 2, 7), split(groups, 2, 7)
    if not first.equal(again):
        raise Hint(
            "The same seed has to give the same split: draw from a generator that is "
            "seeded with it."
        )
    if len({tuple(split(groups, 2, seed).tolist()) for seed in range(8)}) == 1:
        raise Hint(
            "Every seed gives the same split: the seed has to decide which groups "
            "are held out."
        )


@exercise("gate-gradient")
def _(gate_gradient) -> None:
    for _ in range(4):
        dz, s, a, b = torch.randn(4, 5, 3, dtype=torch.float64)
        s, a, b = (x.requires_grad_() for x in (s, a, b))
        gate = s.sigmoid()
        (dz * (gate * a + (1 - gate) * b)).sum().backward()
        ha, hb, g = a.detach(), b.detach(), gate.detach()
        try:
            ds, da, db = gate_gradient(dz.clone(), g.clone(), ha.clone(), hb.clone())
        except (TypeError, ValueError) as error:
            raise Hint(
                f"Return three tensors: for s, for a and for b ({error})."
            ) from None
        if torch.allclose(da, dz * (1 - g)) and torch.allclose(db, dz * g):
            raise Hint(
                "The gradients for a and b are exchanged: a is what g lets through."
            )
        for name, got, right in (("a", da, a.grad), ("b", db, b.grad)):
            if not torch.allclose(got, right):
                raise Hint(
                    f"The gradient for {name} is not right: by which factor does "
                    f"{name} enter z?"
                )
        if torch.allclose(ds, s.grad):
            continue
        if torch.allclose(ds, dz * (ha - hb)):
            raise Hint(
                "That is the gradient for g. One step further to the left stands the "
                "sigmoid."
            )
        if torch.allclose(ds, dz * ha * g * (1 - g)):
            raise Hint(
                "The gate opens for a and closes for b at the same time: b enters "
                "with a minus."
            )
        raise Hint(
            "The gradient for s is not right; the derivative of the sigmoid is g (1 "
            "− g)."
        )


@exercise("winners-curse")
def _(promised_and_kept) -> None:
    for _ in range(5):
        trials, n = int(torch.randint(2, 9, ())), int(torch.randint(5, 30, ()))
        right = (torch.rand(trials, 60) < 0.8).double()
        seen, unseen = right[:, :n].mean(1), right[:, n:].mean(1)
        best = int(seen.argmax())
        try:
            promise, kept = (
                float(value) for value in promised_and_kept(right.clone(), n)
            )
        except (TypeError, ValueError):
            raise Hint(
                "Return two numbers, what the winner promises and what it keeps."
            ) from None
        if abs(promise - seen.max().item()) > 1e-9:
            raise Hint(
                f"The best of {trials} trials has {seen.max():.3f} right on the "
                f"first {n} samples, but you "
                f"promise {promise:.3f}."
            )
        if abs(kept - unseen[best].item()) < 1e-9:
            continue
        if abs(kept - unseen.max().item()) < 1e-9:
            raise Hint(
                "You choose a second time, on the samples that were to judge: the "
                "same trial goes on."
            )
        if abs(kept - right[best].mean().item()) < 1e-9:
            raise Hint(
                "You count all samples, those included by which the winner was chosen."
            )
        raise Hint(
            f"Of the other samples trial {best} has {unseen[best]:.3f} right, but "
            f"you say {kept:.3f}."
        )


@exercise("what-to-save")
def _(answer: dict[str, bool]) -> None:
    keeps_lines(answer, SAVED)
    for thing, needed in SAVED.items():
        if bool(answer[thing]) == needed:
            continue
        if needed:
            raise Hint(
                f"Without “{thing}” the run goes on, but it goes elsewhere: at the "
                "next step, or at the end, "
                "something different happens."
            )
        raise Hint(
            f"“{thing}”: will it be used again, or computed anew before anybody "
            "needs it?"
        )
