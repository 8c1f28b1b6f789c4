"""Training and evaluation: one loop for every model, task and balancer."""

from __future__ import annotations

import atexit
import copy
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from operator import length_hint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mtmm_lib.balancing import Balancer, StaticWeights
from mtmm_lib.batch import Batch
from mtmm_lib.model import Output

if TYPE_CHECKING:
    import pandas as pd

Losses = dict[str, float]

#: Samples per forward pass where nothing is learned: large enough to be fast, small
#: enough for memory.
CHUNK = 512


class TrainingError(RuntimeError):
    """Training cannot go on: a loss is not finite, or no batch has a label."""


@dataclass
class History:
    """What happened in training, one entry of every list per epoch.

    Args:
        train_loss: task → mean loss over the epoch's steps in which the task had a
            label.
        valid_loss: task → mean loss over the validation samples that have its label.
        valid: task → metric over the validation samples that have its label.
        weights: task → mean weight that the balancer gave its loss.
        steps: steps that moved the parameters.
        seconds: wall-clock time, validation included.
        best_epoch: the epoch whose weights were restored (the first is 0); `None`
            without validation.
    """

    train_loss: list[Losses] = field(default_factory=list)
    valid_loss: list[Losses] = field(default_factory=list)
    valid: list[Losses] = field(default_factory=list)
    weights: list[Losses] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None

    def __len__(self) -> int:
        return len(self.steps)

    def frame(self) -> pd.DataFrame:
        """One row per epoch; columns `steps`, `seconds`, and as `train_loss.digit` what
        a task has."""
        import pandas as pd

        rows = [
            {"steps": self.steps[i], "seconds": self.seconds[i]}
            | {
                f"{group}.{task}": value
                for group in ("train_loss", "valid_loss", "valid", "weights")
                for task, value in (
                    getattr(self, group)[i] if getattr(self, group) else {}
                ).items()
            }
            for i in range(len(self))
        ]
        return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="epoch"))


