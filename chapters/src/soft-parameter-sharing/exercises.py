"""Checks of the chapter, Soft parameter sharing."""

from __future__ import annotations

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import Hint, exercise, wrong_lines

WORDS = ("separate", "pooled", "between", "up", "down", "stays")
SITUATIONS = {
    "the solution at λ = 0": "separate",
    "the solution as λ grows without limit": "pooled",
    "the solution at the best λ, tasks related, labels noisy": "between",
    "the best λ, with four times the samples": "down",
    "the best λ, with noisier labels": "up",
    "the best λ (white inputs, same ρ), with twice as many tasks": "stays",
}


@exercise("tether-limits")
def _(answer: dict[str, str]) -> None:
    wrong = wrong_lines(answer, SITUATIONS, WORDS)
    if not wrong:
        return
    look = f"Look again at “{wrong[0]}”. "
    if wrong[0].startswith("the solution at the best"):
        raise Hint(
            look
            + (
                "The bottom of the valley lies at neither end, unless tasks are equal "
                "or noise is absent."
            )
        )
    if wrong[0].startswith("the solution"):
        raise Hint(
            look
            + (
                "Without a spring nobody is held; by an endless one everybody is held "
                "in one place."
            )
        )
    if "tasks" in wrong[0]:
        raise Hint(
            look
            + (
                "Noise and signal of the deviations carry the same factor (T − 1)/T. "
                "What is left?"
            )
        )
    raise Hint(
        look + "The best strength is v over 1 − ρ, with v = σ²D/n: what happens to v?"
    )


def _solution(xs: list[Tensor], ys: list[Tensor], coupling: Tensor) -> Tensor:
    dim = xs[0].shape[1]
    moments = torch.block_diag(*(x.T @ x / len(x) for x in xs))
    products = torch.cat([x.T @ y / len(x) for x, y in zip(xs, ys, strict=True)])
    springs = torch.kron(coupling, torch.eye(dim, dtype=coupling.dtype))
    return torch.linalg.solve(moments + springs, products).view(len(xs), dim)


@exercise("solve-tethered")
def _(tethered) -> None:
    for tasks, dim in ((2, 3), (3, 4), (4, 2)):
        sizes = torch.randint(2 * dim, 6 * dim, (tasks,)).tolist()
        sizes[0] = 5 * dim + sizes[1]  # never all the same
        xs = [torch.randn(n, dim, dtype=torch.float64) for n in sizes]
        ys = [torch.randn(n, dtype=torch.float64) for n in sizes]
        strength = 0.5 + float(torch.rand(()))
        each = torch.eye(tasks, dtype=torch.float64)
        right = _solution(xs, ys, strength * (each - 1 / tasks))
        got = torch.as_tensor(tethered(xs, ys, strength))
        if got.shape != right.shape:
            raise Hint(
                f"Expected the weights as [T, D] = {list(right.shape)}, got "
                f"{list(got.shape)}."
            )
        if torch.allclose(got.double(), right, atol=1e-8):
            continue
        sums = [x * len(x) ** 0.5 for x in xs], [y * len(y) ** 0.5 for y in ys]
        for mistaken, hint in (
            (
                _solution(xs, ys, strength * each),
                "That pulls every task to zero. The tether pulls to their mean.",
            ),
            (
                _solution(xs, ys, strength * (tasks * each - 1)),
                "Your springs run between the tasks, T times as strong together as "
                "those to the mean.",
            ),
            (
                _solution(*sums, strength * (each - 1 / tasks)),
                "Each task's loss is a mean: divide its products by its own number "
                "of samples.",
            ),
        ):
            if torch.allclose(got.double(), mistaken, atol=1e-8):
                raise Hint(hint)
        raise Hint(
            "These weights do not solve the equations. For one task they read S w + "
            "λ (w − mean) = b: which "
            "multiples of w of this task, and of the others, stand on the left?"
        )


@exercise("best-strength")
def _(best_strength) -> None:
    for tasks, dim in ((2, 5), (3, 4), (6, 9)):
        w = torch.randn(tasks, dim, dtype=torch.float64) * (
            0.5 + torch.rand(tasks, 1, dtype=torch.float64)
        )
        noise, samples = 0.5 + float(torch.rand(())), int(torch.randint(10, 90, ()))
        spread = float((w - w.mean(0)).square().sum(1).mean())
        right = noise**2 * dim / samples * (tasks - 1) / tasks / spread
        got = float(best_strength(w, noise, samples))
        for value, hint in (
            (
                right * tasks / (tasks - 1),
                "Part of the noise is in the mean: v (T − 1)/T is left for the "
                "deviations.",
            ),
            (right / noise, "The noise is a standard deviation; v holds its square."),
            (right / tasks, "The spread is a mean over tasks; you added them up."),
            (
                1 / right,
                "Noise over signal, not signal over noise: a strong tether is for "
                "noisy tasks.",
            ),
        ):
            if abs(got - value) < 1e-8 * value:
                raise Hint(hint)
        if abs(got - right) > 1e-8 * right:
            raise Hint(
                f"For {tasks} tasks in {dim} dimensions this gives {got:.4g}, "
                f"expected {right:.4g}. Signal "
                "is the mean squared distance of the true weights from their own mean."
            )


@exercise("soft-threshold")
def _(shrink) -> None:
    for shape in ((4, 6), (5, 3)):
        w = torch.randn(*shape, dtype=torch.float64)
        u, s, vt = torch.linalg.svd(w, full_matrices=False)
        # between: something vanishes, something stays
        threshold = float(s[1] * 0.7 + s[-1] * 0.3)
        right = (u * (s - threshold).clamp(min=0)) @ vt
        got = torch.as_tensor(shrink(w.clone(), threshold))
        if got.shape == w.shape and torch.allclose(got, right, atol=1e-8):
            continue
        for mistaken, hint in (
            (
                (u * (s - threshold)) @ vt,
                "A singular value cannot be negative: those below the threshold "
                "become zero.",
            ),
            (
                (u * (s * (s > threshold))) @ vt,
                "The ones that stay lose the threshold, too.",
            ),
            (
                w.sign() * (w.abs() - threshold).clamp(min=0),
                "That shrinks the entries of the matrix; it is its singular values "
                "that shrink.",
            ),
        ):
            if got.shape == w.shape and torch.allclose(got, mistaken, atol=1e-8):
                raise Hint(hint)
        raise Hint(
            "Take w apart by torch.linalg.svd, change the singular values only, and "
            "put it together again."
        )


@exercise("graph-tether")
def _(laplacian) -> None:
    for tasks in (3, 5):
        a = torch.randn(tasks, tasks, dtype=torch.float64)
        a = a + a.T
        off = a - torch.diag(a.diagonal())
        right = torch.diag(off.sum(1)) - off
        got = torch.as_tensor(laplacian(a.clone()))
        for mistaken, hint in (
            (
                torch.diag(a.sum(1)) - off,
                "What stands on the diagonal of a is a spring from a task to itself.",
            ),
            (2 * right, "Each pair is counted once: s < t on the left-hand side."),
            (
                right + 2 * off,
                "Look at the sign: a spring rewards tasks that agree, −2 a w·w′.",
            ),
            (
                -off,
                "Every spring at task s also adds to the square of w of s itself: "
                "the diagonal.",
            ),
        ):
            if got.shape == right.shape and torch.allclose(got, mistaken, atol=1e-8):
                raise Hint(hint)
        if got.shape != right.shape or not torch.allclose(got, right, atol=1e-8):
            raise Hint(
                "Multiply ‖w_s − w_t‖² out and collect what belongs to each product "
                "of two weights."
            )
