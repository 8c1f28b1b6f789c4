"""A file from which a run goes on.

It holds the whole state of a run after an epoch (weights, the optimizer's moments, the
balancer's state, the history, the best weights so far) and a fingerprint of what was
run. Nothing else is needed: the order of the samples and every random number of an
epoch follow from the seed and the epoch's number, the learning rate and whatever else
follows a schedule from the progress, and the choice of the epoch and early stopping
from the history. So a run that was killed in epoch 7 starts again from the file written
after epoch 6, goes through epoch 7 from its beginning, and nobody can tell afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtmm_lib.batch import Batch
from mtmm_lib.replacing import beside, replacing
from mtmm_lib.tasks import Task
from mtmm_lib.training.checks import Data
from mtmm_lib.training.history import History
from mtmm_lib.training.run import Run
from mtmm_lib.training.seeds import digest

SIMPLE = (bool, int, float, complex, str, bytes)


class Checkpoint:
    """The file of a run. The first process reads and writes it for all.

    Raises:
        ValueError: when the file could not be written.
    """

    def __init__(self, path: str | os.PathLike[str], run: Run) -> None:
        self.path, self.run = Path(path), run
        if run.place.rank == 0:
            self._check_folder()
        self.fingerprint = _fingerprint(run)

    def _check_folder(self) -> None:
        """Finds out before training what would otherwise fail after the first epoch;
        what killed processes have left goes."""
        try:
            if self.path.is_dir():
                raise IsADirectoryError("it is a folder")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with beside(self.path):
                pass
        except OSError as error:
            raise ValueError(
                f"the checkpoint {self.path} cannot be written: {error}"
            ) from error

    def save(self) -> None:
        """Writes the file as a whole."""
        run = self.run
        if run.place.rank != 0:
            return
        state = {
            "fingerprint": self.fingerprint,
            "epochs": run.epochs,
            "stopped": run.stopped,
            "history": asdict(run.history),
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "balancer": run.balancer.state_dict(),
            "best": run.best,
        }
        with replacing(self.path) as part, open(part, "wb") as file:
            torch.save(state, file)

    def load(self) -> None:
        """Puts the run where the file left it; nothing happens when there is no file.

        Raises:
            ValueError: when the file cannot be read, belongs to another configuration,
                or has gone further than the run is to go.
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
                f"({'; '.join(differs)}); give another file name, or delete the file "
                "to start anew"
            )
        history = History(**state["history"])
        if run.epochs < len(history):
            raise ValueError(
                f"the checkpoint {self.path} has {len(history)} epochs behind it, more "
                f"than epochs={run.epochs}; a run can be made longer, not shorter"
            )
        run.history, run.best = history, state["best"]
        # A run that was stopped goes on where it is told to go further than before.
        run.stopped = state["stopped"] and run.epochs <= state["epochs"]
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.balancer.load_state_dict(state["balancer"])

    def _read(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            # another file that torch can load has none of these
            for key in ("fingerprint", "history", "epochs", "stopped"):
                state[key]
            return dict(state)
        # torch raises many kinds for a file that is not what it should be
        except Exception as error:
            raise ValueError(
                f"{self.path} is no checkpoint of fit, or a damaged one "
                f"({type(error).__name__}); give another file name, or delete the file "
                "to start anew"
            ) from error


def _fingerprint(run: Run) -> dict[str, str]:
    """Setting → value, by which a checkpoint knows its configuration. The number of
    epochs is none of them, so that a run can be extended."""
    modules = [(name, settings(module)) for name, module in run.model.named_modules()]
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
        "batch_size": str(run.batch_size),
        "seed": str(run.seed),
        "compile": str(run.compile),
        "clip": str(run.clip),
        "schedule": digest([repr(run.rates.course).encode()])
        if run.rates.course
        else "none",
        "select": str(settings(run.select)) if run.select else "by default",
        **groups,
        "precision": run.place.precision,
        "optimizer": type(run.optimizer).__name__,
        "balancer": repr(run.balancer) if named else type(run.balancer).__name__,
        "tasks": str(list(run.model.tasks.values())),
        **{
            f"settings of task {name!r}": digest([repr(settings(task)).encode()])
            for name, task in run.model.tasks.items()
        },
        "model": digest([f"{run.model!r} {shapes} {modules}".encode()]),
        "train": data_digest(run, run.train),
        "valid": data_digest(run, run.valid),
    }


def settings(value: Any) -> Any:
    """A value as something whose `repr` depends on contents alone, never on an address:
    numbers and strings as they are, tensors and arrays by a digest, functions by their
    names, a task by its class and all its attributes.

    Of other objects, modules among them, only those attributes count that are numbers
    or strings: a module's tensors and parts are known otherwise, and some keep what
    they last computed.

    """
    if value is None or isinstance(value, SIMPLE):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        value = torch.as_tensor(value)
    if isinstance(value, Tensor):
        return "tensor", _tensor_digest([("", "", value)])
    if isinstance(value, list | tuple):
        return [settings(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(repr(settings(item)) for item in value)
    if isinstance(value, Mapping):
        return [(repr(settings(key)), settings(item)) for key, item in value.items()]
    if isinstance(value, partial):
        return "partial", settings([value.func, value.args, value.keywords])
    if hasattr(value, "__qualname__"):  # a function or a class
        return f"{value.__module__}.{value.__qualname__}"
    attributes = dict(sorted(getattr(value, "__dict__", {}).items()))
    if not isinstance(value, Task):
        attributes = {
            name: item
            for name, item in attributes.items()
            if isinstance(item, SIMPLE) and name != "training" and name[0] != "_"
        }
    return f"{type(value).__module__}.{type(value).__qualname__}", settings(attributes)


def data_digest(run: Run, data: Data | None) -> str:
    """A name for the data: of their contents in memory; otherwise of their kind, their
    length and the first batch of the first epoch.

    What a loader draws by other random numbers than torch's (an augmentation by numpy,
    say) differs from one look to the next. The first batch then says nothing, and only
    kind and length count.
    """
    if data is None:
        return "none"
    if isinstance(data, Batch):
        return _batch_digest(data)
    looks = []
    for _ in range(2):
        run.place.seed(run.seed, 0)
        looks.append(_batch_digest(_first(data)))
    first = looks[0] if looks[0] == looks[1] else "drawn at random"
    kind = f"{type(data).__name__} of length {length_hint(data, 0)}"
    return f"{kind}, first batch: {first}"


def _first(data: Iterable[Batch]) -> Batch | None:
    return next(iter(data), None)


def _batch_digest(batch: Batch | None) -> str:
    if not isinstance(batch, Batch):  # what comes in its place is refused in training
        return "none"
    groups = ("inputs", "targets", "present", "lengths")
    tensors = [
        (group, key, value)
        for group in groups
        for key, value in sorted(getattr(batch, group).items())
    ]
    return f"{len(batch)} samples, {_tensor_digest(tensors)}"


def _tensor_digest(named: list[tuple[str, str, Tensor]]) -> str:
    names = [(*name, str(value.dtype), tuple(value.shape)) for *name, value in named]
    contents = [
        value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        for *_, value in named
    ]
    return digest([str(names).encode(), *contents])
