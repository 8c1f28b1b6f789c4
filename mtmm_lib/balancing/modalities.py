r"""Balance between modalities: none should be neglected because another one is learned
faster.

Three answers. `unimodal_tasks` asks each modality alone, so that modality imbalance
becomes a matter for the balancers of tasks. `gradient_blend_weights` chooses fixed
weights for such losses from a first run. `OGMGE` slows the leading modality's encoder
down in every step. How long a network would otherwise attend to one modality only,
`unimodal_phase_ratio` says for the linear case. Shapes: B batch, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mtmm_lib.balancing.base import StaticWeights, processes
from mtmm_lib.batch import Batch, Features, Output
from mtmm_lib.model import Model, TaskModel
from mtmm_lib.tasks import Classification


def gradient_blend_weights(
    before: tuple[Mapping[str, float], Mapping[str, float]],
    after: tuple[Mapping[str, float], Mapping[str, float]],
) -> dict[str, float]:
    r"""Gradient-Blend: weights of joint and unimodal losses from first runs (Wang et
    al., 2020).

    Between two checkpoints of a run, a task's validation loss falls by $G_t$, its
    generalisation, and the gap between validation and training loss grows by $O_t$, its
    overfitting. The weights $w_t \propto G_t / O_t^2$ make the
    overfitting-to-generalisation ratio of the blend,
    $\sum_t w_t^2 O_t^2 / (\sum_t w_t G_t)^2$, as small as it can be. A task that did
    not generalise, $G_t \le 0$, gets no weight.

    Both losses of a checkpoint have to be those of the same weights, in evaluation
    mode, as `mtmm_lib.training.evaluate_losses` computes them. `History.train_loss` is
    no such thing: it is the mean over the steps of an epoch, in which the weights
    moved, with dropout. In the paper each modality, and the joint model, has a run of
    its own, from which it takes its entry of each mapping; with one run of all losses
    together the weights are those of an approximation.

    Args:
        before: training losses and validation losses of the first checkpoint, task →
            loss.
        after: those of the second one.

    Returns:
        task → weight, of sum one; for `StaticWeights`.

    Raises:
        ValueError: when a task has not all four losses, or no overfitting to divide by,
            or none of the tasks generalised.
    """
    weights = {}
    for name in dict.fromkeys(name for part in (*before, *after) for name in part):
        losses = [part.get(name, math.nan) for part in (*before, *after)]
        if not all(map(math.isfinite, losses)):
            raise ValueError(
                f"task {name!r} needs a training and a validation loss before and "
                f"after, got {losses[0]} and {losses[1]}, {losses[2]} and {losses[3]}"
            )
        train_before, valid_before, train_after, valid_after = losses
        overfitting = (valid_after - train_after) - (valid_before - train_before)
        if overfitting == 0:
            raise ValueError(
                f"task {name!r} has not overfitted between the two checkpoints, so "
                "that its weight would be infinite; take checkpoints further apart"
            )
        weights[name] = max(valid_before - valid_after, 0.0) / overfitting**2
    total = math.fsum(weights.values())
    if total == 0:
        raise ValueError(
            "no validation loss fell between the two checkpoints, so there is no blend"
        )
    return {name: weight / total for name, weight in weights.items()}


class OGMGE(StaticWeights):
    r"""On-the-fly gradient modulation with generalisation enhancement (Peng et al.,
    2022).

    Of two modalities, the one that alone gives the right class more probability leads.
    After the backward pass, the gradient of its encoder is multiplied by $k < 1$, and
    noise makes up for the lost variation:

    \[ \rho_m = \frac{\sum_i \mathrm{softmax}(s_{m,i})_{y_i}}
                      {\sum_i \mathrm{softmax}(s_{n,i})_{y_i}}, \qquad
       k_m = \begin{cases} 1 - \tanh(\alpha \rho_m) & \rho_m > 1 \\
                           1 & \text{otherwise,} \end{cases} \]

    with n the other modality, and $g \leftarrow k_m\, g + \varepsilon$ for each tensor
    g of encoder m's gradient, $\varepsilon$ Gaussian with the standard deviation of the
    entries of g. The logits $s_{m,i}$ are modality m's part of the prediction. They
    exist only where what follows the encoders is additive,
    $\hat y = \sum_m A_m z_m + c$ (concatenation or sum, and no hidden layer after it),
    and are then $A_m z_m + c/2$. This is checked in every step. The losses are added up
    with fixed weights.

    It is a simplified form. The authors' code also takes gated and FiLM fusion, where
    it splits what the head says in a way of its own, changes the weights of
    convolutions only and leaves all other parameters alone, and stops after epoch 50;
    here whole encoders are changed, from the first step to the last.

    An optimizer that divides by the size of the gradient, as Adam does, undoes a steady
    factor: take SGD, as the paper does.

    Args:
        task: the classification task by which the modalities are compared.
        alpha: α > 0.
        noise: whether to add ε (the "GE" of the name).
        weights: task → weight of its loss, as in `StaticWeights`.

    Raises:
        ValueError: in training, when there are not two modalities, what follows the
            encoders is not additive, or the task is no classification.
    """

    def __init__(
        self,
        task: str,
        alpha: float,
        *,
        noise: bool = True,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(weights)
        if not alpha > 0:
            raise ValueError(f"alpha needs to be > 0, got {alpha}")
        self.task, self.alpha, self.noise = task, alpha, noise
        #: Modality → k of the last step.
        self.factors: dict[str, float] = {}

    def __repr__(self) -> str:
        return (
            f"OGMGE({self.task!r}, {self.alpha}, noise={self.noise}, "
            f"weights={self.weights})"
        )

    def start(self, model: TaskModel) -> None:
        super().start(model)
        self.factors = {}

    def backward(
        self, losses: dict[str, Tensor], output: Output, model: TaskModel
    ) -> dict[str, float]:
        if processes() > 1:
            raise ValueError(
                "OGMGE compares modalities over the whole batch: train in one process"
            )
        if not isinstance(model, Model) or output.batch is None:
            raise ValueError(
                f"OGMGE takes the prediction of a Model for a batch apart, got "
                f"{type(model).__name__}"
            )
        self.factors = self._factors(output, output.batch, model)
        used = super().backward(losses, output, model)
        for name, factor in self.factors.items():
            for p in model.encoders[name].parameters():
                if p.grad is not None:
                    spread = p.grad.std(correction=0)
                    p.grad.mul_(factor)
                    if self.noise:
                        p.grad.add_(torch.randn_like(p.grad) * spread)
        return used

    def _factors(self, output: Output, batch: Batch, model: Model) -> dict[str, float]:
        task = model.tasks.get(self.task)
        if not isinstance(task, Classification) or not task.pooled:
            raise ValueError(
                f"OGMGE compares by a classification task, but {self.task!r} is "
                f"{task!r} (the model has {list(model.tasks.values())})"
            )
        scores = additive_parts(output, model, self.task)
        if len(scores) != 2:
            raise ValueError(
                f"OGMGE is defined for two modalities, the model has {list(scores)}"
            )
        kept = task.labelled(batch) & torch.stack(
            [batch.mask(name) for name in scores]
        ).all(0)
        target = task.target(batch).clamp(min=0).unsqueeze(1)
        right = [
            s.double().softmax(1).gather(1, target)[:, 0][kept].sum().item()
            for s in scores.values()
        ]
        if not min(right) > 0:  # no sample shows both, or no label
            return dict.fromkeys(scores, 1.0)
        ratios = right[0] / right[1], right[1] / right[0]
        return {
            name: 1 - math.tanh(self.alpha * ratio) if ratio > 1 else 1.0
            for name, ratio in zip(scores, ratios, strict=True)
        }


@torch.no_grad()
def additive_parts(output: Output, model: Model, task: str) -> dict[str, Tensor]:
    r"""What each modality contributes to a prediction that is a sum over modalities.

    With f the mapping from features to the prediction, the part of modality m is
    $f(z_m, 0) - \frac{M-1}{M} f(0)$, so that the parts add up to the prediction where f
    is additive.

    Args:
        output: a forward pass of the model.
        model: a `Model`.
        task: the task whose prediction is taken apart.

    Returns:
        modality → `[B, ...]` like the prediction.

    Raises:
        ValueError: when the parts do not add up to the prediction.
    """
    if not hasattr(model, "from_features"):
        raise ValueError(
            f"a prediction is taken apart for a Model, got {type(model).__name__}"
        )
    rest = nn.ModuleList([model.fusion, model.sharing, model.heads])
    modes = {module: module.training for module in rest.modules()}
    kind = next(rest.parameters()).dtype  # features may come from mixed precision
    whole = {
        name: Features(f.tokens.to(kind), f.valid)
        for name, f in output.features.items()
    }
    none = {
        name: Features(torch.zeros_like(f.tokens), f.valid) for name, f in whole.items()
    }

    def predict(features: dict[str, Features]) -> Tensor:
        return model.from_features(features).predictions[task]

    rest.eval()  # without what is drawn at random: dropout of units, of modalities
    try:
        constant, together = predict(none), predict(whole)
        alone = {name: predict({**none, name: f}) for name, f in whole.items()}
    finally:
        for module, training in modes.items():
            module.training = training
    count = len(alone)
    parts = {name: y - (count - 1) / count * constant for name, y in alone.items()}
    error = (sum(parts.values()) - together).abs().max()
    size = max(y.abs().max() for y in (together, constant, *alone.values()))
    if not error <= 1e-4 * size:
        raise ValueError(
            f"the prediction of {task!r} is no sum over the modalities {list(alone)}: "
            f"the parts are off by {error:.2g}. What follows the encoders has to be "
            "additive, such as ConcatFusion or SumFusion and HardSharing(..., "
            "trunk=...) without a hidden layer, but here it is "
            f"{type(model.fusion).__name__} and {type(model.sharing).__name__}"
        )
    return parts


def unimodal_phase_ratio(covariance: Tensor, correlation: Tensor, size: int) -> float:
    r"""How much later the second modality is learned than the first (Zhang, Latham &
    Saxe, 2024).

    For $\hat y = v_A^\top W_A x_A + v_B^\top W_B x_B$, two-layer linear networks per
    modality whose outputs are added (late fusion), trained on the squared error by
    gradient descent with small steps from small weights, each modality is learned
    suddenly, and the times are as $t_B / t_A = 1 + (a - b) / c$ with
    $a = \lVert\Sigma_{yA}\rVert$, $b = \lVert\Sigma_{yB}\rVert$ and
    $c = \lVert\Sigma_{yB} - \Sigma_{yA}\Sigma_A^{-1}\Sigma_{AB}\rVert$, the more
    exactly, the smaller the initial weights. A is the modality with the larger
    $\lVert\Sigma_{y\cdot}\rVert$, which need not be the more useful one. In c stands
    what B still has to explain once A is learned.

    Args:
        covariance: of all inputs, those of the first modality first, $\Sigma$ `[D, D]`.
        correlation: of the target with each input, $\Sigma_y = \mathbb E[y x]$ `[D]`.
        size: how many inputs the first modality has.

    Returns:
        the ratio, at least 1; infinite where the second modality is never learned, as
        it adds nothing.
    """
    a, b = slice(None, size), slice(size, None)
    if correlation[a].norm() < correlation[b].norm():
        a, b = b, a
    explained = torch.linalg.solve(covariance[a, a], correlation[a]) @ covariance[a, b]
    left = (correlation[b] - explained).norm()
    lead = correlation[a].norm() - correlation[b].norm()
    return 1 + float(lead / left) if left > 0 else math.inf