def fit(
    model: nn.Module,
    train: Batch | Iterable[Batch],
    *,
    valid: Batch | Iterable[Batch] | None = None,
    balancer: Balancer | None = None,
    epochs: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    optimizer: torch.optim.Optimizer
    | Callable[..., torch.optim.Optimizer]
    | None = None,
    device: torch.device | str = "auto",
    precision: Literal["auto", "float32", "bf16"] = "auto",
    compile: bool = False,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> History:
    r"""Trains a model in place.

    Each epoch visits the samples once, in an order that follows from `(seed, epoch)`
    alone. A step is forward pass → the tasks' losses → the balancer's backward pass →
    the optimizer's step; a task without a label in the batch is left out, and a batch
    without any label takes no step. The tasks are told the progress in [0, 1] before
    each step. The model comes back in the mode and on the device that it came in; the
    caller's random state is left alone, and the weights that the model starts from are
    the caller's.

    Several processes (started by `torchrun`) share each batch and give the result of
    one process to rounding: each takes its part of the same permutation, a task's loss
    is divided by the number of its labels in the whole batch, and gradients are added
    up. Every process needs the same data.

    Args:
        model: a `Model` or `DecisionFusion`.
        train: a `Batch` with all samples, which is kept on the device and sliced there;
            or a `DataLoader` (or another iterable that can be gone through again each
            epoch) of `Batch`es.
        valid: likewise. It is evaluated after each epoch, and in the end the weights of
            the epoch with the lowest validation loss, averaged over the supervised
            tasks that have labels, are restored. Where no task is supervised, nothing
            can be chosen by, and the last weights stay.
        balancer: turns the losses into one update; by default their plain sum.
        epochs: passes over the data; 0 leaves the model as it is.
        batch_size: samples per step over all processes; a `DataLoader` has its own.
        lr, weight_decay: learning rate and decoupled weight decay.
        optimizer: called as `optimizer(parameters, lr=lr, weight_decay=weight_decay)`,
            as in `torch.optim.SGD`; or a finished optimizer, whose own settings hold.
            By default AdamW (Loshchilov & Hutter, 2019) in PyTorch's fused form, with
            the decay on all parameters: its steps hardly depend on the overall scale of
            the loss, which differs so much between tasks and balancers.
        device: `"auto"`: CUDA where there is one, otherwise the CPU.
        precision: `"bf16"` computes forward passes in bfloat16 where that is safe
            (autocast), with weights in float32. `"auto"`: bf16 on CUDA devices that
            support it, otherwise float32.
        compile: compile the forward pass with `torch.compile`.
        seed: of the order of the samples and of whatever the forward pass draws,
            dropout say.
        checkpoint: a file that is written after each epoch, never half, and from which
            an interrupted run goes on; the end result is the same bit for bit (on the
            CPU, for a `train` in memory). A finished run returns at once.
        progress: show a bar of the epochs.

    Returns:
        the `History`.

    Raises:
        TrainingError: when a loss, or a gradient that a balancer looks at, is not
            finite (named: the task, the step), or an epoch has no label at all.
        ValueError: for settings out of range, data without samples, a validation set
            without a label of any supervised task, a checkpoint that cannot be read or
            belongs to another configuration.
    """
    if epochs < 0 or batch_size < 1:
        raise ValueError(
            f"expected epochs >= 0 and batch_size >= 1, got {epochs} and {batch_size}"
        )
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameter to train")
    place = _Place(device, precision)
    balancer = StaticWeights() if balancer is None else balancer
    home = parameters[0].device
    with modes_kept(model), place.seeded(), _kept_buffers(compile):
        try:
            model.to(place.device)
            train, valid = _ready(train, "train", place), _ready(valid, "valid", place)
            if valid is not None:
                check_selection(model, valid)
            place.same_everywhere(model)
            if optimizer is None:
                optimizer = torch.optim.AdamW(
                    parameters, lr=lr, weight_decay=weight_decay, fused=True
                )
            elif not isinstance(optimizer, torch.optim.Optimizer):
                optimizer = optimizer(parameters, lr=lr, weight_decay=weight_decay)
            run = _Run(
                model,
                train,
                valid,
                balancer,
                optimizer,
                place,
                epochs,
                batch_size,
                seed,
            )
            file = None
            if checkpoint is not None:
                settings = {
                    "epochs": epochs,
                    "batch_size": batch_size,
                    "seed": seed,
                    "compile": compile,
                }
                file = _Checkpoint(checkpoint, run, settings)
                file.load()
            forward = torch.compile(model) if compile else model
            for _ in _bar(
                range(len(run.history), epochs), epochs, progress and place.rank == 0
            ):
                run.epoch(forward)
                if file is not None and place.rank == 0:
                    file.save()
            run.restore_best()
        finally:
            model.to(home)
            for p in parameters:
                p.grad = None
    return run.history


def evaluate(model: nn.Module, data: Batch | Iterable[Batch]) -> dict[str, float]:
    """Each task's metric over all samples that have its label.

    The predictions of all samples are collected first, so that metrics that are no
    averages are exact.

    Args:
        model: a `Model` or `DecisionFusion`; it is evaluated where it is.
        data: a `Batch` with all samples, or an iterable of `Batch`es.

    Returns:
        task → metric, NaN for a task without a label.
    """
    device = next(iter(model.parameters()), torch.empty(0)).device
    with modes_kept(model):
        return _measure(model, data, device)[1]


@dataclass
class _Run:
    """The state of one training run and what it does in an epoch."""

    model: nn.Module
    train: Batch | Iterable[Batch]
    valid: Batch | Iterable[Batch] | None
    balancer: Balancer
    optimizer: torch.optim.Optimizer
    place: _Place
    epochs: int
    batch_size: int
    seed: int
    history: History = field(default_factory=History)
    best: dict[str, Any] | None = None

    def epoch(self, forward: Callable[[Batch], Output]) -> None:
        """One pass over the data, then validation."""
        start, place, index = time.perf_counter(), self.place, len(self.history)
        self.model.train()
        log = _Log(
            index,
            sum(self.history.steps),
            every=1 if place.device.type == "cpu" else 50,
        )
        steps = length_hint(self.train, 0)  # 0 for an iterable that cannot tell
        if isinstance(self.train, Batch):
            steps = math.ceil(steps / self.batch_size)
        place.seed(self.seed, index)
        for i, (batch, own) in enumerate(self._batches(index)):
            # from here on each process draws for itself: their samples differ
            if i == 0:
                place.seed(self.seed, index, place.rank)
            done = (index + (i / steps if steps else 0)) / self.epochs
            for task in self.model.tasks.values():
                task.progress = done
            self._step(forward, batch, own, log)
        if not log.steps:
            raise TrainingError(
                f"no batch of epoch {index} has a label for any of the tasks "
                f"{sorted(self.model.tasks)}"
            )
        log.flush()
        losses = log.means(log.losses)
        if hasattr(self.balancer, "after_epoch"):
            self.balancer.after_epoch(losses)
        self.history.train_loss.append(losses)
        self.history.weights.append(log.means(log.weights))
        self.history.steps.append(log.steps)
        if self.valid is not None:
            self._validate(index)
        self.history.seconds.append(time.perf_counter() - start)

    def _batches(self, epoch: int) -> Iterator[tuple[Batch, bool]]:
        """This process's part of each batch, and whether it counts."""
        if not isinstance(self.train, Batch):
            for batch in self.train:
                if len(batch):
                    part, own = self.place.part(batch)
                    yield part.to(self.place.device), own
            return
        order = permutation(len(self.train), self.seed, epoch).to(self.place.device)
        for chosen in order.split(self.batch_size):
            part, own = self.place.part(chosen)
            yield self.train[part], own

    def _step(
        self, forward: Callable[[Batch], Output], batch: Batch, own: bool, log: _Log
    ) -> None:
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                p.grad = None

        def compute() -> tuple[dict[str, Tensor], Output]:
            with self.place.autocast():
                output = forward(batch)
                losses = self.model.losses(output, batch)
            if self.place.world > 1:
                return self.place.whole(losses, output, batch, own, self.model.tasks)
            return losses, output

        losses, output = compute()
        if not losses:
            return
        log.add(losses)
        try:
            weights = self.balancer.backward(losses, output, self.model)
        except FloatingPointError as error:
            log.flush()  # says so if a loss is to blame
            raise TrainingError(
                f"at step {log.step} (epoch {log.epoch}) {error}"
            ) from error
        log.add_weights(weights)
        if self.place.world > 1:
            self.place.sum_gradients(self.optimizer)
        self.optimizer.step()
        if hasattr(self.balancer, "after_step"):
            with torch.no_grad():
                self.balancer.after_step(lambda: compute()[0])

    def _validate(self, epoch: int) -> None:
        with self.place.autocast():
            measured = _measure(self.model, self.valid, self.place.device)
        losses, metrics = self.place.from_first(measured)
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the validation loss of task {name!r} is {loss} after epoch "
                    f"{epoch}"
                )
        self.history.valid_loss.append(losses)
        self.history.valid.append(metrics)
        chosen = [
            loss for name, loss in losses.items() if self.model.tasks[name].supervised
        ]
        if chosen:
            mean = math.fsum(chosen) / len(chosen)
            if self.best is None or mean < self.best["loss"]:
                self.best = {
                    "loss": mean,
                    "model": copy.deepcopy(self.model.state_dict()),
                }
                self.history.best_epoch = epoch

    def restore_best(self) -> None:
        """Ends the run: the best weights, where there was a choice, and schedules at
        their end."""
        if self.best is not None:
            self.model.load_state_dict(self.best["model"])
        if self.epochs:
            for task in self.model.tasks.values():
                task.progress = 1.0


