r"""The whole mapping: `Model` = heads ∘ sharing ∘ fusion ∘ encoders; and
`DecisionFusion`, late fusion.

Shapes: B batch, L tokens, D width, M modalities.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Literal, cast

import torch
from torch import Tensor, nn

from mtmm_lib.batch import (
    Batch,
    Features,
    Fused,
    Output,
    Shared,
    row_mask,
    usable,
)
from mtmm_lib.fusion import Fusion
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
            found = task.labelled(batch)
            if not isinstance(found, Tensor) or found.shape != (len(batch),):
                got = (
                    list(found.shape)
                    if isinstance(found, Tensor)
                    else type(found).__name__
                )
                raise TypeError(
                    f"labelled of {task!r} has to return a bool tensor "
                    f"[{len(batch)}], whether each sample has a label, got {got}"
                )

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Each task's loss, a scalar; a task without a single label in the batch is
        left out."""
        losses = {}
        for name, task in self.tasks.items():
            if name in batch.complete or task.labelled(batch).any():
                view = task.view(batch)
                loss = task.loss(output if view is None else self(view), batch)
                if not isinstance(loss, Tensor) or loss.dim():
                    got = list(loss.shape) if isinstance(loss, Tensor) else loss
                    raise TypeError(
                        f"the loss of {task!r} has to be a scalar tensor, got {got!r}"
                    )
                losses[name] = loss
        return losses

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """The parameters of one task alone: its head and its part of the sharing."""
        raise NotImplementedError

    def shared_parameters(self) -> list[nn.Parameter]:
        """All other parameters, which more than one task may use: encoders, fusion, the
        shared part of the sharing, and the learned weights of decisions."""
        own = {id(p) for task in self.tasks for p in self.task_parameters(task)}
        return [p for p in self.parameters() if id(p) not in own]


def _given(batch: Batch, name: str) -> Tensor:
    """A modality's input as it is."""
    if name not in batch.inputs:
        raise KeyError(
            f"the model reads modality {name!r}, but the batch has "
            f"{sorted(batch.inputs)}"
        )
    return batch.inputs[name]


def _present(batch: Batch, modalities: Iterable[str]) -> dict[str, Tensor]:
    """The batch's `present` for these modalities."""
    return {name: batch.present[name] for name in modalities if name in batch.present}


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


_FAILURES = (IndexError, RuntimeError, TypeError, ValueError)


def _encode(name: str, encoder: nn.Module, dim: int, batch: Batch) -> Features:
    """A modality's features; what goes wrong in its encoder names the modality."""
    x, lengths = _inputs(batch, name), batch.lengths.get(name)
    try:
        z = encoder(x) if lengths is None else encoder(x, lengths)
    except _FAILURES as error:
        if type(error) not in _FAILURES:
            raise  # out of memory, and what compilers say to themselves
        kind = type(encoder).__name__
        weights = (p.dtype for p in encoder.parameters() if p.is_floating_point())
        own = next(weights, x.dtype)
        if x.dtype != own and "type" in str(error):
            advice = (
                "convert the input, as Batch.from_arrays does, or the model"
                if x.is_floating_point()
                else "whole numbers are taken for ids; make measurements real, by "
                ".float() of a tensor or .astype('float32') of an array"
            )
            raise TypeError(
                f"modality {name!r}: the input is {x.dtype}, but the weights of its "
                f"encoder {kind} are {own}; {advice}. It said: {error}"
            ) from error
        took = "(x)" if lengths is None else "(x, lengths), since the batch has lengths"
        raise type(error)(
            f"modality {name!r}: its encoder was called as {kind}{took}, with x "
            f"{x.dtype} of shape {list(x.shape)}: {error}"
        ) from error
    if not isinstance(z, Features):
        kind = type(encoder).__name__
        raise TypeError(
            f"modality {name!r}: an encoder returns Features, but {kind} returned a "
            f"{type(z).__name__}; return Features.vector(z) for z of shape [B, D], "
            f"Features(z) for [B, L, D], or wrap it: ModuleEncoder({kind}(…), dim)"
        )
    _expect_width(encoder, z, dim, "modality", name)
    return z


def _expect_width(
    part: nn.Module, z: Features, dim: int, kind: str = "", name: str = ""
) -> None:
    """Refuses tokens of another width than the part that returned them says."""
    if not z.is_wide(dim):
        raise ValueError(
            f"{f'{kind} {name!r}: ' if kind else ''}{type(part).__name__} says dim = "
            f"{dim}, so its tokens should be [B, L, {dim}], but it returned "
            f"{list(z.tokens.shape)}"
        )


def _expect_part(where: str, part: object, kind: type, example: str) -> None:
    """Refuses what is no object of this kind: its class, most often."""
    if not isinstance(part, kind):
        what = f"the class {part.__name__}" if isinstance(part, type) else repr(part)
        raise TypeError(
            f"{where}: expected a {kind.__name__} such as {example}, got {what}"
        )


def _width(name: str, encoder: nn.Module) -> int:
    """How wide an encoder says that its tokens are."""
    _expect_part(f"modality {name!r}", encoder, nn.Module, "MLPEncoder(5, 16)")
    dim = getattr(encoder, "dim", None)
    if not isinstance(dim, Integral):
        kind = type(encoder).__name__
        raise ValueError(
            f"modality {name!r}: an encoder says by its attribute dim, an int, how "
            f"wide its tokens are, but {kind} has dim = {dim!r}; set it, or wrap the "
            f"module: ModuleEncoder({kind}(…), dim)"
        )
    return int(dim)


