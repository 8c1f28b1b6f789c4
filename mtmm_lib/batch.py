r"""Everything that flows through a model.

A `Batch` of inputs and targets goes in; `Features`, `Fused` and `Shared` are what the
stages return; an `Output` holds everything that a forward pass computed.

Shapes: B samples in a batch, L tokens, D width, M modalities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

#: The target of a sample whose class is not known.
MISSING_CLASS = -1

# Modalities and tasks are keys of these; what the containers themselves have or do
# cannot be a key.
_TAKEN = {*dir(nn.ModuleDict()), *dir(nn.ParameterDict())}


def usable(name: str, kind: str) -> str:
    """The name of a modality or a task, if torch can keep modules under it.

    Args:
        name: the name.
        kind: what it names, `"modality"` or `"task"`.

    Raises:
        ValueError: for what is no string, is empty, has a dot in it or is taken by
            torch, as `type` is.
    """
    if isinstance(name, str) and name and "." not in name and name not in _TAKEN:
        return name
    raise ValueError(
        f"{kind} {name!r}: a name is a string that is not empty, has no dot in it and "
        "is no attribute of torch's modules (as 'type', 'keys', 'training' are); "
        f"choose another one, such as {f'{kind}_{name}'.replace('.', '_')!r}"
    )


@dataclass(frozen=True, eq=False)
class Batch:
    r"""Samples with any number of modalities and any number of targets.

    Every tensor has the batch as its first axis.

    Args:
        inputs: modality → tensor `[B, ...]`.
        targets: task → tensor `[B, ...]`. A missing target is NaN (real-valued) or −1
            (class).
        present: modality → bool `[B]`, false where the modality is absent. A key left
            out: all present.
        lengths: modality → int `[B]`, the number of valid tokens of a padded sequence.

    Raises:
        ValueError: when tensors disagree about B, or `present` or `lengths` names an
            unknown modality.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor] = field(default_factory=dict)
    present: dict[str, Tensor] = field(default_factory=dict)
    lengths: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if torch.compiler.is_compiling():  # sizes are symbols; comparing would fix them
            return
        sizes = {
            f"{group}[{key!r}]": len(value)
            for group, tensors in self._groups().items()
            for key, value in tensors.items()
        }
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"all tensors of a Batch need the same first size, got {sizes}"
            )
        if not sizes:
            raise ValueError("a Batch needs at least one tensor, got none")
        for name in ("present", "lengths"):
            unknown = set(getattr(self, name)) - set(self.inputs)
            if unknown:
                raise ValueError(
                    f"{name} names {sorted(unknown)}, but the inputs are "
                    f"{sorted(self.inputs)}"
                )
        for key, mask in self.present.items():
            if mask.dtype != torch.bool or mask.dim() != 1:
                raise ValueError(
                    f"present[{key!r}] must be a bool tensor of shape [B], "
                    f"got {mask.dtype} of shape {list(mask.shape)}"
                )

    def _groups(self) -> dict[str, dict[str, Tensor]]:
        return {
            "inputs": self.inputs,
            "targets": self.targets,
            "present": self.present,
            "lengths": self.lengths,
        }

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        return Batch.unchecked(
            *(
                {key: function(value) for key, value in tensors.items()}
                for tensors in self._groups().values()
            )
        )

    @staticmethod
    def unchecked(
        inputs: dict[str, Tensor],
        targets: dict[str, Tensor],
        present: dict[str, Tensor],
        lengths: dict[str, Tensor],
    ) -> Batch:
        """A batch of tensors that come from a valid one, as in a slice of it: nothing
        is checked, since this runs at every step."""
        new = object.__new__(Batch)
        groups = zip(
            ("inputs", "targets", "present", "lengths"),
            (inputs, targets, present, lengths),
            strict=True,
        )
        for group, tensors in groups:
            object.__setattr__(new, group, tensors)
        return new

    def __len__(self) -> int:
        return len(next(iter((self.inputs or self.targets).values())))

    def __getitem__(self, index: slice | Tensor) -> Batch:
        """The samples that a slice, an index tensor or a bool mask selects."""
        if isinstance(index, int):
            raise TypeError(
                "index a Batch by a slice or a tensor, as in batch[3:4]: a sample is "
                "a batch of one"
            )
        return self._map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def without(self, *modalities: str) -> Batch:
        """The same batch with the given modalities marked absent for every sample;
        their keys stay."""
        unknown = set(modalities) - set(self.inputs)
        if unknown:
            raise ValueError(
                f"unknown modalities {sorted(unknown)}; the inputs are "
                f"{sorted(self.inputs)}"
            )
        absent = {
            name: torch.zeros(
                len(self), dtype=torch.bool, device=self.inputs[name].device
            )
            for name in modalities
        }
        return replace(self, present={**self.present, **absent})

    def mask(self, modality: str) -> Tensor:
        """Bool `[B]`: for which samples the modality is present."""
        if modality in self.present:
            return self.present[modality]
        value = self.inputs[modality]
        return torch.ones(value.shape[0], dtype=torch.bool, device=value.device)

    @staticmethod
    def cat(batches: Iterable[Batch]) -> Batch:
        """The samples of several batches, one after another; they need the same
        modalities and tasks."""
        batches = list(batches)
        if not batches:
            raise ValueError("Batch.cat needs at least one batch, got none")
        first = batches[0]
        for name in ("inputs", "targets", "lengths"):
            for other in batches[1:]:
                if set(getattr(other, name)) != set(getattr(first, name)):
                    raise ValueError(
                        f"Batch.cat: {name} differ: {sorted(getattr(first, name))} "
                        f"and {sorted(getattr(other, name))}"
                    )
        partly = {key for batch in batches for key in batch.present}
        return Batch(
            inputs={
                key: torch.cat([b.inputs[key] for b in batches]) for key in first.inputs
            },
            targets={
                key: torch.cat([b.targets[key] for b in batches])
                for key in first.targets
            },
            present={
                key: torch.cat([b.mask(key) for b in batches]) for key in sorted(partly)
            },
            lengths={
                key: torch.cat([b.lengths[key] for b in batches])
                for key in first.lengths
            },
        )