class _Log:
    """Losses and weights of an epoch; looks at the numbers `every` so many steps, since
    looking waits."""

    def __init__(self, epoch: int, before: int, every: int) -> None:
        self.epoch, self.before, self.every = epoch, before, every
        self.steps = 0
        self.pending: list[tuple[int, tuple[str, ...], Tensor]] = []
        self.losses: dict[str, tuple[float, int]] = {}
        self.weights: dict[str, tuple[float, int]] = {}

    @property
    def step(self) -> int:
        """The number of the present step, counted over all epochs."""
        return self.before + self.steps

    def add(self, losses: dict[str, Tensor]) -> None:
        self.steps += 1
        values = torch.stack([loss.detach() for loss in losses.values()])
        self.pending.append((self.step, tuple(losses), values))
        if len(self.pending) >= self.every:
            self.flush()

    def flush(self) -> None:
        for step, names, values in self.pending:
            for name, value in zip(names, values.tolist(), strict=True):
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the loss of task {name!r} is {value} at step {step} (epoch "
                        f"{self.epoch}); look for "
                        "such values in its inputs and targets, or take a smaller "
                        "learning rate"
                    )
                total, count = self.losses.get(name, (0.0, 0))
                self.losses[name] = total + value, count + 1
        self.pending.clear()

    def add_weights(self, weights: dict[str, float]) -> None:
        for name, value in weights.items():
            total, count = self.weights.get(name, (0.0, 0))
            self.weights[name] = total + value, count + 1

    @staticmethod
    def means(sums: dict[str, tuple[float, int]]) -> Losses:
        return {name: float(total / count) for name, (total, count) in sums.items()}


