"""Gradients to test with: of any number of tasks, of lengths that differ by up to
twelve orders of magnitude, and of every kind that is awkward."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

TASKS, DIMS = st.integers(1, 8), st.integers(1, 16)


@st.composite
def jacobians(draw, tasks=TASKS, dims=DIMS, awkward: bool = True) -> np.ndarray:
    """Rows are gradients, `[T, D]`. With `awkward`, some of them may be zero, equal, or
    opposite."""
    size, dim = draw(tasks), draw(dims)
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    decades = draw(st.sampled_from([0, 2, 12]))
    jacobian = rng.standard_normal((size, dim)) * 10 ** rng.uniform(
        -decades / 2, decades / 2, (size, 1)
    )
    if awkward and size > 1:
        kind = draw(
            st.sampled_from(
                ["usual", "equal", "opposite", "zero", "all equal", "nearly equal"]
            )
        )
        if kind == "equal":
            jacobian[1] = 3 * jacobian[0]
        elif kind == "opposite":
            jacobian[1] = -0.3 * jacobian[0]
        elif kind == "zero":
            jacobian[rng.integers(size)] = 0
        elif kind == "all equal":
            jacobian[:] = jacobian[0]
        elif kind == "nearly equal":
            jacobian[1] = jacobian[0] * (1 + 1e-9 * rng.standard_normal(dim))
    return jacobian


def sizes(jacobian: np.ndarray) -> np.ndarray:
    """The lengths of the gradients, `[T]`; one for a zero."""
    norms = np.linalg.norm(jacobian, axis=1)
    return np.where(norms > 0, norms, 1)


def independent(jacobian: np.ndarray, least: float = 1e-3) -> bool:
    """Whether the directions of the gradients are linearly independent, by far."""
    unit = jacobian / sizes(jacobian)[:, None]
    return (
        len(unit) <= unit.shape[1]
        and np.linalg.svd(unit, compute_uv=False).min() > least
    )
