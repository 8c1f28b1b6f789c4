r"""Fusions of pooled features: one vector for each modality → one for the sample.

Shapes: B batch, M modalities (in alphabetical order wherever they are stacked), D =
`dim`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmm_lib.batch import Features, Fused
from mtmm_lib.fusion.base import Fusion


class JoinedFusion(Fusion):
    r"""Base of fusions that read all features end to end, $[z_1; \dots; z_M]$.

    A learned vector (`missing[m]`, initially zero) stands in for an absent modality.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__(dims, dim)
        self.missing = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(d)) for name, d in self.dims.items()}
        )

    def joined(
        self, features: Mapping[str, Features], present: Mapping[str, Tensor] | None
    ) -> Tensor:
        r"""The features end to end, $[B, \sum_m D_m]$."""
        mask = self.presence(features, present)
        vectors = self.vectors(features, mask)
        if mask is not None:
            vectors = [
                torch.where(mask[:, i : i + 1], z, self.missing[name])
                for i, (name, z) in enumerate(zip(self.dims, vectors, strict=True))
            ]
        return torch.cat(vectors, 1)


class ConcatFusion(JoinedFusion):
    r"""Joins the features end to end and mixes them linearly:
    $z = W[z_1; \dots; z_M] + b$.

    A learned vector (`missing[m]`, initially zero) stands in for an absent modality.
    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__(dims, dim)
        self.mix = nn.Linear(sum(self.dims.values()), dim)

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        return Fused(Features.vector(self.mix(self.joined(features, present))))


class SumFusion(Fusion):
    r"""Adds up projections: $z = \sum_m (W_m z_m + b_m)$ over the modalities that are
    present.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__(dims, dim)
        self.project = nn.ModuleDict(
            {name: nn.Linear(d, dim) for name, d in self.dims.items()}
        )

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        mask = self.presence(features, present)
        vectors = self.vectors(features, mask)
        terms = torch.stack(
            [self.project[name](z) for name, z in zip(self.dims, vectors, strict=True)],
            1,
        )
        if mask is not None:
            terms = terms * mask.unsqueeze(2)
        return Fused(Features.vector(terms.sum(1)))


