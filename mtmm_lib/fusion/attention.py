r"""Attention between modalities: fusions that decide token by token what to take from
where.

The parts are multi-head attention and pre-norm blocks of it; the fusions differ in who
may look at whom. `JointAttentionFusion`: everybody at everybody. `CrossModalFusion`:
each modality at each other one. `BottleneckFusion`: through a few shared tokens.
`PerceiverFusion`: a few latent tokens at everything.

None of them knows positions: the encoders give them. With `fusion.maps = True`, which
may be set at any time, the result's `weights` hold the attention maps; otherwise they
are never formed, and PyTorch's fused attention runs. Shapes: B batch, L tokens (K of a
bottleneck or of latents), N layers, H heads, D = `dim`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import permutations
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmm_lib.batch import Features, Fused
from mtmm_lib.fusion.base import Fusion


class Attention(nn.Module):
    r"""Multi-head attention (Vaswani et al., 2017).

    Every head takes a weighted mean of the context,
    $\mathrm{softmax}(Q K^\top / \sqrt{d})\, V$ with $Q = x W_Q$, $[K; V] = c\, W_{KV}$
    and $d = D/H$; the heads, joined, are mixed linearly. Where a sample has nothing
    valid to attend to, the result is zero.

    Args:
        dim: D.
        heads: H, which divides D.

    Shapes: x `[B, L, D]`, context `[B, L', D]`, `valid` bool `[B, L']` → `[B, L, D]`
    and, with `maps`, the weights `[B, H, L, L']`, otherwise `None`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(
                f"dim must be a multiple of heads, got dim={dim} and heads={heads}"
            )
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.mix = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        valid: Tensor | None = None,
        *,
        maps: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        q = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, H, L, d]
        k, v = (
            self.key_value(context)
            .unflatten(2, (2, self.heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        shown = some = weights = None
        if valid is not None:
            some = valid.any(1)[:, None, None]
            # A softmax over nothing is NaN: such a sample sees everything, and the
            # result is discarded.
            shown = (valid.unsqueeze(1) | ~some).unsqueeze(1)  # [B, 1, 1, L']
        if maps:
            scores = q @ k.mT / math.sqrt(q.shape[-1])
            if shown is not None:
                scores = scores.masked_fill(~shown, -torch.inf)
            weights = scores.softmax(-1)
            means = weights @ v
        else:
            means = F.scaled_dot_product_attention(q, k, v, attn_mask=shown)
        y = self.mix(means.transpose(1, 2).flatten(2))
        if some is not None:
            y = torch.where(some, y, 0)
            weights = (
                weights
                if weights is None
                else torch.where(some.unsqueeze(1), weights, 0)
            )
        return y, weights


class AttentionBlock(nn.Module):
    r"""One pre-norm layer of a transformer.

    $x \leftarrow x + \mathrm{Attention}(\bar x, \bar c)$, then
    $x \leftarrow x + \mathrm{MLP}(\bar x)$. The bar is layer normalisation; the MLP has
    one hidden layer of 2D units with GELU. Without a context the tokens attend to each
    other. Shapes as in `Attention`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        # One normalisation for both sides: whatever a second one could learn, the
        # projections can.
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 2 * dim),
            nn.GELU(),
            nn.Linear(2 * dim, dim),
        )

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        maps: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        own = self.norm(x)
        taken, weights = self.attention(
            own, own if context is None else self.norm(context), valid, maps=maps
        )
        x = x + taken
        return x + self.mlp(x), weights


class AttentionStack(nn.Module):
    r"""N blocks, one after another, and a last normalisation; all of them attend to the
    same context.

    Shapes: as in `Attention`, with weights `[B, N, H, L, L']`.
    """

    def __init__(self, dim: int, heads: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AttentionBlock(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        maps: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        found = []
        for block in self.blocks:
            x, weights = block(x, context, valid, maps=maps)
            found.append(weights)
        return self.norm(x), torch.stack(found, 1) if maps else None


class AttentionFusion(Fusion):
    """Base of the attention fusions: every modality's tokens projected to the width
    D."""

    def __init__(
        self,
        dims: Mapping[str, int],
        dim: int,
        heads: int,
        layers: int,
        keeps_tokens: bool,
        maps: bool,
    ) -> None:
        super().__init__(dims, dim)
        if layers < 1:
            raise ValueError(
                f"{type(self).__name__} needs at least one layer, got {layers}"
            )
        self.heads, self.layers, self.keeps_tokens = heads, layers, keeps_tokens
        #: Whether the attention maps are formed and returned.
        self.maps = maps
        self.project = nn.ModuleDict(
            {name: nn.Linear(d, dim) for name, d in self.dims.items()}
        )

    def projected(
        self, features: Mapping[str, Features], mask: Tensor | None
    ) -> dict[str, Features]:
        """The tokens `[B, L_m, D]` by modality, not `valid` where they are padding or
        absent."""
        return {
            name: Features(self.project[name](f.tokens), f.valid)
            for name, f in zip(self.dims, self.sequences(features, mask), strict=True)
        }


def _shares(sequences: Mapping[str, Features], mask: Tensor | None) -> Tensor:
    """What each modality counts in a mean over those that are present, `[B, M]`."""
    some = next(iter(sequences.values())).tokens
    if mask is None:
        return some.new_full((some.shape[0], len(sequences)), 1 / len(sequences))
    present = mask.to(some.dtype)
    return present / present.sum(1, keepdim=True)


def _mean(sequences: Mapping[str, Features], shares: Tensor) -> Features:
    """The mean over modalities of the mean over tokens, one token."""
    means = torch.stack([f.pooled for f in sequences.values()], 1)  # [B, M, D]
    return Features.vector((shares.unsqueeze(2) * means).sum(1))


def _end_to_end(sequences: Mapping[str, Features]) -> Features:
    """All modalities' tokens as one sequence."""
    tokens = torch.cat([f.tokens for f in sequences.values()], 1)
    if all(f.valid is None for f in sequences.values()):
        return Features(tokens)
    valid = [
        f.tokens.new_ones(f.tokens.shape[:2], dtype=torch.bool)
        if f.valid is None
        else f.valid
        for f in sequences.values()
    ]
    return Features(tokens, torch.cat(valid, 1))


class JointAttentionFusion(AttentionFusion):
    r"""One transformer over the tokens of all modalities, as in VisualBERT (Li et al.,
    2019): everybody looks at everybody.

    A stack of N blocks of self-attention reads all tokens as one sequence, at the cost
    of $(\sum_m L_m)^2$ attention weights a layer. The bias of a modality's projection
    is added to each of its tokens and marks them as its own: it is the embedding of the
    modality. The result is the mean over modalities of the mean over tokens, of what is
    present.

    Args:
        dims, dim: as in every fusion.
        heads: H, which divides D.
        layers: N.
        keeps_tokens: return all tokens, one modality after another in alphabetical
            order.
        maps: see the module.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`, or $[B, \sum_m L_m, D]$
    where they are kept; with `maps`, `weights["attention"]` $[B, N, H, S, S]$ with $S =
    \sum_m L_m$, all tokens in the same order.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        dim: int,
        *,
        heads: int = 4,
        layers: int = 1,
        keeps_tokens: bool = False,
        maps: bool = False,
    ) -> None:
        super().__init__(dims, dim, heads, layers, keeps_tokens, maps)
        self.stack = AttentionStack(dim, heads, layers)

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        mask = self.presence(features, present)
        sequences = self.projected(features, mask)
        everything = _end_to_end(sequences)
        tokens, attention = self.stack(
            everything.tokens, valid=everything.valid, maps=self.maps
        )
        if self.keeps_tokens:
            z = Features(tokens, everything.valid)
        else:
            parts = tokens.split([f.tokens.shape[1] for f in sequences.values()], 1)
            sequences = {
                name: Features(part, f.valid)
                for part, (name, f) in zip(parts, sequences.items(), strict=True)
            }
            z = _mean(sequences, _shares(sequences, mask))
        return Fused(z, {} if attention is None else {"attention": attention})


class CrossModalFusion(AttentionFusion):
    r"""The multimodal transformer (Tsai et al., 2019): each modality looks at each
    other one.

    For every ordered pair of modalities, a stack of N blocks takes the tokens of the
    *target* as queries and those of the *source* as keys and values: no alignment
    between their steps is needed. What a target gathered from its M − 1 sources is
    joined, $[B, L_m, (M-1)D]$, passes a stack of N blocks of self-attention, and is
    averaged over its tokens (the paper takes the last one); the results are mixed
    linearly, $z = \sum_m (W_m \bar u_m + b_m)$. A source that is absent gives nothing,
    a target that is absent has no term in the sum. One modality attends to itself
    alone.

    Args:
        dims, dim: as in every fusion.
        heads: H, which divides D.
        layers: N.
        keeps_tokens: return $W_m u_{m,l} + b_m$ for every token, modality after
            modality in alphabetical order, instead of their sum over modalities of the
            mean.
        maps: see the module.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`, or $[B, \sum_m L_m, D]$
    where they are kept; with `maps`, `weights["text_to_image"]`
    `[B, N, H, L_image, L_text]` says where each token of the image looks in the text,
    and `weights["image"]` `[B, N, H, L_image, L_image]` is the self-attention after it.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        dim: int,
        *,
        heads: int = 4,
        layers: int = 1,
        keeps_tokens: bool = False,
        maps: bool = False,
    ) -> None:
        super().__init__(dims, dim, heads, layers, keeps_tokens, maps)
        width = max(len(self.dims) - 1, 1) * dim
        pairs = [f"{s}_to_{t}" for s, t in permutations(self.dims, 2)]
        if len({*pairs, *self.dims}) < len(pairs) + len(self.dims):
            raise ValueError(
                f"of modalities named {list(self.dims)} two pairs have the same name "
                "'source_to_target'; rename one"
            )
        self.cross = nn.ModuleDict(
            {pair: AttentionStack(dim, heads, layers) for pair in pairs}
        )
        self.own = nn.ModuleDict(
            {name: AttentionStack(width, heads, layers) for name in self.dims}
        )
        self.mix = nn.ModuleDict({name: nn.Linear(width, dim) for name in self.dims})

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        mask = self.presence(features, present)
        projected = self.projected(features, mask)
        weights: dict[str, Tensor | None] = {}
        gathered = {}
        for target, x in projected.items():
            parts = []
            for source, context in projected.items():
                if source != target:
                    pair = f"{source}_to_{target}"
                    part, weights[pair] = self.cross[pair](
                        x.tokens, context.tokens, context.valid, maps=self.maps
                    )
                    parts.append(part)
            joined = torch.cat(parts, 2) if parts else x.tokens
            own, weights[target] = self.own[target](
                joined, valid=x.valid, maps=self.maps
            )
            gathered[target] = Features(self.mix[target](own), x.valid)
        if self.keeps_tokens:
            z = _end_to_end(gathered)
        else:
            terms = torch.stack([f.pooled for f in gathered.values()], 1)  # [B, M, D]
            z = Features.vector(terms.sum(1))
        return Fused(z, {n: w for n, w in weights.items() if w is not None})


class BottleneckFusion(AttentionFusion):
    r"""Attention bottlenecks (Nagrani et al., 2021): modalities meet in K shared tokens
    only.

    In every layer each modality's tokens and the bottleneck's attend to each other with
    the modality's own block, which gives every modality its own new version of the
    bottleneck; the next layer gets their mean,

    \[ [u_m; \hat f_m] \leftarrow \mathrm{block}_m([u_m; f]), \qquad
       f \leftarrow \tfrac{1}{M}\sum_m \hat f_m . \]

    The result is the mean over modalities of the mean over tokens. Means are over the
    modalities that are present. What one modality says reaches another one a layer
    later: with a single layer, not at all.

    Args:
        dims, dim: as in every fusion.
        heads: H, which divides D.
        layers: N.
        bottleneck: K.
        keeps_tokens: return the modalities' tokens, one modality after another in
            alphabetical order.
        maps: see the module.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`, or $[B, \sum_m L_m, D]$
    where they are kept; with `maps`, `weights["attention"]` $[B, N, H, S, S]$ with
    $S = \sum_m L_m + K$: all tokens in the same order, then the bottleneck's, whose
    rows are means over modalities as it is itself.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        dim: int,
        *,
        heads: int = 4,
        layers: int = 2,
        bottleneck: int = 4,
        keeps_tokens: bool = False,
        maps: bool = False,
    ) -> None:
        super().__init__(dims, dim, heads, layers, keeps_tokens, maps)
        if bottleneck < 1:
            raise ValueError(
                f"the bottleneck needs at least one token, got {bottleneck}"
            )
        self.bottleneck = nn.Parameter(0.02 * torch.randn(bottleneck, dim))
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: AttentionBlock(dim, heads) for name in self.dims})
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        mask = self.presence(features, present)
        sequences = self.projected(features, mask)
        share = _shares(sequences, mask)  # [B, M]
        shared = self.bottleneck.expand(share.shape[0], -1, -1)
        maps = []
        for blocks in self.blocks:
            versions, found = [], []
            for name, f in sequences.items():
                both = _end_to_end({"own": f, "shared": Features(shared)})
                block = cast(nn.ModuleDict, blocks)[name]
                x, weights = block(both.tokens, valid=both.valid, maps=self.maps)
                tokens, version = x.split([f.tokens.shape[1], shared.shape[1]], 1)
                sequences[name] = Features(tokens, f.valid)
                versions.append(version)
                found.append(weights)
            shared = torch.einsum("bm,mbkd->bkd", share, torch.stack(versions))
            if self.maps:
                maps.append(_one_map(found, share, shared.shape[1]))
        sequences = {
            name: Features(self.norm(f.tokens), f.valid)
            for name, f in sequences.items()
        }
        if self.keeps_tokens:
            z = _end_to_end(sequences)
        else:
            z = _mean(sequences, share)
        return Fused(z, {"attention": torch.stack(maps, 1)} if self.maps else {})


