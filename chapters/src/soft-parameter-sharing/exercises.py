"""Exercises of the lesson "Soft parameter sharing"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import function, lines, real, whole

lines(
    "tether-limits",
    {
        "the solution at λ = 0": "separate",
        "the solution as λ grows without limit": "pooled",
        "the solution at the best λ, tasks related, labels noisy": "between",
        "the best λ, with four times the samples": "down",
        "the best λ, with noisier labels": "up",
        "the best λ (white inputs, same ρ), with twice as many tasks": "stays",
    },
    words=("separate", "pooled", "between", "up", "down", "stays"),
    mistakes={
        "Look again at “{line}”. The bottom of the valley lies at neither end, unless "
        "tasks are equal or noise is absent.": (
            lambda line, given, right: line.startswith("the solution at the best")
        ),
        "Look again at “{line}”. Without a spring nobody is held; by an endless one "
        "everybody is held in one place.": (
            lambda line, given, right: line.startswith("the solution")
        ),
        "Look again at “{line}”. Noise and signal of the deviations carry the same "
        "factor (T − 1)/T. What is left?": lambda line, given, right: "tasks" in line,
        "Look again at “{line}”. The best strength is v over 1 − ρ, with v = σ²D/n: "
        "what happens to v?": lambda line, given, right: True,
    },
)


def _problems() -> list[tuple[list[Tensor], list[Tensor], float]]:
    """Tasks with as many samples as dimensions, and some with many more."""
    cases = []
    for tasks, dim in ((2, 3), (3, 4), (4, 2)):
        sizes = [5 * dim, *(whole(dim + 1, 9 * dim) for _ in range(tasks - 1))]
        xs = [torch.randn(n, dim) for n in sizes]
        cases.append((xs, [torch.randn(n) for n in sizes], real(0.5, 2)))
    return cases


def _solution(
    xs: list[Tensor],
    ys: list[Tensor],
    strength: float,
    *,
    springs: Callable[[int], Tensor] = lambda T: torch.eye(T) - 1 / T,
    over: Callable[[Tensor], int] = len,
) -> Tensor:
    """The reference; a mistake has other springs between its T tasks, or another
    number to divide a task's products by."""
    tasks, dim = len(xs), xs[0].shape[1]
    moments = torch.block_diag(*(x.T @ x / over(x) for x in xs))
    products = torch.cat([x.T @ y / over(x) for x, y in zip(xs, ys, strict=True)])
    held = torch.kron(springs(tasks).to(moments), torch.eye(dim).to(moments))
    return torch.linalg.solve(moments + strength * held, products).view(tasks, dim)


@function(
    "solve-tethered",
    inputs=_problems,
    differs="These weights do not solve the equations. For one task they read S w + λ "
    "(w − mean) = b: which multiples of w of this task, and of the others, stand on "
    "the left?",
    mistakes={
        "That pulls every task to zero. The tether pulls to their mean.": (
            lambda xs, ys, strength: _solution(xs, ys, strength, springs=torch.eye)
        ),
        "Your springs run between the tasks, T times as strong together as those to "
        "the mean.": lambda xs, ys, strength: tethered(xs, ys, strength * len(xs)),
        "Each task's loss is a mean: divide its products by its own number of "
        "samples.": lambda xs, ys, strength: _solution(
            xs, ys, strength, over=lambda x: 1
        ),
        "You divide by the samples of all tasks. Each task's loss is the mean over its "
        "own.": lambda xs, ys, strength: _solution(
            xs, ys, strength, over=lambda x: sum(map(len, xs))
        ),
        "The sign: a spring that pushes the tasks apart.": (
            lambda xs, ys, strength: tethered(xs, ys, -strength)
        ),
    },
)
def tethered(xs: list[Tensor], ys: list[Tensor], strength: float) -> Tensor:
    return _solution(xs, ys, strength)