def _close_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class _Place:
    """Where the work is done: the device, the precision, and which of several processes
    this is."""

    def __init__(self, device: torch.device | str, precision: str) -> None:
        if precision not in ("auto", "float32", "bf16"):
            raise ValueError(
                f"precision is 'auto', 'float32' or 'bf16', got {precision!r}"
            )
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.rank, self.world = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            if not torch.distributed.is_initialized():
                # Who opens the group closes it: its threads could abort an interpreter
                # that ends before them.
                atexit.register(_close_group)
            state = PartialState(cpu=self.device.type == "cpu")
            self.rank, self.world, self.device = (
                state.process_index,
                state.num_processes,
                state.device,
            )
        cuda = self.device.type == "cuda"
        self.precision = precision
        if precision == "auto":
            self.precision = (
                "bf16" if cuda and torch.cuda.is_bf16_supported() else "float32"
            )

    def autocast(self):  # noqa: ANN201
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def seeded(self):  # noqa: ANN201
        """Within, random numbers may be drawn and seeded; afterwards the state is what
        it was."""
        return torch.random.fork_rng(
            [self.device] if self.device.type == "cuda" else []
        )

    def seed(self, *key: int) -> None:
        # torch.manual_seed would also reseed devices that are not in use, and nothing
        # would restore them.
        torch.default_generator.manual_seed(derive_seed(*key))
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(derive_seed(*key))

    def part(self, whole: Batch | Tensor) -> tuple[Batch | Tensor, bool]:
        """This process's part of a batch or of its indices.

        Where there is none, the first sample stands in, so that every process runs the
        same code, and the second value is false: it must not count.
        """
        if self.world == 1:
            return whole, True
        if self.rank < len(whole):
            return whole[self.rank :: self.world], True
        return whole[:1], False

    def same_everywhere(self, model: nn.Module) -> None:
        """Gives every process the first one's weights."""
        if self.world > 1:
            from accelerate.utils import broadcast

            with torch.no_grad():
                for value in model.state_dict().values():
                    value.copy_(broadcast(value))

    def from_first(self, value: Any) -> Any:
        """The first process's value, on all of them."""
        if self.world > 1:
            from accelerate.utils import broadcast_object_list

            value = broadcast_object_list([value])[0]
        return value

    def sum(self, value: Tensor) -> Tensor:
        from accelerate.utils import reduce

        return reduce(value, "sum")

    def whole(
        self,
        losses: dict[str, Tensor],
        output: Output,
        batch: Batch,
        own: bool,
        tasks: dict[str, Any],
    ) -> tuple[dict[str, Tensor], Output]:
        r"""Losses and penalties with the whole batch's values and this process's share
        of the gradients.

        With $n_r$ labels here and n overall, the mean over all labels is $\ell = \sum_r
        \frac{n_r}{n}\ell_r$, so this process's share is $\frac{n_r}{n}\ell_r$.
        Penalties are shared out by samples.
        """
        # Requires a gradient, so that backward works where this process has no label at
        # all.
        absent = torch.zeros((), device=self.device, requires_grad=True)
        terms = [losses.get(name, absent) for name in tasks] + list(
            output.penalties.values()
        )
        counts = [task.labelled(batch).sum() for task in tasks.values()]
        counts += [torch.tensor(len(batch), device=self.device)] * len(output.penalties)
        count, values = (
            torch.stack(counts).float() * own,
            torch.stack([term.detach() for term in terms]),
        )
        total, labels = self.sum(torch.stack([values.float() * count, count]))
        part, mean = count / labels.clamp(min=1), total / labels.clamp(min=1)
        # One by one: through one stacked tensor, each loss would give the others'
        # parameters zero gradients.
        shares = [term * part[i] for i, term in enumerate(terms)]
        merged = [share + (mean[i] - share).detach() for i, share in enumerate(shares)]
        found = {name: merged[i] for i, name in enumerate(tasks) if labels[i] > 0}
        penalties = dict(zip(output.penalties, merged[len(tasks) :], strict=True))
        return found, replace(output, penalties=penalties)

    def sum_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Adds up the gradients; a parameter that no process has a gradient for keeps
        none."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        flat = torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
                for p in parameters
            ]
            + [
                torch.tensor(
                    [p.grad is not None for p in parameters], device=self.device
                )
            ]
        )
        flat = self.sum(flat)
        *gradients, reached = flat.split(
            [p.numel() for p in parameters] + [len(parameters)]
        )
        for p, gradient, any_process in zip(
            parameters, gradients, reached.tolist(), strict=True
        ):
            p.grad = gradient.view_as(p) if any_process else None