def _one_map(maps: list[Tensor], share: Tensor, bottleneck: int) -> Tensor:
    """Maps `[B, H, L_m + K, L_m + K]` by modality → one over all tokens and the
    bottleneck.

    For modalities a and b; rows look, columns are looked at:

                 a       b       bottleneck
    a            from a  0       from a          each modality saw itself and the
    b            0       from b  from b          bottleneck, nobody else's tokens
    bottleneck   s_a·a   s_b·b   s_a·a + s_b·b   a mean of its versions, with shares s

    So that every row sums to one, as in the maps themselves.
    """
    lengths = [weights.shape[-1] - bottleneck for weights in maps]
    size = sum(lengths) + bottleneck
    whole = maps[0].new_zeros(*maps[0].shape[:2], size, size)
    last = slice(size - bottleneck, size)
    start = 0
    for m, (weights, length) in enumerate(zip(maps, lengths, strict=True)):
        own = slice(start, start + length)
        # the rows of the modality's tokens
        whole[:, :, own, own] = weights[:, :, :length, :length]
        whole[:, :, own, last] = weights[:, :, :length, length:]
        # this version's part of the bottleneck's rows
        part = share[:, m, None, None, None] * weights[:, :, length:]
        whole[:, :, last, own] = part[..., :length]
        whole[:, :, last, last] += part[..., length:]
        start += length
    return whole


