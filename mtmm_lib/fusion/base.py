r"""What every fusion stands on: the modalities' names and widths, who is present, and
where padding is.

Shapes: B batch, L tokens, M modalities (in alphabetical order wherever they are
stacked), D = `dim`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from numbers import Integral

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Features, Fused, usable


class Fusion(nn.Module):
    """Base of all fusions: checks names, widths and presence.

    Raises:
        ValueError: when a modality is missing from `features` or unknown or has another
            width, or a sample has no modality.
    """

    #: The result has a token for each token of a modality, as dense tasks need;
    #: otherwise they are pooled.
    keeps_tokens = False

    # What a call returns; of a module in general PyTorch says `Any`.
    __call__: Callable[..., Fused]

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__()
        if not isinstance(dims, Mapping) or not all(
            isinstance(width, Integral) for width in dims.values()
        ):
            raise TypeError(
                f"dims says how wide each modality is, as in {{'image': 8}}, got {dims}"
            )
        if not dims:
            raise ValueError("a fusion needs at least one modality, got none")
        self.dims = {usable(name, "modality"): dims[name] for name in sorted(dims)}
        self.dim = dim

    def presence(
        self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None
    ) -> Tensor | None:
        """Bool `[B, M]`, or `None` when every modality is there for every sample."""
        if features.keys() != self.dims.keys() or not all(
            features[name].is_wide(dim) for name, dim in self.dims.items()
        ):
            widths = {name: f.tokens.shape[-1] for name, f in sorted(features.items())}
            raise ValueError(
                f"the fusion was built for modalities of widths {self.dims}, got "
                f"{widths}"
            )
        check_presence(self.dims, present)
        if not present:
            return None
        some = next(iter(features.values())).tokens
        everyone = some.new_ones(some.shape[0], dtype=torch.bool)
        return torch.stack([present.get(name, everyone) for name in self.dims], 1)

    def vectors(
        self, features: Mapping[str, Features], mask: Tensor | None
    ) -> list[Tensor]:
        r"""The pooled features `[B, D_m]` by modality, zero where absent."""
        pooled = [features[name].pooled for name in self.dims]
        if mask is None:
            return pooled
        return [torch.where(mask[:, i : i + 1], z, 0) for i, z in enumerate(pooled)]

    def sequences(
        self, features: Mapping[str, Features], mask: Tensor | None
    ) -> list[Features]:
        r"""The tokens `[B, L_m, D_m]` by modality, zero and not `valid` where they are
        padding or absent."""
        found = []
        for i, name in enumerate(self.dims):
            tokens, valid = features[name].tokens, features[name].valid
            if mask is not None:
                here = mask[:, i : i + 1].expand(-1, tokens.shape[1])
                valid = here if valid is None else valid & here
            if valid is not None:
                tokens = torch.where(valid.unsqueeze(2), tokens, 0)
            found.append(Features(tokens, valid))
        return found


def check_presence(
    modalities: Collection[str],
    present: Mapping[str, Tensor] | None,
    first: int | None = None,
) -> None:
    """Raises `ValueError` unless `present` names known modalities and every sample has
    one of them.

    Samples are numbered within the batch, or within the data where `first` gives the
    index there of the batch's first one.
    """
    if not present:
        return
    if not set(present) <= set(modalities):
        raise ValueError(
            f"present names {sorted(set(present) - set(modalities))}, but the "
            f"modalities are {sorted(modalities)}"
        )
    # What follows looks at values: it is no part of a compiled or exported graph.
    if set(present) != set(modalities) or torch.compiler.is_compiling():
        return
    empty = ~torch.stack(list(present.values())).any(0)
    try:
        rows = empty.nonzero().flatten().tolist()
    except RuntimeError:  # inside torch.func.vmap values cannot be looked at
        return
    if rows:
        shown = [(first or 0) + row for row in rows[:8]]
        raise ValueError(
            f"samples {shown}{' …' if len(rows) > 8 else ''} of the "
            f"{'batch' if first is None else 'data'} have no modality at all (of "
            f"{sorted(modalities)}); leave them out"
        )


class IdentityFusion(Fusion):
    r"""For models of one modality, where there is nothing to fuse: $z = z_1$, tokens
    and padding as they are.

    It has no parameters, and is no member of `ALL`: none of the tasks of a fusion is
    left to it. Shapes: `[B, L, D]` → the same tokens `[B, L, D]`.

    Raises:
        ValueError: for more than one modality, or a `dim` other than the modality's
            width.
    """

    keeps_tokens = True

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__(dims, dim)
        if list(self.dims.values()) != [dim]:
            raise ValueError(
                f"IdentityFusion passes on one modality of width {dim}, got {self.dims}"
            )

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        mask = self.presence(features, present)
        return Fused(self.sequences(features, mask)[0])


class ModalityDropout(Fusion):
    r"""Hides whole modalities in training, so that a model learns to do without
    (Neverova et al., 2016).

    Each present modality of each sample is dropped with probability `p`; where that
    would leave none, one of them, drawn uniformly, is kept. In evaluation it does
    nothing.

    Args:
        fusion: any fusion; the wrapper is called like it.
        p: probability in [0, 1).
    """

    def __init__(self, fusion: Fusion, p: float = 0.3) -> None:
        if not isinstance(fusion, Fusion):
            raise TypeError(
                f"ModalityDropout wraps a fusion that is built, got {fusion!r}"
            )
        super().__init__(fusion.dims, fusion.dim)
        if not 0 <= p < 1:
            raise ValueError(f"p is a probability in [0, 1), got {p}")
        self.fusion, self.p, self.keeps_tokens = fusion, p, fusion.keeps_tokens

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        if not self.training or not self.p:
            return self.fusion(features, present)
        here = self.fusion.presence(features, present)
        some = next(iter(features.values())).tokens
        draw = torch.rand(some.shape[0], len(self.dims), device=some.device)
        if here is None:
            here = torch.ones_like(draw, dtype=torch.bool)
        # The largest draw among the present modalities survives: it is at least p
        # whenever any is.
        best = torch.where(here, draw, -1.0).argmax(1, keepdim=True)
        kept = here & (
            (draw >= self.p)
            | (torch.arange(len(self.dims), device=draw.device) == best)
        )
        return self.fusion(
            features, {name: kept[:, i] for i, name in enumerate(self.dims)}
        )