class Model(TaskModel):
    r"""One composition of mappings.

    $z_m = \mathrm{encoder}_m(x_m)$, $z = \mathrm{fusion}(z_1, \dots, z_M)$,
    $h_t = \mathrm{sharing}_t(z)$, $\hat y_t = \mathrm{head}_t(h_t)$.

    Args:
        encoders: modality → encoder; a module with an attribute `dim`. Two modalities
            may have the same one.
        fusion: fusion over the encoders' modalities.
        sharing: sharing over the tasks that read it.
        tasks: the tasks; each adds its head.

    Raises:
        TypeError: for a part that is none, as a class in place of an object.
        ValueError: when the parts do not fit together, or for a name that is taken.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: Fusion,
        sharing: Sharing,
        tasks: Sequence[Task],
    ) -> None:
        super().__init__()
        widths = {
            usable(name, "modality"): _width(name, encoder)
            for name, encoder in encoders.items()
        }
        for task in tasks:
            _expect_part("tasks", task, Task, "Regression('age')")
        names = [task.name for task in tasks]
        _expect_part("fusion", fusion, Fusion, f"ConcatFusion({widths}, 32)")
        _expect_part("sharing", sharing, Sharing, f"HardSharing({names}, 32, 32)")
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
                f"a model needs at least one task and no name twice, got {names}"
            )
        sources = {"fused": fusion.dim, "shared": sharing.dim}
        if taken := sorted(widths.keys() & sources.keys()):
            raise ValueError(
                f"modalities {taken} are named like a stage that tasks may read; call "
                f"them otherwise, as in {taken[0] + '_input'!r}"
            )
        dims = {**widths, **sources}
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
        self.heads = nn.ModuleDict()
        for task in tasks:
            head = task.head(dims)
            _expect_part(f"the head of {task!r}", head, nn.Module, "nn.Linear(4, 1)")
            self.heads[task.name] = head

    @property
    def modalities(self) -> list[str]:
        return sorted(self.encoders)

    def forward(self, batch: Batch) -> Output:
        dims = self.fusion.dims
        features = {
            name: _encode(name, encoder, dims[name], batch)
            for name, encoder in self.encoders.items()
        }
        return self._from(features, _present(batch, features), batch)

    def from_features(
        self, features: dict[str, Features], present: Mapping[str, Tensor] | None = None
    ) -> Output:
        """Everything after the encoders: for those who have the features already, or
        others."""
        return self._from(features, present, None)

    def _from(
        self,
        features: dict[str, Features],
        present: Mapping[str, Tensor] | None,
        batch: Batch | None,
    ) -> Output:
        # Looked up once: a module finds its parts slowly, and this runs at every step.
        fusion, sharing, heads = self.fusion, self.sharing, self.heads
        fused = fusion(features, present)
        _expect_part("what the fusion returned", fused, Fused, "Fused(Features(z))")
        z = fused.features
        _expect_width(fusion, z, fusion.dim)
        as_vector = z.is_vector and sharing.takes_vectors
        shared = sharing(z.pooled if as_vector else z.tokens)
        _expect_part("what the sharing returned", shared, Shared, "Shared({'age': h})")
        # under hard sharing all tasks read one tensor, which is pooled once
        own = {
            h: Features(h.unsqueeze(1) if as_vector else h, z.valid)
            for h in dict.fromkeys(shared.features.values())
        }
        task_features = {name: own[h].tokens for name, h in shared.features.items()}
        sources = {**features, "fused": z}
        predictions = {}
        for name, task in self.tasks.items():
            if name in task_features:
                sources["shared"] = own[shared.features[name]]
                _expect_width(sharing, sources["shared"], sharing.dim, "task", name)
            read = [
                sources[key].pooled if task.pooled else sources[key].tokens
                for key in task.reads
            ]
            predictions[name] = heads[name](
                read[0] if len(read) == 1 else torch.cat(read, -1)
            )
        return Output(
            predictions=predictions,
            features=features,
            fused=z,
            shared=task_features[sharing.tasks[0]] if sharing.one_trunk else z.tokens,
            task_features=task_features,
            weights={
                **_under("fusion", fused.weights),
                **_under("sharing", shared.weights),
            },
            penalties={"sharing": shared.penalty}
            if isinstance(shared.penalty, Tensor)
            else {},
            batch=batch,
        )

    def task_parameters(self, name: str) -> list[nn.Parameter]:
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
        for name, model in models.items():
            _expect_part(f"modality {name!r}", model, Model, "Model(…)")
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
            for task, first in self.tasks.items():
                if type(model.tasks[task]) is not type(first):
                    raise ValueError(
                        f"task {task!r} differs between the models: {first!r}, and in "
                        f"that for {name!r} {model.tasks[task]!r}"
                    )
        self.models = nn.ModuleDict(models)
        self.combine = combine
        if combine == "learned":
            self.scores = nn.Parameter(torch.zeros(len(self.tasks), len(models)))

    @property
    def modalities(self) -> list[str]:
        return sorted(self.models)

    def forward(self, batch: Batch) -> Output:
        check_presence(self.modalities, _present(batch, self.modalities))
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
            each = [output.predictions[name] for output in outputs]
            if any(x.shape[1:] != each[0].shape[1:] for x in each):
                raise ValueError(
                    f"task {name!r}: the models for {self.modalities} predict in "
                    f"shapes {[list(x.shape) for x in each]}; give each the same task"
                )
            predictions[name] = task.combine(torch.stack(each), present, log_weights)
        weights: dict[str, Tensor] = {}
        penalties: dict[str, Tensor] = {}
        features = {}
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

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        models = [cast(Model, model) for model in self.models.values()]
        return [p for model in models for p in model.task_parameters(name)]