@function(
    "best-strength",
    inputs=lambda: [
        (
            torch.randn(tasks, dim) * (0.5 + torch.rand(tasks, 1)) + 1,
            real(0.5, 1.5),
            whole(10, 90),
        )
        for tasks, dim in ((2, 5), (3, 4), (6, 9), (5, 2))
    ],
    differs="With noise = {noise} and samples = {samples} it should be {expected}, but "
    "yours is {yours}. Signal is the mean squared distance of the true weights from "
    "their own mean.",
    mistakes={
        "Part of the noise is in the mean: v (T − 1)/T is left for the deviations.": (
            lambda w, noise, samples: (
                best_strength(w, noise, samples) * len(w) / (len(w) - 1)
            )
        ),
        "The noise is a standard deviation; v holds its square.": (
            lambda w, noise, samples: best_strength(w, noise**0.5, samples)
        ),
        "The spread is a mean over tasks; you added them up.": (
            lambda w, noise, samples: best_strength(w, noise, samples) / len(w)
        ),
        "The spread is a squared distance, a sum over dimensions; you took their "
        "mean.": lambda w, noise, samples: (
            best_strength(w, noise, samples) * w.shape[1]
        ),
        "Signal is how far the weights are from their own mean, not from zero.": (
            lambda w, noise, samples: (
                best_strength(w, noise, samples)
                * (w - w.mean(0)).square().sum()
                / w.square().sum()
            )
        ),
        "Noise over signal, not signal over noise: a strong tether is for noisy "
        "tasks.": lambda w, noise, samples: 1 / best_strength(w, noise, samples),
    },
)
def best_strength(w: Tensor, noise: float, samples: int) -> Tensor:
    tasks, dim = w.shape
    spread = (w - w.mean(0)).square().sum(1).mean()
    return noise**2 * dim / samples * (tasks - 1) / tasks / spread


def _spectra() -> list[tuple[Tensor, float]]:
    """Thresholds among the singular values, below all of them and above all."""
    cases = []
    for shape, share in (((4, 6), 0.3), ((5, 3), 0.6), ((3, 4), -0.2), ((2, 2), 1.2)):
        w = torch.randn(shape)
        s = torch.linalg.svdvals(w)
        cases.append((w, max(float(share * s[0] + (1 - share) * s[-1]), 0.05)))
    return cases


def _with_values(w: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    return u * change(s) @ vt


@function(
    "soft-threshold",
    inputs=_spectra,
    differs="Take w apart by torch.linalg.svd, change the singular values only, and "
    "put it together again.",
    mistakes={
        "A singular value cannot be negative: those below the threshold become zero.": (
            lambda w, threshold: _with_values(w, lambda s: s - threshold)
        ),
        "The singular values that stay lose the threshold, too.": (
            lambda w, threshold: _with_values(w, lambda s: s * (s > threshold))
        ),
        "You keep what lies below the threshold. Large values are the signal.": (
            lambda w, threshold: _with_values(w, lambda s: s.clamp(max=threshold))
        ),
        "That multiplies the singular values, as the tether does. The trace norm takes "
        "the same from each of them.": (
            lambda w, threshold: _with_values(w, lambda s: s / (1 + threshold))
        ),
        "That shrinks the entries of the matrix; it is its singular values that "
        "shrink.": lambda w, threshold: w.sign() * (w.abs() - threshold).clamp(min=0),
    },
)
def shrink(w: Tensor, threshold: float) -> Tensor:
    return _with_values(w, lambda s: (s - threshold).clamp(min=0))


def _graphs() -> list[tuple[Tensor]]:
    cases = []
    for tasks in (3, 5, 2):
        a = torch.randn(tasks, tasks)
        cases.append((a + a.T,))
    return cases


@function(
    "graph-tether",
    inputs=_graphs,
    differs="Multiply ‖w_s − w_t‖² out and collect what belongs to each product of two "
    "weights.",
    mistakes={
        "What stands on the diagonal of a is a spring from a task to itself.": (
            lambda a: laplacian(a) + a.diag().diag(),
            lambda a: laplacian(a) - a.diag().diag(),
        ),
        "Each pair is counted once: s < t on the left-hand side.": (
            lambda a: 2 * laplacian(a)
        ),
        "Look at the sign: a spring rewards tasks that agree, −2 a w·w′.": (
            lambda a: 2 * laplacian(a).diag().diag() - laplacian(a)
        ),
        "Every spring at task s also adds to the square of w of s itself: the "
        "diagonal.": lambda a: a.diag().diag() - a,
    },
)
def laplacian(a: Tensor) -> Tensor:
    off = a - a.diag().diag()
    return off.sum(1).diag() - off
