r"""Encoders: one modality's input → `Features`.

Every encoder is called as `encoder(x)`, or as `encoder(x, lengths)` where the batch has
lengths, and has an attribute `dim`, the width of its tokens. Shapes: B batch, L tokens,
D = `dim`. None of them normalises over the batch, so that a sample's features never
depend on its neighbours.

An encoder of your own is a module that returns `Features`:

    class Histogram(nn.Module):
        dim = 32

        def forward(self, x, lengths=None):
            return Features.vector(torch.stack([i.histc(32, 0, 1) for i in x]))

and `ModuleEncoder` makes one of any module that returns tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Features, row_mask, valid_tokens


def _expect(encoder: nn.Module, fits: bool, expected: str, x: Tensor) -> None:
    if not fits:
        raise ValueError(
            f"{type(encoder).__name__} expected input of shape {expected}, got "
            f"{list(x.shape)}"
        )


class MLPEncoder(nn.Module):
    r"""A multilayer perceptron over the flattened input:
    $z = W_2\,\mathrm{relu}(W_1 x + b_1) + b_2$.

    Args:
        in_dim: numbers per sample.
        dim: width D of the feature.
        hidden: widths of the hidden layers.
        dropout: share of hidden units that is dropped in training.

    Shapes: `[B, ...]` with `in_dim` numbers per sample → tokens `[B, 1, D]`.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        *,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(hidden, Sequence):
            raise TypeError(f"hidden is a list of widths, such as [64], got {hidden!r}")
        self.in_dim, self.dim = in_dim, dim
        widths = [in_dim, *hidden]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], dim))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Features:
        flat = x.flatten(1)
        _expect(
            self,
            flat.shape[1] == self.in_dim,
            f"[B, ...] with {self.in_dim} numbers per sample",
            x,
        )
        return Features.vector(self.layers(flat))


