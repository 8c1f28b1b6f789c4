r"""Logical gates on two bits, one in each modality, with known information about the
output.

Two fair bits, seen as −1 and +1, go into a gate whose output is to be predicted. How
much of the output is known from either input, from one of them only, or from both
together alone is known in closed form: redundant, unique and synergistic information as
Bertschinger et al. (2014) define them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mtmm_lib.batch import Batch
from mtmm_lib.data.splits import Splits

#: What one input tells about the AND of two fair bits: of 2 − ¾ log₂ 3 bits, ½ is left.
_AND = 0.75 * math.log2(4 / 3)

#: Gate → its output for bits (a, b), and the bits of redundant, unique (a, b) and
#: synergistic information.
GATES: dict[
    str, tuple[Callable[[int, int], int], tuple[float, float, float, float]]
] = {
    "xor": (lambda a, b: a ^ b, (0.0, 0.0, 0.0, 1.0)),
    "and": (lambda a, b: a & b, (_AND, 0.0, 0.0, 0.5)),
    "or": (lambda a, b: a | b, (_AND, 0.0, 0.0, 0.5)),
    "first": (lambda a, b: a, (0.0, 1.0, 0.0, 0.0)),
    "second": (lambda a, b: b, (0.0, 0.0, 1.0, 0.0)),
    "sum": (lambda a, b: a + b, (0.5, 0.0, 0.0, 1.0)),
    "pair": (lambda a, b: 2 * a + b, (0.0, 1.0, 1.0, 0.0)),
    "copy": (lambda a, b: a, (1.0, 0.0, 0.0, 0.0)),
}


@dataclass(frozen=True, eq=False)
class InformationGate:
    r"""Samples of a gate, and the truth about it.

    Args:
        splits: inputs `a` and `b` float `[B, 1]`, −1 or +1 and noise; target `y` int64
            `[B]`.
        table: joint probabilities of the noiseless bits and the output, float64
            `[2, 2, classes]`.
        information: redundant, unique to a, unique to b, and synergistic information
            about y, in bits, without noise.
    """

    splits: Splits
    table: np.ndarray
    information: tuple[float, float, float, float]

    @property
    def classes(self) -> int:
        """How many values y has."""
        return int(self.table.shape[2])


def information_gate(
    gate: str,
    *,
    samples: int = 200,
    held_out: int = 400,
    noise: float = 0.0,
    seed: int = 0,
) -> InformationGate:
    r"""A gate on two bits, each a modality of its own.

    The bits are independent, except for `"copy"`, where b equals a. Their combinations
    are equally frequent in each split, to the nearest sample.

    Args:
        gate: one of `GATES`.
        samples: in `train`.
        held_out: in `valid`, and again in `test`.
        noise: standard deviation of Gaussian noise on the inputs.
        seed: a number ≥ 0.

    Raises:
        ValueError: for an unknown gate, a negative noise or a split without samples.
    """
    if gate not in GATES:
        raise ValueError(f"unknown gate {gate!r}; the gates are {list(GATES)}")
    if noise < 0 or min(samples, held_out) < 1:
        raise ValueError(
            f"noise needs to be >= 0 and every split a sample, got noise={noise}, "
            f"samples={samples} and held_out={held_out}"
        )
    output, information = GATES[gate]
    bits = [(a, b) for a in (0, 1) for b in (0, 1) if gate != "copy" or a == b]
    cells = np.array([(a, b, output(a, b)) for a, b in bits])
    table = np.zeros((2, 2, cells[:, 2].max() + 1))
    table[tuple(cells.T)] = 1 / len(cells)
    batches = []
    for split, size in enumerate((samples, held_out, held_out)):
        rng = np.random.default_rng([seed, split])
        a, b, y = cells[rng.permutation(size) % len(cells)].T
        inputs = 2.0 * np.stack([a, b]) - 1 + noise * rng.standard_normal((2, size))
        x = torch.from_numpy(inputs).float().unsqueeze(2)
        batches.append(Batch({"a": x[0], "b": x[1]}, {"y": torch.from_numpy(y)}))
    return InformationGate(Splits(*batches), table, information)