class GatedFusion(Fusion):
    r"""Gated multimodal units (Arevalo et al., 2017).

    With $h_m = \tanh(W_m z_m)$, each modality's gate reads all of them. Two modalities
    share one gate, $z = g \odot h_1 + (1-g) \odot h_2$ with
    $g = \sigma(W_g[z_1; z_2])$; any other number has a gate each,
    $z = \sum_m g_m \odot h_m$ with $g_m = \sigma(W_{g,m}[z_1; \dots; z_M])$, as in the
    paper. An absent modality's gate is zero; of two, the other one's is then one.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`, `weights["gates"]`
        `[B, M, D]`.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__(dims, dim)
        self.project = nn.ModuleDict(
            {name: nn.Linear(d, dim, bias=False) for name, d in self.dims.items()}
        )
        gates = 1 if len(self.dims) == 2 else len(self.dims)
        self.gate = nn.Linear(sum(self.dims.values()), gates * dim, bias=False)

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        mask = self.presence(features, present)
        vectors = self.vectors(features, mask)
        hidden = torch.stack(
            [
                self.project[name](z).tanh()
                for name, z in zip(self.dims, vectors, strict=True)
            ],
            1,
        )
        gates = self.gate(torch.cat(vectors, 1)).unflatten(1, (-1, self.dim)).sigmoid()
        if len(self.dims) == 2:
            gates = torch.cat([gates, 1 - gates], 1)
            if mask is not None:
                gates = torch.where(mask.all(1)[:, None, None], gates, 1.0)
        if mask is not None:
            gates = gates * mask.unsqueeze(2)
        return Fused(Features.vector((gates * hidden).sum(1)), {"gates": gates})


class FiLMFusion(Fusion):
    r"""Feature-wise linear modulation: one modality scales and shifts the other's
    (Perez et al., 2018).

    $z_l = \gamma(c) \odot h_l + \beta(c)$ for every token l, with $h_l = W z_{1,l} + b$
    the modulated modality's features, c the pooled features of the other, and
    $[\gamma(c) - 1; \beta(c)] = W_c c + b_c$: as in the paper the scale is learned as a
    difference from one. An absent condition modulates nothing ($\gamma = 1$,
    $\beta = 0$); of an absent modulated modality $\beta(c)$ is left.

    Args:
        dims, dim: as in every fusion; two modalities.
        condition: the modality that modulates the other one. By default the second in
            alphabetical order (the question modulates the image). The attributes
            `condition` and `modulated` name the two.

    Shapes: `[B, L, D_1]` and `[B, L', D_2]` → tokens `[B, L, D]`, those of the
    modulated modality; `weights["scale"]` and `weights["shift"]` `[B, D]`.

    Raises:
        ValueError: for any other number of modalities, or an unknown `condition`.
    """

    keeps_tokens = True

    def __init__(
        self, dims: Mapping[str, int], dim: int, *, condition: str | None = None
    ) -> None:
        super().__init__(dims, dim)
        if len(self.dims) != 2:
            raise ValueError(
                f"FiLMFusion is defined for two modalities, got {list(self.dims)}"
            )
        first, second = self.dims
        self.condition = second if condition is None else condition
        if self.condition not in self.dims:
            raise ValueError(
                f"condition is one of {list(self.dims)}, got {condition!r}"
            )
        self.modulated = first if self.condition == second else second
        self.project = nn.Linear(self.dims[self.modulated], dim)
        self.film = nn.Linear(self.dims[self.condition], 2 * dim)

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        mask = self.presence(features, present)
        here = (
            dict(zip(self.dims, mask.unbind(1), strict=True))
            if mask is not None
            else {}
        )
        vectors = dict(zip(self.dims, self.vectors(features, mask), strict=True))
        sequences = dict(zip(self.dims, self.sequences(features, mask), strict=True))
        change, shift = self.film(vectors[self.condition]).chunk(2, 1)
        tokens, valid = (
            self.project(sequences[self.modulated].tokens),
            features[self.modulated].valid,
        )
        if mask is not None:
            change, shift = (
                torch.where(here[self.condition][:, None], x, 0)
                for x in (change, shift)
            )
            modulated = here[self.modulated][:, None]
            tokens = torch.where(modulated.unsqueeze(2), tokens, 0)
            # Every token of an absent modality is now the shift, and each of them may
            # be read.
            valid = None if valid is None else valid | ~modulated
        scale = 1 + change
        z = scale.unsqueeze(1) * tokens + shift.unsqueeze(1)
        return Fused(Features(z, valid), {"scale": scale, "shift": shift})


#: The largest number of weights that `TensorFusion` builds.
TENSOR_LIMIT = 50_000_000


class TensorFusion(Fusion):
    r"""All products of features across modalities (Zadeh et al., 2017).

    $z = W \operatorname{vec}\big([1; z_1] \otimes \dots \otimes [1; z_M]\big)$. The
    ones keep the products of fewer modalities, down to each one's own features and a
    constant. An absent modality is $[1; 0]$: all products without it stay. W has
    $D \prod_m (D_m + 1)$ weights, which explodes with M.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`.

    Raises:
        ValueError: when W would have more than `TENSOR_LIMIT` weights.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__(dims, dim)
        size = math.prod(d + 1 for d in self.dims.values())
        if size * dim > TENSOR_LIMIT:
            raise ValueError(
                f"TensorFusion of widths {self.dims} has {size:,} products, so "
                f"{size * dim:,} weights; at most {TENSOR_LIMIT:,} are allowed: take "
                "narrower features, or LowRankFusion"
            )
        # the product of the ones is the bias
        self.mix = nn.Linear(size, dim, bias=False)

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        first, *others = (
            F.pad(z, (1, 0), value=1.0)
            for z in self.vectors(features, self.presence(features, present))
        )
        products = first
        for z in others:
            products = (products.unsqueeze(2) * z.unsqueeze(1)).flatten(1)
        return Fused(Features.vector(self.mix(products)))


class LowRankFusion(Fusion):
    r"""Tensor fusion with a weight tensor of low rank, which is never built (Liu et
    al., 2018).

    $z = \sum_{r=1}^{R} \bigodot_m W_m^{(r)} [1; z_m]$. With R large enough it is
    `TensorFusion`; its number of weights, $R D \sum_m (D_m + 1)$, grows with the sum of
    the widths instead of their product. An absent modality is $[1; 0]$, as there.

    Args:
        dims, dim: as in every fusion.
        rank: R.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`. `factors[m]` is linear,
    `[B, D_m]` → `[B, R·D]`, the features of the first rank first; its bias is the
    column that belongs to the one.
    """

    def __init__(self, dims: Mapping[str, int], dim: int, *, rank: int = 4) -> None:
        super().__init__(dims, dim)
        if rank < 1:
            raise ValueError(f"rank is at least 1, got {rank}")
        self.rank = rank
        self.factors = nn.ModuleDict(
            {name: nn.Linear(d, rank * dim) for name, d in self.dims.items()}
        )

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        vectors = self.vectors(features, self.presence(features, present))
        first, *others = (
            self.factors[name](z) for name, z in zip(self.dims, vectors, strict=True)
        )
        products = first
        for factor in others:
            products = products * factor
        return Fused(
            Features.vector(products.unflatten(1, (self.rank, self.dim)).sum(1))
        )


class ExpertFusion(JoinedFusion):
    r"""A mixture of experts over the joined features, with the softmax gate (Jacobs et
    al., 1991).

    $z = \sum_e g_e(x)\, E_e(x)$ with $x = [z_1; \dots; z_M]$,
    $g(x) = \mathrm{softmax}(W_g x + b_g)$ and $E_e$ a network with one hidden layer of
    D units. Every expert is computed; the sparse gates of Shazeer et al. (2017), with
    their penalties for balanced loads, pay when experts are too many for that. A
    learned vector (`missing[m]`, initially zero) stands in for an absent modality.

    Args:
        dims, dim: as in every fusion.
        experts: E.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`, `weights["gates"]`
        `[B, E]`.
    """

    def __init__(self, dims: Mapping[str, int], dim: int, *, experts: int = 4) -> None:
        super().__init__(dims, dim)
        if experts < 1:
            raise ValueError(f"a mixture needs at least one expert, got {experts}")
        width = sum(self.dims.values())
        self.gate = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim))
            for _ in range(experts)
        )

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        x = self.joined(features, present)
        gates = self.gate(x).softmax(1)
        opinions = torch.stack([expert(x) for expert in self.experts], 1)  # [B, E, D]
        return Fused(
            Features.vector((gates.unsqueeze(2) * opinions).sum(1)), {"gates": gates}
        )


class ProductOfExpertsFusion(Fusion):
    r"""Multiplies Gaussian opinions about z; an absent modality is a factor less (Wu &
    Goodman, 2018).

    Each modality says $N(\mu_m, \sigma_m^2)$ with
    $[\mu_m; \log\sigma_m^2] = W_m z_m + b_m$, and the prior $N(0, 1)$ is one more
    expert. The product is Gaussian, in every dimension with

    \[ \frac{1}{\sigma^2} = 1 + \sum_m \frac{1}{\sigma_m^2}, \qquad
       \mu = \sigma^2 \sum_m \frac{\mu_m}{\sigma_m^2} = \sum_m s_m \mu_m, \]

    sums over the modalities that are present. The result is its mean μ: nothing is
    drawn. The shares $s_m = \sigma^2/\sigma_m^2$ are a softmax over log-precisions, the
    prior's being zero.

    Shapes: `[B, L_m, D_m]` per modality → tokens `[B, 1, D]`, the mean;
    `weights["mean"]` and `weights["log_variance"]` `[B, D]`, `weights["shares"]`
    `[B, M, D]`, whose rest to one is the prior's.
    """

    def __init__(self, dims: Mapping[str, int], dim: int) -> None:
        super().__init__(dims, dim)
        self.experts = nn.ModuleDict(
            {name: nn.Linear(d, 2 * dim) for name, d in self.dims.items()}
        )

    def forward(
        self,
        features: Mapping[str, Features],
        present: Mapping[str, Tensor] | None = None,
    ) -> Fused:
        mask = self.presence(features, present)
        vectors = self.vectors(features, mask)
        opinions = torch.stack(
            [self.experts[name](z) for name, z in zip(self.dims, vectors, strict=True)],
            1,
        )
        means, log_variances = opinions.chunk(2, 2)  # [B, M, D]
        log_precisions = -log_variances
        # Who is absent knows nothing: precision zero, a logarithm of −∞.
        if mask is not None:
            log_precisions = torch.where(mask.unsqueeze(2), log_precisions, -torch.inf)
        # The prior is one more expert, the last: mean 0, precision 1, whose logarithm
        # is the zero that pads.
        log_precisions = F.pad(log_precisions, (0, 0, 0, 1))  # [B, M + 1, D]
        # Precisions add up: 1/σ² = Σ exp(log-precision). So σ² is minus a logsumexp,
        # and an expert's share σ²/σ_m² is a softmax: neither divides nor overflows,
        # however sure somebody is. Two experts of variance 1 beside the prior: three
        # precisions of 1, shares of 1/3, σ² = 1/3.
        shares = log_precisions.softmax(1)[:, :-1]
        mean = (shares * means).sum(1)  # the prior's share of 0 needs no term
        log_variance = -log_precisions.logsumexp(1)
        return Fused(
            Features.vector(mean),
            {"mean": mean, "log_variance": log_variance, "shares": shares},
        )
