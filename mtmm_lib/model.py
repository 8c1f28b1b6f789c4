r"""The whole mapping: `Model` = heads ∘ sharing ∘ fusion ∘ encoders; and
`DecisionFusion`, late fusion.

Shapes: B batch, L tokens, D width, M modalities.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Batch, Features, Output, row_mask
from mtmm_lib.fusion import Fusion, ModalityDropout
from mtmm_lib.fusion.base import check_presence
from mtmm_lib.sharing import Sharing
from mtmm_lib.tasks import Task


class TaskModel(nn.Module):
    """What `fit` and `evaluate` ask of a model beyond its forward pass."""

    tasks: dict[str, Task]

    @property
    def modalities(self) -> list[str]:
        """The modalities that the model reads, in alphabetical order."""
        raise NotImplementedError

    def check(self, batch: Batch, first: int = 0, *, targets: bool = True) -> None:
        """Looks at data before anything is trained on them; returns nothing.

        Args:
            batch: some of the data.
            first: the index in the data of the batch's first sample, so that errors
                name samples by their place in the data.
            targets: whether the tasks' targets are needed too.

        Raises:
            KeyError: when a modality that the model reads is not in the batch, or the
                target of a task that needs one.
            ValueError: when a sample has none of these modalities, or a task cannot
                take its target.
        """
        for name in self.modalities:
            _given(batch, name)
        check_presence(self.modalities, _present(batch, self.modalities), first)
        for task in self.tasks.values() if targets else ():
            task.check(batch, first)

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Each task's loss, a scalar; a task without a single label in the batch is
        left out."""
        losses = {}
        for name, task in self.tasks.items():
            if task.labelled(batch).any():
                view = task.view(batch)
                loss = task.loss(output if view is None else self(view), batch)
                if not isinstance(loss, Tensor) or loss.dim():
                    got = list(loss.shape) if isinstance(loss, Tensor) else loss
                    raise TypeError(
                        f"the loss of {task!r} has to be a scalar tensor, got {got!r}"
                    )
                losses[name] = loss
        return losses


def _given(batch: Batch, name: str) -> Tensor:
    """A modality's input as it is."""
    if name not in batch.inputs:
        raise KeyError(
            f"the model reads modality {name!r}, but the batch has "
            f"{sorted(batch.inputs)}"
        )
    return batch.inputs[name]


def _present(batch: Batch, modalities: Collection[str]) -> dict[str, Tensor]:
    """The batch's `present` for these modalities."""
    return {name: mask for name, mask in batch.present.items() if name in modalities}


def _inputs(batch: Batch, name: str) -> Tensor:
    """A modality's input with zeros where it is absent.

    Masking after the encoder would be too late: the gradient of an encoder's weights
    multiplies a zero with the input, and zero times NaN is NaN.
    """
    x = _given(batch, name)
    if name not in batch.present:
        return x
    return torch.where(row_mask(batch.present[name], x), x, 0)