class PerceiverFusion(AttentionFusion):
    r"""The Perceiver (Jaegle et al., 2021): a few learned latent tokens look at all
    tokens of all modalities.

    Each of N layers is a block of cross-attention from the K latents to the tokens, and
    one of self-attention among the latents. The cost is $K \sum_m L_m$ attention
    weights, linear in the number of tokens. The result is the latents, whose mean is
    what a head reads. Absent modalities are not seen. The bias of a modality's
    projection marks its tokens as its own.

    Args:
        dims, dim: as in every fusion.
        heads: H, which divides D.
        layers: N.
        latents: K.
        maps: see the module.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, K, D]`; with `maps`,
    `weights["cross"]` $[B, N, H, K, \sum_m L_m]$, modality after modality in
    alphabetical order, and `weights["latents"]` `[B, N, H, K, K]`.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        dim: int,
        *,
        heads: int = 4,
        layers: int = 1,
        latents: int = 8,
        maps: bool = False,
    ) -> None:
        super().__init__(dims, dim, heads, layers, False, maps)
        if latents < 1:
            raise ValueError(
                f"the Perceiver needs at least one latent token, got {latents}"
            )
        self.latents = nn.Parameter(0.02 * torch.randn(latents, dim))
        self.cross = nn.ModuleList(AttentionBlock(dim, heads) for _ in range(layers))
        self.own = nn.ModuleList(AttentionBlock(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        everything = _end_to_end(
            self.projected(features, self.presence(features, present))
        )
        z = self.latents.expand(everything.tokens.shape[0], -1, -1)
        across, among = [], []
        for cross, own in zip(self.cross, self.own, strict=True):
            z, weights = cross(z, everything.tokens, everything.valid, maps=self.maps)
            across.append(weights)
            z, weights = own(z, maps=self.maps)
            among.append(weights)
        weights = (
            {"cross": torch.stack(across, 1), "latents": torch.stack(among, 1)}
            if self.maps
            else {}
        )
        return Fused(Features(self.norm(z)), weights)


def attention_rollout(maps: Tensor) -> Tensor:
    r"""How much of each input token is in each output token, if attention were all
    (Abnar & Zuidema, 2020).

    With $A_n$ the mean over heads of layer n's map, the rollout is
    $\tilde A_N \cdots \tilde A_1$ with $\tilde A_n = \frac12 A_n + \frac12 I$: the half
    of I is the residual connection. It ignores what the values, the heads' mixing and
    the MLPs do.

    Args:
        maps: `[B, N, H, L, L]`, first layer first: `weights["attention"]` of
            `JointAttentionFusion` or `BottleneckFusion`, or the self-attention of
            `CrossModalFusion`.

    Returns:
        `[B, L, L]`, whose rows are outputs and sum to one where the maps' rows do.

    Raises:
        ValueError: for maps that are not square, as those of cross-attention.
    """
    if maps.dim() != 5 or maps.shape[3] != maps.shape[4]:
        raise ValueError(
            f"expected maps of shape [B, N, H, L, L], got {list(maps.shape)}"
        )
    identity = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    mixed = (maps.mean(2) + identity) / 2  # [B, N, L, L]
    rollout = mixed[:, 0]
    for layer in mixed.unbind(1)[1:]:
        rollout = layer @ rollout
    return rollout