def row_mask(mask: Tensor, like: Tensor) -> Tensor:
    """A mask over the first axes of `like`, with axes of size one appended until it
    broadcasts."""
    return mask.reshape(mask.shape + (1,) * (like.dim() - mask.dim()))


@dataclass(frozen=True, eq=False)
class Features:
    r"""What an encoder or a fusion returns: a sequence of tokens. A vector is a
    sequence of length one.

    Args:
        tokens: `[B, L, D]`.
        valid: bool `[B, L]`, false where a token is padding; `None`: every token
            counts.
    """

    tokens: Tensor
    valid: Tensor | None = None

    @staticmethod
    def vector(value: Tensor) -> Features:
        """One vector per sample `[B, D]` as a sequence of length one."""
        return Features(value.unsqueeze(1))

    @property
    def pooled(self) -> Tensor:
        r"""`[B, D]`: the mean over the valid tokens (zero for a sample that has
        none)."""
        return pool(self.tokens, self.valid)


def pool(tokens: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over the valid tokens: `[B, L, D]` and bool `[B, L]` → `[B, D]`; zero where
    none is valid."""
    if valid is None:
        return tokens[:, 0] if tokens.shape[1] == 1 else tokens.mean(1)
    kept = torch.where(row_mask(valid, tokens), tokens, 0)
    return kept.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)


def valid_tokens(lengths: Tensor, size: int) -> Tensor:
    """Bool `[B, size]`, true for the first `lengths[b]` positions of sample b."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)


@dataclass(frozen=True, eq=False)
class Fused:
    """What a fusion returns.

    Args:
        features: the joint representation, tokens `[B, L, D]`.
        weights: name → tensor: gates or attention maps, for plots.
    """

    features: Features
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Shared:
    """What a sharing returns.

    Args:
        features: task → `[B, L, D]`.
        weights: name → tensor: gates, stitches or attention, for plots.
        penalty: a scalar that is added to the loss; 0 where there is none.
    """

    features: dict[str, Tensor]
    weights: dict[str, Tensor] = field(default_factory=dict)
    penalty: Tensor | float = 0.0


@dataclass(frozen=True, eq=False)
class Output:
    """Everything that a forward pass computed, stage by stage.

    Args:
        predictions: task → what its head returned.
        features: modality → the encoder's `Features`.
        fused: the fused `Features`.
        shared: the cut that balancers use, `[B, L, D]`: the trunk's output under hard
            sharing, otherwise the fused tokens.
        task_features: task → `[B, L, D]`, the sharing's output.
        weights: stage/name → tensor: gates, attention maps, decision weights, for
            plots, as in `fusion/gates` and `sharing/gates`.
        penalties: stage → scalar that is added to the loss.
        batch: the batch that went in.
    """

    predictions: dict[str, Tensor]
    features: dict[str, Features] = field(default_factory=dict)
    fused: Features | None = None
    shared: Tensor | None = None
    task_features: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    penalties: dict[str, Tensor] = field(default_factory=dict)
    batch: Batch | None = None
