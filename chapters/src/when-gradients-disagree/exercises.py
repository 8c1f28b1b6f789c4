"""Checks of the chapter, When gradients disagree."""

from __future__ import annotations

import numpy as np
import torch

from mtmm_lib.balancing import weightings
from mtmm_lib.lesson.exercises import Hint, exercise, wrong_lines

METHODS = ("MGDA", "CAGrad", "PCGrad", "Nash-MTL", "IMTL-G", "Aligned-MTL")
WISHES = {
    "the task that is worst off shall gain as much as possible": "MGDA",
    "the same, but not far from the mean gradient": "CAGrad",
    "what works against another gradient is cut off": "PCGrad",
    "the product of all gains shall be as large as possible": "Nash-MTL",
    "the projections on all gradients shall be equal": "IMTL-G",
    "gradients shall be orthogonal and equally long first": "Aligned-MTL",
}


def _gramians(tasks: int, count: int = 12) -> list[np.ndarray]:
    """Of random gradients in few dimensions, of different lengths; about half of the
    pairs conflict."""
    size = 10 ** (torch.rand(count, tasks, 1, dtype=torch.float64) - 0.5)
    gradients = size * torch.randn(count, tasks, tasks + 1, dtype=torch.float64)
    return list((gradients @ gradients.mT).numpy())


def _weights(found: object, tasks: int) -> np.ndarray:
    found = np.asarray(found, np.float64)
    if found.shape != (tasks,):
        raise Hint(
            f"Expected one weight for each task, [{tasks}], got {list(found.shape)}."
        )
    return found


@exercise("which-weighting")
def _(answer: dict[str, str]) -> None:
    wrong = wrong_lines(answer, WISHES, METHODS)
    if not wrong:
        return
    look = f"Look again at “{wrong[0]}”. "
    if WISHES[wrong[0]] in ("MGDA", "CAGrad"):
        raise Hint(
            look + "Two methods care for the worst-off. One of them stays in a ball."
        )
    if WISHES[wrong[0]] in ("Nash-MTL", "IMTL-G"):
        raise Hint(
            look
            + (
                "A bargain maximises something; equal projections are a system of "
                "equations."
            )
        )
    raise Hint(
        look
        + (
            "One of these two changes pairs of gradients, the other one all singular "
            "values."
        )
    )


def _pcgrad(
    gramian: np.ndarray, originals: bool, always: bool = False, own: bool = False
) -> np.ndarray:
    """PCGrad's weights with the mistakes that people make."""
    size = len(gramian)
    total, kept = np.zeros(size), np.eye(size)
    for t in range(size):
        v = np.eye(size)[t]
        for s in range(size):
            along = v @ gramian @ (np.eye(size)[s] if originals else kept[s])
            if s != t and (along < 0 or always):
                square = gramian[t, t] if own else kept[s] @ gramian @ kept[s]
                v = v - along / square * kept[s]
        if not originals:
            kept[t] = v
        total += v
    return total


@exercise("surgery-from-gramian")
def _(surgery_weights) -> None:
    for tasks in (1, 2, 3, 5):
        for gramian in _gramians(tasks):
            right = weightings.pcgrad(gramian)
            got = _weights(surgery_weights(gramian.copy()), tasks)
            if np.allclose(got, right):
                continue
            for mistaken, hint in (
                (
                    right / tasks,
                    "The result is the sum of what is left of the gradients, not "
                    "their mean.",
                ),
                (
                    _pcgrad(gramian, True, always=True),
                    "Gradients that agree are left alone: project conflicts only.",
                ),
                (
                    _pcgrad(gramian, False),
                    "A gradient visits the others as they were, not what is left of "
                    "them.",
                ),
                (
                    _pcgrad(gramian, True, own=True),
                    "Divide by the squared length of the gradient that is visited.",
                ),
                (
                    _once(gramian),
                    "What is left after one visit pays the next one: test and "
                    "project that.",
                ),
            ):
                if np.allclose(got, mistaken):
                    raise Hint(hint)
            raise Hint(
                "Keep each projected gradient as T numbers v. Its product with g_s "
                "is v times column s of G; "
                "if that is negative, subtract it from v[s], divided by G[s, s]."
            )


