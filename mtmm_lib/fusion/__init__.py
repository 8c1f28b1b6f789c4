r"""Fusion: one `Features` per modality → one representation of the sample.

Every fusion is built as `Fusion(dims, dim)`, with `dims` mapping each modality to its
width $D_m$, and is called as `fusion(features, present=None) -> Fused`. Keys come in
any order. `present[m]` is a bool `[B]`; what an absent modality's features hold, NaN
included, changes neither results nor gradients, and neither does padding.
"""

from mtmm_lib.batch import Fused
from mtmm_lib.fusion.attention import (
    Attention,
    AttentionBlock,
    AttentionFusion,
    AttentionStack,
    BottleneckFusion,
    CrossModalFusion,
    JointAttentionFusion,
    PerceiverFusion,
    attention_rollout,
)
from mtmm_lib.fusion.base import Fusion, IdentityFusion, ModalityDropout
from mtmm_lib.fusion.pooled import (
    ConcatFusion,
    ExpertFusion,
    FiLMFusion,
    GatedFusion,
    JoinedFusion,
    LowRankFusion,
    ProductOfExpertsFusion,
    SumFusion,
    TensorFusion,
)

__all__ = [
    "ALL",
    "Attention",
    "AttentionBlock",
    "AttentionFusion",
    "AttentionStack",
    "BottleneckFusion",
    "ConcatFusion",
    "CrossModalFusion",
    "ExpertFusion",
    "FiLMFusion",
    "Fused",
    "Fusion",
    "GatedFusion",
    "IdentityFusion",
    "JoinedFusion",
    "JointAttentionFusion",
    "LowRankFusion",
    "ModalityDropout",
    "PerceiverFusion",
    "ProductOfExpertsFusion",
    "SumFusion",
    "TensorFusion",
    "attention_rollout",
]

ALL: dict[str, type[Fusion]] = {
    cls.__name__: cls
    for cls in (
        ConcatFusion,
        SumFusion,
        GatedFusion,
        FiLMFusion,
        TensorFusion,
        LowRankFusion,
        ExpertFusion,
        ProductOfExpertsFusion,
        JointAttentionFusion,
        CrossModalFusion,
        BottleneckFusion,
        PerceiverFusion,
    )
}