def _under(stage: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with the stage before each name, as in `fusion/gates`."""
    return {f"{stage}/{name}": value for name, value in named.items()}


class Model(TaskModel):
    r"""One composition of mappings.

    $z_m = \mathrm{encoder}_m(x_m)$, $z = \mathrm{fusion}(z_1, \dots, z_M)$,
    $h_t = \mathrm{sharing}_t(z)$, $\hat y_t = \mathrm{head}_t(h_t)$.

    Args:
        encoders: modality → encoder; a module with an attribute `dim`.
        fusion: fusion over the encoders' modalities.
        sharing: sharing over the tasks that read it.
        tasks: the tasks; each adds its head.

    Raises:
        ValueError: when the parts do not fit together.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: Fusion | ModalityDropout,
        sharing: Sharing,
        tasks: Sequence[Task],
    ) -> None:
        super().__init__()
        widths = {name: encoder.dim for name, encoder in encoders.items()}
        if widths != dict(fusion.dims):
            raise ValueError(
                f"the encoders give widths {widths}, but the fusion was built for "
                f"{dict(fusion.dims)}"
            )
        if fusion.dim != sharing.in_dim:
            raise ValueError(
                f"the fusion gives width {fusion.dim}, but the sharing reads "
                f"{sharing.in_dim}"
            )
        self.tasks = {task.name: task for task in tasks}
        if not tasks or len(self.tasks) != len(tasks):
            raise ValueError(
                "a model needs at least one task and no name twice, got "
                f"{[t.name for t in tasks]}"
            )
        dims = {**widths, "fused": fusion.dim, "shared": sharing.dim}
        for task in tasks:
            unknown = [source for source in task.reads if source not in dims]
            if unknown:
                raise ValueError(
                    f"task {task.name!r} reads {unknown}, but there is only "
                    f"{sorted(dims)}"
                )
            if (
                not task.pooled
                and not fusion.keeps_tokens
                and not set(task.reads) <= set(widths)
            ):
                raise ValueError(
                    f"task {task.name!r} is dense and needs tokens, but "
                    f"{type(fusion).__name__} pools them away"
                )
        readers = {task.name for task in tasks if "shared" in task.reads}
        if readers != set(sharing.tasks):
            raise ValueError(
                f"the sharing was built for tasks {sorted(sharing.tasks)}, but "
                f"{sorted(readers)} read it"
            )
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.sharing = sharing
        self.heads = nn.ModuleDict({task.name: task.head(dims) for task in tasks})

    @property
    def modalities(self) -> list[str]:
        return sorted(self.encoders)

    def forward(self, batch: Batch) -> Output:
        features = {
            name: encoder(_inputs(batch, name), batch.lengths.get(name))
            for name, encoder in self.encoders.items()
        }
        present = _present(batch, features)
        return replace(self.from_features(features, present), batch=batch)

    def from_features(
        self, features: dict[str, Features], present: Mapping[str, Tensor] | None = None
    ) -> Output:
        """Everything after the encoders: for those who have the features already, or
        others."""
        fused = self.fusion(features, present)
        shared = self.sharing(fused.features.tokens)
        predictions = {}
        for name, task in self.tasks.items():
            sources = {**features, "fused": fused.features}
            if name in shared.features:
                sources["shared"] = Features(
                    shared.features[name], fused.features.valid
                )
            read = [
                sources[key].pooled if task.pooled else sources[key].tokens
                for key in task.reads
            ]
            predictions[name] = self.heads[name](
                read[0] if len(read) == 1 else torch.cat(read, -1)
            )
        return Output(
            predictions=predictions,
            features=features,
            fused=fused.features,
            shared=shared.features[self.sharing.tasks[0]]
            if self.sharing.one_trunk
            else fused.features.tokens,
            task_features=shared.features,
            weights={
                **_under("fusion", fused.weights),
                **_under("sharing", shared.weights),
            },
            penalties={"sharing": shared.penalty}
            if isinstance(shared.penalty, Tensor)
            else {},
        )

    def shared_parameters(self) -> list[nn.Parameter]:
        """What more than one task may use: encoders, fusion and the shared part of the
        sharing."""
        own = {
            id(p)
            for task in self.sharing.tasks
            for p in self.sharing.task_parameters(task)
        }
        parts: Iterator[nn.Parameter] = chain.from_iterable(
            part.parameters() for part in (self.encoders, self.fusion, self.sharing)
        )
        return [p for p in parts if id(p) not in own]

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """The parameters of one task alone: its head and its part of the sharing."""
        if name not in self.tasks:
            raise KeyError(f"unknown task {name!r}; the model has {sorted(self.tasks)}")
        own = self.sharing.task_parameters(name) if name in self.sharing.tasks else []
        return [*own, *self.heads[name].parameters()]