def _once(gramian: np.ndarray) -> np.ndarray:
    """All conflicts are those of the gradients as they were at first."""
    share = np.minimum(gramian, 0) / np.diag(gramian)  # [t, s]
    return 1 - share.sum(0)


@exercise("nash-for-two")
def _(nash_for_two) -> None:
    for gramian in _gramians(2, 20):
        n = np.sqrt(np.diag(gramian))
        cosine = gramian[0, 1] / n.prod()
        right = 1 / (n * np.sqrt(1 + cosine))
        got = _weights(nash_for_two(gramian.copy()), 2)
        if np.allclose(got, right):
            continue
        for mistaken, hint in (
            (
                right / right.sum(),
                "The ratio is right. Do not normalise: the equation itself fixes the "
                "size.",
            ),
            (
                1 / n,
                "The angle matters, too: what is missing is a factor that both "
                "weights share.",
            ),
            (
                np.full(2, 1 / np.sqrt(1 + cosine)),
                "Both weights are equal here. What did their ratio come to?",
            ),
            (
                1 / (n * np.sqrt(1 - cosine)),
                "In a conflict the weights are large, not small: check a sign.",
            ),
            (
                1 / (n**2 * (1 + cosine)),
                "That would solve it with w² in the place of w. Take a root.",
            ),
        ):
            if np.allclose(got, mistaken):
                raise Hint(hint)
        raise Hint(
            f"G w = 1/w does not hold: G w is {gramian @ got}, and 1/w is {1 / got}."
        )


@exercise("linear-gramian")
def _(linear_gramian) -> None:
    for tasks, samples, dim, width in ((2, 4, 3, 5), (3, 6, 2, 2)):
        x = torch.randn(samples, dim, dtype=torch.float64)
        slopes = torch.randn(tasks, samples, width, dtype=torch.float64)
        gradients = (x.T @ slopes).flatten(1)  # [T, D·H]
        right = gradients @ gradients.T
        got = torch.as_tensor(linear_gramian(x.clone(), slopes.clone()))
        if got.shape != right.shape:
            raise Hint(
                f"Expected the Gramian [T, T] = {list(right.shape)}, got "
                f"{list(got.shape)}."
            )
        own = x.square().sum(1)  # each sample with itself
        for mistaken, hint in (
            (
                torch.einsum("sih,tih->st", slopes, slopes),
                "That is the Gramian at the features: the inputs are not in it.",
            ),
            (
                torch.einsum("i,sih,tih->st", own, slopes, slopes),
                "Each sample is compared with itself alone. At the parameters all "
                "pairs count.",
            ),
            (
                right / samples,
                "The slopes hold a mean over samples already, if there is one: add up.",
            ),
            (
                torch.einsum("ij,sih,tjh->st", (x @ x.T).square(), slopes, slopes),
                "The inner product of two inputs counts once, not squared.",
            ),
        ):
            if torch.allclose(got, mistaken):
                raise Hint(hint)
        if not torch.allclose(got, right):
            raise Hint("Add up (x_i · x_j) (δ_si · δ_tj) over all pairs of samples.")


@exercise("own-balancer")
def _(unit_sum) -> None:
    for tasks in (2, 4):
        for gramian in _gramians(tasks, 4):
            n = np.sqrt(np.diag(gramian))
            got = _weights(unit_sum(gramian.copy()), tasks)
            for mistaken, hint in (
                (1 / n**2, "The diagonal holds squared lengths."),
                (
                    (1 / n) / (1 / n).sum(),
                    "Do not normalise the weights: each gradient shall have length "
                    "one.",
                ),
                (n, "That makes the long ones longer."),
            ):
                if np.allclose(got, mistaken):
                    raise Hint(hint)
            if not np.allclose(got, 1 / n):
                raise Hint(
                    "With these weights the lengths of the gradients are not all one."
                )
    with np.errstate(all="ignore"):
        got = _weights(unit_sum(np.diag([4.0, 0.0])), 2)
    if not np.allclose(got, [0.5, 0]):
        raise Hint(
            "A zero gradient gets the weight zero; for lengths 2 and 0 the weights "
            f"are {got}."
        )