class IdentityEncoder(nn.Module):
    r"""Changes nothing: the token is the flattened input, $z = x$. What follows reads
    the input as it is, so that nothing is shared before the sharing stage.

    Args:
        dim: numbers per sample, which is also the width D of the feature.

    Shapes: `[B, ...]` with `dim` numbers per sample → tokens `[B, 1, D]`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Features:
        flat = x.flatten(1)
        _expect(
            self,
            flat.shape[1] == self.dim,
            f"[B, ...] with {self.dim} numbers per sample",
            x,
        )
        return Features.vector(flat)


class ModuleEncoder(nn.Module):
    r"""Any module as an encoder: a backbone from elsewhere, or an `nn.Sequential`.

    Args:
        module: called as `module(x)`.
        dim: width D of what it returns.

    Shapes: what the module takes → tokens `[B, 1, D]` where it returns `[B, D]`, tokens
    `[B, L, D]` where it returns these. With `lengths`, a token for each step of the
    input `[B, L, ...]` is expected. Steps of padding reach the module as zeros and are
    not `valid` afterwards; that the module itself keeps them out of other steps, as a
    layer for each step does and attention does not, is up to you.
    """

    def __init__(self, module: nn.Module, dim: int) -> None:
        super().__init__()
        self.module, self.dim = module, dim

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Features:
        valid = None if lengths is None else valid_tokens(lengths, x.shape[1])
        if valid is not None:
            x = torch.where(row_mask(valid, x), x, 0)
        z = self.module(x)
        dims = (2, 3) if valid is None else (3,)
        if not isinstance(z, Tensor) or z.dim() not in dims or z.shape[-1] != self.dim:
            shapes = " or ".join(f"[B, {'L, ' * (n - 2)}{self.dim}]" for n in dims)
            raise ValueError(
                f"{type(self.module).__name__} should return a tensor {shapes}, got "
                f"{list(z.shape) if isinstance(z, Tensor) else type(z).__name__}"
            )
        return Features.vector(z) if z.dim() == 2 else Features(z, valid)


class ConvEncoder(nn.Module):
    r"""A small convolutional network: 3×3 convolutions, each but the first halving the
    resolution.

    A token says what was seen, not where: a mean over tokens, which is what most
    fusions and heads read, forgets it. That is right where a thing may be anywhere, and
    it takes images of any size. Where it matters which thing is where, give
    `positions`: every place l of the last map h then has a linear map of its own,
    $z_l = L\,W_l h_l + b$, so that the mean over tokens is $\sum_l W_l h_l + b$, one
    linear layer over the flattened map (LeCun et al., 1998), with $L D^2$ weights.

    Args:
        in_channels: channels C of the image.
        dim: width D of the tokens.
        channels: channels of the layers before the last one.
        positions: `(H, W)` of the images where places are to be told apart; `None`:
            they are not.

    Shapes: `[B, C, H, W]` → tokens `[B, L, D]`, one for each of the L = H'·W' places of
    the last map, row by row; each layer but the first has halved H and W, rounded up.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        *,
        channels: Sequence[int] = (16,),
        positions: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.dim, self.positions = in_channels, dim, positions
        widths = [in_channels, *channels, dim]
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(widths)):
            layers += [
                nn.Conv2d(a, b, 3, stride=1 if i == 0 else 2, padding=1),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.places = None
        if positions is not None:
            halved = 2 ** len(channels)
            count = math.prod(math.ceil(size / halved) for size in positions)
            self.places = nn.Linear(count * dim, dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Features:
        height, width = ("H", "W") if self.positions is None else self.positions
        _expect(
            self,
            x.dim() == 4
            and x.shape[1] == self.in_channels
            and self.positions in (None, tuple(x.shape[2:])),
            f"[B, {self.in_channels}, {height}, {width}]",
            x,
        )
        tokens = self.layers(x).flatten(2).transpose(1, 2)  # [B, L, D]
        if self.places is not None:
            count = tokens.shape[1]
            weights = self.places.weight.view(self.dim, count, self.dim)
            own = torch.einsum("bli,oli->blo", tokens, weights)
            tokens = count * own + self.places.bias
        return Features(tokens)


def _transformer(dim: int, layers: int, heads: int) -> nn.TransformerEncoder:
    if dim % heads:
        raise ValueError(
            f"dim must be a multiple of heads, got dim={dim} and heads={heads}"
        )
    layer = nn.TransformerEncoderLayer(
        dim,
        heads,
        2 * dim,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    return nn.TransformerEncoder(
        layer, layers, norm=nn.LayerNorm(dim), enable_nested_tensor=False
    )


class PatchEncoder(nn.Module):
    r"""Cuts an image into patches and lets them attend to each other, as a vision
    transformer does (Dosovitskiy et al., 2021), with learned positions.

    Args:
        image_shape: `(C, H, W)`.
        patch: side of a square patch, or `(height, width)`; has to divide the image.
        dim: width D of the tokens.
        layers, heads: size of the transformer; no layers: the projected patches with
            their positions.

    Shapes: `[B, C, H, W]` → tokens `[B, L, D]`, L the number of patches, row by row.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        patch: int | tuple[int, int],
        dim: int,
        *,
        layers: int = 1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        _, height, width = self.image_shape = tuple(image_shape)
        ph, pw = (patch, patch) if isinstance(patch, int) else patch
        if height % ph or width % pw:
            raise ValueError(
                f"patches of {ph}×{pw} do not tile an image of {height}×{width}"
            )
        self.dim = dim
        self.project = nn.Conv2d(image_shape[0], dim, (ph, pw), stride=(ph, pw))
        self.position = nn.Parameter(
            0.02 * torch.randn((height // ph) * (width // pw), dim)
        )
        self.transformer = _transformer(dim, layers, heads) if layers else nn.Identity()

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Features:
        _expect(
            self,
            x.shape[1:] == self.image_shape,
            f"[B, {', '.join(map(str, self.image_shape))}]",
            x,
        )
        return Features(
            self.transformer(self.project(x).flatten(2).transpose(1, 2) + self.position)
        )


def sinusoids(
    length: int, dim: int, device: torch.device | str | None = None
) -> Tensor:
    r"""Positions as sines and cosines of geometric frequencies, `[length, dim]`
    (Vaswani et al., 2017)."""
    position = torch.arange(length, device=device).unsqueeze(1)
    rate = torch.exp(
        torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim)
    )
    angles = position * rate
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :dim]


class SequenceEncoder(nn.Module):
    r"""A small transformer over a sequence, with sinusoidal positions (Vaswani et al.,
    2017).

    Args:
        in_dim: numbers per step, or width of the embedding where `vocabulary` is given.
        dim: width D of the tokens.
        vocabulary: number of token ids; the input is then integer ids.
        layers, heads: size of the transformer; no layers: the projected steps with
            their positions.

    Shapes: `[B, L, in_dim]`, or ids `[B, L]` → tokens `[B, L, D]`, `valid` `[B, L]`
    where `lengths` `[B]` is given. What stands in the padding never reaches the result.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        vocabulary: int | None = None,
        *,
        layers: int = 1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.in_dim, self.dim, self.vocabulary = in_dim, dim, vocabulary
        self.embed = None if vocabulary is None else nn.Embedding(vocabulary, in_dim)
        self.project = nn.Linear(in_dim, dim)
        self.transformer = _transformer(dim, layers, heads) if layers else None

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Features:
        valid = None if lengths is None else valid_tokens(lengths, x.shape[1])
        # before anything is computed: a NaN in the padding would reach gradients
        if valid is not None:
            x = torch.where(row_mask(valid, x), x, 0)
        if self.embed is None:
            _expect(
                self,
                x.dim() == 3 and x.shape[1] > 0 and x.shape[2] == self.in_dim,
                f"[B, L, {self.in_dim}] with L ≥ 1",
                x,
            )
        else:
            _expect(
                self,
                x.dim() == 2 and x.shape[1] > 0 and not x.is_floating_point(),
                "[B, L] with L ≥ 1 of integer ids",
                x,
            )
            x = self.embed(x)
        tokens = self.project(x) + sinusoids(x.shape[1], self.dim, x.device)
        if self.transformer is not None:
            # A sample without any valid token would have nothing to attend to and give
            # NaN.
            hidden = None if valid is None else ~(valid | ~valid.any(1, keepdim=True))
            tokens = self.transformer(tokens, src_key_padding_mask=hidden)
        return Features(tokens, valid)
