r"""Fusion: one `Features` per modality → one representation of the sample.

Every fusion is built as `Fusion(dims, dim)`, with `dims` mapping each modality to its width $D_m$,
and is called as `fusion(features, present=None) -> Fused`. Keys come in any order. `present[m]` is a
bool `[B]`; what an absent modality's features hold, NaN included, changes neither results nor gradients.
Shapes: B batch, M modalities (in alphabetical order wherever they are stacked), D = `dim`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Features


@dataclass(frozen=True, eq=False)
class Fused:
    """What a fusion returns.

    Args:
        features: the joint representation, tokens `[B, L, D]`.
        weights: name → tensor: gates or attention maps, for plots.
    """

    features: Features
    weights: dict[str, Tensor] = field(default_factory=dict)


class Fusion(nn.Module):
    """Base of all fusions: checks names and presence.

    Raises:
        ValueError: when a modality is missing from `features` or unknown, or a sample has no modality.
    """

    keeps_tokens = False

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__()
        if not dims:
            raise ValueError("a fusion needs at least one modality, got none")
        self.dims = dict(sorted(dims.items()))
        self.dim = dim

    def presence(
        self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None
    ) -> Tensor | None:
        """Bool `[B, M]`, or `None` when every modality is there for every sample."""
        check_presence(self.dims, features, present)
        if not present:
            return None
        some = next(iter(features.values())).tokens
        everyone = torch.ones(len(some), dtype=torch.bool, device=some.device)
        return torch.stack([present.get(name, everyone) for name in self.dims], 1)

    def vectors(self, features: Mapping[str, Features], mask: Tensor | None) -> list[Tensor]:
        r"""The pooled features `[B, D_m]` by modality, zero where absent."""
        pooled = [features[name].pooled for name in self.dims]
        if mask is None:
            return pooled
        return [torch.where(mask[:, i : i + 1], z, 0) for i, z in enumerate(pooled)]


def check_presence(
    dims: Mapping[str, int], features: Mapping[str, Features], present: Mapping[str, Tensor] | None
) -> None:
    """Raises `ValueError` unless the modalities are those of `dims` and every sample has one of them."""
    if set(features) != set(dims):
        raise ValueError(f"the fusion was built for modalities {sorted(dims)}, got {sorted(features)}")
    if not present or set(present) != set(dims) or torch.compiler.is_compiling():
        return
    empty = ~torch.stack(list(present.values())).any(0)
    try:
        rows = empty.nonzero().flatten().tolist()
    except RuntimeError:  # inside torch.func.vmap values cannot be looked at
        return
    if rows:
        raise ValueError(
            f"samples {rows[:8]}{' …' if len(rows) > 8 else ''} have no modality at all "
            f"(of {sorted(dims)}); leave them out of the batch"
        )


class ConcatFusion(Fusion):
    r"""Joins the features end to end and mixes them linearly: $z = W[z_1; \dots; z_M] + b$.

    A learned vector (`missing[m]`, initially zero) stands in for an absent modality.
    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__(dims, dim)
        self.mix = nn.Linear(sum(self.dims.values()), dim)
        self.missing = nn.ParameterDict({name: nn.Parameter(torch.zeros(d)) for name, d in self.dims.items()})

    def forward(self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None = None) -> Fused:
        mask = self.presence(features, present)
        vectors = self.vectors(features, mask)
        if mask is not None:
            vectors = [
                torch.where(mask[:, i : i + 1], z, self.missing[name])
                for i, (name, z) in enumerate(zip(self.dims, vectors, strict=True))
            ]
        return Fused(Features.vector(self.mix(torch.cat(vectors, 1))))


class SumFusion(Fusion):
    r"""Adds up projections: $z = \sum_m (W_m z_m + b_m)$ over the modalities that are present.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__(dims, dim)
        self.project = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in self.dims.items()})

    def forward(self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None = None) -> Fused:
        mask = self.presence(features, present)
        vectors = self.vectors(features, mask)
        terms = torch.stack([self.project[name](z) for name, z in zip(self.dims, vectors, strict=True)], 1)
        if mask is not None:
            terms = terms * mask.unsqueeze(2)
        return Fused(Features.vector(terms.sum(1)))


class GatedFusion(Fusion):
    r"""Gated multimodal units (Arevalo et al., 2017).

    With $h_m = \tanh(W_m z_m)$, each modality's gate reads all of them. Two modalities share one gate,
    $z = g \odot h_1 + (1-g) \odot h_2$ with $g = \sigma(W_g[z_1; z_2])$; any other number has a gate
    each, $z = \sum_m g_m \odot h_m$ with $g_m = \sigma(W_{g,m}[z_1; \dots; z_M])$, as in the paper.
    An absent modality's gate is zero; of two, the other one's is then one.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`, `weights["gates"]` `[B, M, D]`.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__(dims, dim)
        self.project = nn.ModuleDict({name: nn.Linear(d, dim, bias=False) for name, d in self.dims.items()})
        gates = 1 if len(self.dims) == 2 else len(self.dims)
        self.gate = nn.Linear(sum(self.dims.values()), gates * dim, bias=False)

    def forward(self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None = None) -> Fused:
        mask = self.presence(features, present)
        vectors = self.vectors(features, mask)
        hidden = torch.stack(
            [self.project[name](z).tanh() for name, z in zip(self.dims, vectors, strict=True)], 1
        )
        gates = self.gate(torch.cat(vectors, 1)).unflatten(1, (-1, self.dim)).sigmoid()
        if len(self.dims) == 2:
            gates = torch.cat([gates, 1 - gates], 1)
            if mask is not None:
                gates = torch.where(mask.all(1)[:, None, None], gates, 1.0)
        if mask is not None:
            gates = gates * mask.unsqueeze(2)
        return Fused(Features.vector((gates * hidden).sum(1)), {"gates": gates})


class ModalityDropout(nn.Module):
    r"""Hides whole modalities in training, so that a model learns to do without (Neverova et al., 2016).

    Each present modality of each sample is dropped with probability `p`; where that would leave none,
    one of them, drawn uniformly, is kept. In evaluation it does nothing.

    Args:
        fusion: any fusion; the wrapper is called like it.
        p: probability in [0, 1).
    """

    def __init__(self, fusion: Fusion, p: float = 0.3) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p is a probability in [0, 1), got {p}")
        self.fusion, self.p = fusion, p
        self.dims, self.dim, self.keeps_tokens = fusion.dims, fusion.dim, fusion.keeps_tokens

    def forward(self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None = None) -> Fused:
        if not self.training or not self.p:
            return self.fusion(features, present)
        check_presence(self.dims, features, present)
        some = next(iter(features.values())).tokens
        draw = torch.rand(len(some), len(self.dims), device=some.device)
        everyone = torch.ones(len(some), dtype=torch.bool, device=some.device)
        here = torch.stack([(present or {}).get(name, everyone) for name in self.dims], 1)
        # The largest draw among the present modalities survives: it is at least p whenever any is.
        best = torch.where(here, draw, -1.0).argmax(1, keepdim=True)
        kept = here & ((draw >= self.p) | (torch.arange(len(self.dims), device=draw.device) == best))
        return self.fusion(features, {name: kept[:, i] for i, name in enumerate(self.dims)})


ALL: dict[str, type[Fusion]] = {cls.__name__: cls for cls in (ConcatFusion, SumFusion, GatedFusion)}