class DecisionFusion(TaskModel):
    r"""Late fusion: one model per modality, whose predictions are combined.

    `"mean"`: the mean of the probabilities (of the values, in regression). `"product"`:
    the product of the probabilities, renormalised; for regression that of Gaussians of
    equal variance, which is the mean. These are the sum and the product rule of Kittler
    et al. (1998); the product is Bayes' rule where the modalities are independent given
    the class and the classes equally frequent. `"learned"`: a mean with one learned
    weight per task and modality, $w = \mathrm{softmax}(a_t)$. Absent modalities are
    left out and the other weights renormalised (Baltrušaitis et al., 2019).

    Args:
        models: modality → model that reads this modality alone; all with the same
            tasks.
        combine: how.

    Shapes: predictions as the models give them; classification gives log-probabilities
    (for a product up to a constant), which are logits too. Where learned,
    `weights["decision/weights"]` is `[T, M]`, in order of tasks and of modalities. What
    the model of a modality m itself has to show stands under `decision/m`:
    `weights["decision/m/sharing/gates"]`, its penalty under `decision/m/sharing`.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        combine: Literal["mean", "product", "learned"] = "mean",
    ) -> None:
        super().__init__()
        if combine not in ("mean", "product", "learned"):
            raise ValueError(
                f"combine is 'mean', 'product' or 'learned', got {combine!r}"
            )
        if not models:
            raise ValueError("DecisionFusion needs at least one model, got none")
        models = dict(sorted(models.items()))
        self.tasks = next(iter(models.values())).tasks
        for name, model in models.items():
            if set(model.encoders) != {name}:
                raise ValueError(
                    f"the model for {name!r} has to read it alone, but reads "
                    f"{sorted(model.encoders)}"
                )
            if set(model.tasks) != set(self.tasks):
                raise ValueError(
                    f"the models' tasks differ: {sorted(self.tasks)} and "
                    f"{sorted(model.tasks)}"
                )
        self.models = nn.ModuleDict(models)
        self.combine = combine
        if combine == "learned":
            self.scores = nn.Parameter(torch.zeros(len(self.tasks), len(models)))

    @property
    def modalities(self) -> list[str]:
        return sorted(self.models)

    def forward(self, batch: Batch) -> Output:
        check_presence(self.models, _present(batch, self.models))
        # Each model sees its modality as present: what it says of zeros is dropped in
        # the combination.
        outputs = [
            model(
                Batch.unchecked(
                    {**batch.inputs, name: _inputs(batch, name)},
                    batch.targets,
                    {},
                    batch.lengths,
                )
            )
            for name, model in self.models.items()
        ]
        present = torch.stack([batch.mask(name) for name in self.models])
        predictions = {}
        for i, (name, task) in enumerate(self.tasks.items()):
            log_weights = None
            if self.combine != "product":
                scores = (
                    self.scores[i].unsqueeze(1)
                    if self.combine == "learned"
                    else torch.zeros((), device=present.device)
                )
                log_weights = torch.where(present, scores, -torch.inf).log_softmax(0)
            stacked = torch.stack([output.predictions[name] for output in outputs])
            predictions[name] = task.combine(stacked, present, log_weights)
        weights, penalties, features = {}, {}, {}
        if self.combine == "learned":
            weights["decision/weights"] = self.scores.softmax(1)
        for name, output in zip(self.models, outputs, strict=True):
            weights |= _under(f"decision/{name}", output.weights)
            penalties |= _under(f"decision/{name}", output.penalties)
            features[name] = output.features[name]
        return Output(
            predictions,
            features=features,
            weights=weights,
            penalties=penalties,
            batch=batch,
        )

    def shared_parameters(self) -> list[nn.Parameter]:
        """The parameters of all models that more than one task may use."""
        return [p for model in self.models.values() for p in model.shared_parameters()]

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """The parameters of one task alone, of all models."""
        return [
            p for model in self.models.values() for p in model.task_parameters(name)
        ]