class _Checkpoint:
    """A file that holds everything a run needs to go on, and a fingerprint of what was
    run."""

    def __init__(
        self, path: str | os.PathLike[str], run: _Run, settings: dict[str, Any]
    ) -> None:
        self.path, self.run = Path(path), run
        self.fingerprint = _fingerprint(run, settings)

    def save(self) -> None:
        """Writes the file as a whole: another file beside it is written out, then
        renamed."""
        run = self.run
        state = {
            "fingerprint": self.fingerprint,
            "history": asdict(run.history),
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "balancer": run.balancer.state_dict()
            if hasattr(run.balancer, "state_dict")
            else None,
            "best": run.best,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        with open(part, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path)

    def load(self) -> None:
        """Puts the run where the file left it; nothing happens when there is no file.

        Raises:
            ValueError: when the file cannot be read or belongs to another
                configuration.
        """
        run = self.run
        state = run.place.from_first(self._read() if run.place.rank == 0 else None)
        if state is None:
            return
        was, now = state["fingerprint"], self.fingerprint
        # Options that one version of PyTorch has and another has not are no difference.
        differs = [
            f"{k}: {was[k]} then, {now[k]} now"
            for k in now
            if k in was and was[k] != now[k]
        ]
        if differs:
            raise ValueError(
                f"the checkpoint {self.path} belongs to another configuration "
                f"({'; '.join(differs)}); "
                "give another file name, or delete the file to start anew"
            )
        run.history, run.best = History(**state["history"]), state["best"]
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        if state["balancer"] is not None:
            run.balancer.load_state_dict(state["balancer"])

    def _read(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            # another file that torch can load has none
            (
                state["fingerprint"],
                state["history"],
            )
            return state
        except (
            Exception
        ) as error:  # torch raises many kinds for a file that is not what it should be
            raise ValueError(
                f"{self.path} is no checkpoint of fit, or a damaged one "
                f"({type(error).__name__}); "
                "give another file name, or delete the file to start anew"
            ) from error


def _fingerprint(run: _Run, settings: dict[str, Any]) -> dict[str, str]:
    """Setting → value, by which a checkpoint knows its configuration."""
    shapes = [
        (key, tuple(value.shape)) for key, value in run.model.state_dict().items()
    ]
    groups = {
        key if i == 0 else f"{key} of group {i}": str(value)
        for i, group in enumerate(run.optimizer.param_groups)
        for key, value in group.items()
        if key != "params"
    }
    # the default shows a memory address
    named = type(run.balancer).__repr__ is not object.__repr__
    return {
        **{key: str(value) for key, value in settings.items()},
        **groups,
        "precision": run.place.precision,
        "optimizer": type(run.optimizer).__name__,
        "balancer": repr(run.balancer) if named else type(run.balancer).__name__,
        "tasks": str(list(run.model.tasks.values())),
        "model": _digest([f"{run.model!r} {shapes}".encode()]),
        "train": _data_digest(run.train),
        "valid": _data_digest(run.valid),
    }


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _data_digest(data: Batch | Iterable[Batch] | None) -> str:
    """A name for the data: of its contents in memory, of its kind and length
    otherwise."""
    if data is None:
        return "none"
    if not isinstance(data, Batch):
        return f"{type(data).__name__} of length {length_hint(data, 0)}"
    groups = ("inputs", "targets", "present", "lengths")
    tensors = [
        (g, k, v.cpu().contiguous())
        for g in groups
        for k, v in sorted(getattr(data, g).items())
    ]
    names = [
        (group, key, str(value.dtype), tuple(value.shape))
        for group, key, value in tensors
    ]
    contents = [value.flatten().view(torch.uint8).numpy() for *_, value in tensors]
    return f"{len(data)} samples, {_digest([str(names).encode(), *contents])}"


def _measure(
    model: nn.Module, data: Batch | Iterable[Batch], device: torch.device
) -> tuple[Losses, dict[str, float]]:
    """Each task's mean loss over its labels (tasks without one left out), and its
    metric."""
    model.eval()
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    predictions: list[dict[str, Tensor]] = []
    seen: list[Batch] = []
    with torch.no_grad():
        for batch in chunks(data):
            batch = batch.to(device)
            output = model(batch)
            for name, loss in model.losses(output, batch).items():
                count = model.tasks[name].labelled(batch).sum()
                sums[name] = sums.get(name, 0) + loss.double() * count
                counts[name] = counts.get(name, 0) + count
            predictions.append(output.predictions)
            # Who is present stays; the inputs, by far the largest part, make room for
            # that.
            there = {name: batch.mask(name) for name in batch.inputs}
            seen.append(
                Batch(there, batch.targets, batch.present) if batch.targets else batch
            )
        if not seen:
            raise ValueError("the data to evaluate on has no samples")
        merged = Output(
            {name: torch.cat([p[name] for p in predictions]) for name in predictions[0]}
        )
        targets = Batch.cat(seen)
        metrics = {
            name: float(task.metric(merged, targets))
            for name, task in model.tasks.items()
        }
    return {name: float(sums[name] / counts[name]) for name in sums}, metrics


def chunks(data: Batch | Iterable[Batch]) -> Iterator[Batch]:
    """Batches of a size that one forward pass takes at once."""
    if isinstance(data, Batch):
        for start in range(0, len(data), CHUNK):
            yield data[start : start + CHUNK]
    else:
        yield from (batch for batch in data if len(batch))


def _ready(data: Any, name: str, place: _Place) -> Any:
    """The data on the device, if it is in memory, after a check of what it is."""
    if isinstance(data, Batch):
        if not len(data):
            raise ValueError(f"{name} has no samples")
        return data.to(place.device)
    if data is not None and (
        not isinstance(data, Iterable) or isinstance(data, Iterator)
    ):
        raise ValueError(
            f"{name} is a Batch, or an iterable of Batches that can be gone through "
            "once per epoch, "
            f"such as a DataLoader or a list; got {type(data).__name__}"
        )
    return data


def check_selection(model: nn.Module, valid: Batch | Iterable[Batch]) -> None:
    """Raises `ValueError` when there are supervised tasks but `valid` has a label of
    none of them."""
    tasks = [task for task in model.tasks.values() if task.supervised]
    if tasks and not any(
        task.labelled(batch).any() for batch in chunks(valid) for task in tasks
    ):
        raise ValueError(
            "valid has no label for any of the supervised tasks "
            f"{[t.name for t in tasks]}, so that no epoch "
            "can be chosen by it; leave valid out"
        )


def _kept_buffers(compiled: bool) -> AbstractContextManager[None]:
    """A compiled backward pass may write over what it has read, unless it is told that
    others will follow: a gradient balancer goes back through one forward pass once for
    each task."""
    if not compiled:
        return nullcontext()
    from torch._functorch import config

    return config.patch(donated_buffer=False)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """A context. Afterwards every part of the model is in training or evaluation mode
    as before."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def permutation(size: int, seed: int, epoch: int) -> Tensor:
    """The order, int `[size]`, in which an epoch of a run with this seed visits its
    samples."""
    return torch.randperm(
        size, generator=torch.Generator().manual_seed(derive_seed(seed, epoch))
    )


def derive_seed(*key: int) -> int:
    """One seed from several integers, such that neighbouring keys give unrelated
    streams."""
    return int(_digest([repr(key).encode()]), 16)


def _bar(rounds: range, total: int, show: bool) -> Iterable[int]:
    if not show:
        return rounds
    from tqdm.auto import tqdm

    # `disable=None` hides the bar where the output is a file; it goes away when done.
    return tqdm(
        rounds,
        initial=rounds.start,
        total=total,
        desc="epochs",
        leave=False,
        disable=None,
    )
