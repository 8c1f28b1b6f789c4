r"""Sharing: one representation → one feature per task.

Every sharing is built as `Sharing(tasks, in_dim, dim, trunk=None)`, with its own
options after these, and called as `sharing(z) -> Shared`; it acts on the last axis of
`z` `[B, L, in_dim]`. A `trunk` is any function `(in_dim, dim) -> nn.Sequential`, each
member of which is a stage and maps `[B, L, ·]` to `[B, L, ·]`.
"""

from mtmm_lib.batch import Shared
from mtmm_lib.sharing.base import (
    HardSharing,
    Sharing,
    Trunk,
    mlp_trunk,
    separate,
)
from mtmm_lib.sharing.experts import PLE, MMoE
from mtmm_lib.sharing.mixing import CrossStitch, TaskAttention
from mtmm_lib.sharing.private import SharedPrivate, difference
from mtmm_lib.sharing.soft import SoftSharing, tether, trace_norm

__all__ = [
    "ALL",
    "CrossStitch",
    "HardSharing",
    "MMoE",
    "PLE",
    "Shared",
    "SharedPrivate",
    "Sharing",
    "SoftSharing",
    "TaskAttention",
    "Trunk",
    "difference",
    "mlp_trunk",
    "separate",
    "tether",
    "trace_norm",
]

ALL: dict[str, type[Sharing]] = {
    cls.__name__: cls
    for cls in (
        HardSharing,
        SoftSharing,
        CrossStitch,
        TaskAttention,
        MMoE,
        PLE,
        SharedPrivate,
    )
}
