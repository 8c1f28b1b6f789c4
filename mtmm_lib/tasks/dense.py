r"""Dense tasks: an answer for each token, or for each pixel.

They read tokens, so the fusion has to keep them (`IdentityFusion`, or one with
`keeps_tokens`). Shapes: B batch, L tokens, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Batch, Output
from mtmm_lib.tasks.supervised import Classification, Metric


class SequenceTagging(Classification):
    r"""One of several classes for each token: softmax cross-entropy and accuracy, over
    all tokens that have a label.

    Long sequences count by their length. The arguments are those of `Classification`.

    Shapes: target, whole numbers `[B, L]`, −1 where missing and in the padding, as
    `collate` pads; tokens beyond the target's length have none. Prediction (logits) and
    what is readable (probabilities) `[B, L, classes]`.
    """

    pooled = False

    def check(self, batch: Batch, first: int = 0) -> None:
        target = self.target(batch)
        self._expect_shape(target.dim() == 2, "[B, L]", target)
        super().check(batch, first)

    def logits(self, output: Output, target: Tensor) -> Tensor:
        prediction = output.predictions[self.name]
        tokens, steps = prediction.shape[1], target.shape[1]
        if steps > tokens:
            raise ValueError(
                f"task {self.name!r} has {steps} targets in a row, but reads {tokens} "
                "tokens: the encoder has to give one for each step, and the fusion to "
                "keep them"
            )
        return prediction[:, :steps]


class Segmentation(Classification):
    r"""One of several classes for each pixel: softmax cross-entropy, and the mean
    intersection over union.

    Each token stands for a patch of the picture, as those of `PatchEncoder` and
    `ConvEncoder` do, and gives the logits of all of the patch's pixels at once, as in a
    sub-pixel convolution (Shi et al., 2016).

    Args:
        name, classes: as in `Classification`.
        size: height and width H, W of the target.
        grid: rows and columns h, w of tokens, which come row by row; they have to
            divide H and W.
        reads, hidden, metrics, class_weights, label_smoothing: as in `Classification`.

    Raises:
        ValueError: where the grid does not divide the size, and as `Classification`.

    Shapes: target, whole numbers `[B, H, W]`, −1 where missing; prediction (logits) and
    what is readable (probabilities) `[B, H, W, classes]`.
    """

    pooled = False

    def __init__(
        self,
        name: str,
        classes: int,
        size: tuple[int, int],
        grid: tuple[int, int],
        *,
        reads: str | Sequence[str] = "shared",
        hidden: Sequence[int] = (),
        metrics: Mapping[str, Metric] | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            name,
            classes,
            reads=reads,
            hidden=hidden,
            metrics=metrics,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
        )
        if min(*size, *grid) < 1 or size[0] % grid[0] or size[1] % grid[1]:
            raise ValueError(
                f"task {name!r}: a grid of {grid[0]} × {grid[1]} tokens does not "
                f"divide {size[0]} × {size[1]} pixels into patches"
            )
        self.size, self.grid = tuple(size), tuple(grid)
        self.width = classes * (size[0] // grid[0]) * (size[1] // grid[1])

    def head(self, dims: dict[str, int]) -> nn.Module:
        return _Patches(super().head(dims), self.size, self.grid)

    def check(self, batch: Batch, first: int = 0) -> None:
        target = self.target(batch)
        shape = f"[B, {self.size[0]}, {self.size[1]}]"
        self._expect_shape(target.shape[1:] == self.size, shape, target)
        super().check(batch, first)

    def metric(self, output: Output, batch: Batch) -> Tensor:
        """Intersection over union, TP / (TP + FP + FN) over all pixels, for each class,
        and the plain mean over the classes that occur or are said to."""
        probabilities, target = self.compared(output, batch)
        said, classes = probabilities.argmax(-1), torch.arange(self.classes)
        is_said = said.unsqueeze(-1) == classes.to(said.device)
        is_so = target.unsqueeze(-1) == classes.to(said.device)
        union = (is_said | is_so).sum(0)
        shares = (is_said & is_so).sum(0) / union  # NaN for a class of nobody
        return shares.nanmean()


class _Patches(nn.Module):
    """Each token's numbers laid out as a patch of the picture."""

    def __init__(self, each: nn.Module, size: tuple[int, ...], grid: tuple[int, ...]):
        super().__init__()
        self.each, self.size, self.grid = each, size, grid

    def forward(self, x: Tensor) -> Tensor:
        (height, width), (rows, columns) = self.size, self.grid
        if x.shape[1] != rows * columns:
            raise ValueError(
                f"a grid of {rows} × {columns} needs {rows * columns} tokens, got "
                f"{x.shape[1]}"
            )
        patch = height // rows, width // columns
        y: Tensor = self.each(x)
        y = y.reshape(x.shape[0], rows, columns, *patch, -1).transpose(2, 3)
        return y.reshape(x.shape[0], height, width, -1)  # from [B, h, H/h, w, W/w, C]
