"""A file from which a run goes on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from operator import length_hint
from pathlib import Path
from typing import Any

import torch

from mtmm_lib.batch import Batch
from mtmm_lib.training.history import History
from mtmm_lib.training.run import Run
from mtmm_lib.training.seeds import digest


class Checkpoint:
    """A file that holds everything a run needs to go on, and a fingerprint of what was
    run."""

    def __init__(
        self, path: str | os.PathLike[str], run: Run, settings: dict[str, Any]
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
            "balancer": run.balancer.state_dict(),
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
                f"({'; '.join(differs)}); give another file name, or delete the file "
                "to start anew"
            )
        run.history, run.best = History(**state["history"]), state["best"]
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.balancer.load_state_dict(state["balancer"])

    def _read(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            # another file that torch can load has none
            _ = state["fingerprint"], state["history"]
            return state
        except Exception as error:
            # torch raises many kinds for a file that is not what it should be
            raise ValueError(
                f"{self.path} is no checkpoint of fit, or a damaged one "
                f"({type(error).__name__}); give another file name, or delete the file "
                "to start anew"
            ) from error


def _fingerprint(run: Run, settings: dict[str, Any]) -> dict[str, str]:
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
        "model": digest([f"{run.model!r} {shapes}".encode()]),
        "train": data_digest(run.train),
        "valid": data_digest(run.valid),
    }


def data_digest(data: Batch | Iterable[Batch] | None) -> str:
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
    return f"{len(data)} samples, {digest([str(names).encode(), *contents])}"
