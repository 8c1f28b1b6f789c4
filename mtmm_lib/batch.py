r"""Everything that flows through a model.

A `Batch` of inputs and targets goes in; `Features`, `Fused` and `Shared` are what the
stages return; an `Output` holds everything that a forward pass computed.

Shapes: B samples in a batch, L tokens, D width, M modalities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor

from mtmm_lib.arrays import MISSING_CLASS as MISSING_CLASS
from mtmm_lib.arrays import padded, same_rows, to_tensor

# Modules are kept by task and by modality, parameters by modality; what the containers
# themselves have or do cannot be a key.
_TAKEN = {"task": {*dir(nn.ModuleDict())}}
_TAKEN["modality"] = _TAKEN["task"] | {*dir(nn.ParameterDict())}


def usable(name: str, kind: str) -> str:
    """The name of a modality or a task, if torch can keep modules under it.

    Args:
        name: the name.
        kind: what it names, `"modality"` or `"task"`.

    Raises:
        ValueError: for what is no string, is empty, has a dot in it or is taken by
            torch, as `type` is.
    """
    if isinstance(name, str) and name and "." not in name and name not in _TAKEN[kind]:
        return name
    raise ValueError(
        f"{kind} {name!r}: a name is a string that is not empty, has no dot in it and "
        "is no attribute of torch's modules (as 'type', 'keys', 'training' are); "
        f"choose another one, such as {f'{kind}_{name}'.replace('.', '_')!r}"
    )


@dataclass(frozen=True, eq=False)
class Batch:
    r"""Samples with any number of modalities and any number of targets.

    Every tensor has the batch as its first axis. `Batch.from_arrays` makes one of
    arrays and tables, `collate` one of single samples.

    Args:
        inputs: modality → tensor `[B, ...]`.
        targets: task → tensor `[B, ...]`. A missing target is NaN (real-valued) or −1
            (class).
        present: modality → bool `[B]`, false where the modality is absent. A key left
            out: all present.
        lengths: modality → int `[B]`, the number of valid tokens of a padded sequence
            `[B, L, ...]`, from 0 to L.

    Raises:
        TypeError: for what is no tensor.
        ValueError: when tensors disagree about B, an input has no numbers, `present` or
            `lengths` names an unknown modality, or a length lies outside of 0 … L
            (named: the sample).
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor] = field(default_factory=dict)
    present: dict[str, Tensor] = field(default_factory=dict)
    lengths: dict[str, Tensor] = field(default_factory=dict)
    #: Targets known to miss nothing, so that a step need not look for what is missing;
    #: `fit` finds out once for all data. Slices know it too, altered batches do not.
    complete: frozenset[str] = field(default=frozenset(), init=False, repr=False)

    def __post_init__(self) -> None:
        if torch.compiler.is_compiling():  # sizes are symbols; comparing would fix them
            return
        sizes = {}
        for group, tensors in self._groups().items():
            if not isinstance(tensors, Mapping):
                raise TypeError(
                    f"{group} of a Batch is a dict from names to tensors, got "
                    f"{type(tensors).__name__}"
                )
            for key, value in tensors.items():
                name = f"{group}[{key!r}]"
                if not isinstance(value, Tensor):
                    raise TypeError(
                        f"{name} is a {type(value).__name__}, but a Batch holds "
                        "tensors: Batch.from_arrays(inputs, targets) converts arrays, "
                        "tables and lists"
                    )
                if not value.dim():
                    raise ValueError(
                        f"{name} is a single number; its first axis has to be the "
                        "batch, [B, ...]"
                    )
                sizes[name] = len(value)
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"all tensors of a Batch need the same first size, got {sizes}"
            )
        if not sizes:
            raise ValueError("a Batch needs at least one tensor, got none")
        for group in ("present", "lengths"):
            unknown = set(getattr(self, group)) - set(self.inputs)
            if unknown:
                raise ValueError(
                    f"{group} names {sorted(unknown)}, but the inputs are "
                    f"{sorted(self.inputs)}"
                )
        for key, value in self.inputs.items():
            if 0 in value.shape[1:]:
                raise ValueError(
                    f"inputs[{key!r}] has shape {list(value.shape)}: no number for a "
                    "sample; a sequence needs one step at least, and what is absent "
                    "any numbers and present false"
                )
        for key, mask in self.present.items():
            if mask.dtype != torch.bool or mask.dim() != 1:
                raise ValueError(
                    f"present[{key!r}] must be a bool tensor of shape [B], "
                    f"got {mask.dtype} of shape {list(mask.shape)}"
                )
        for key, lengths in self.lengths.items():
            self._check_lengths(key, lengths)

    def _check_lengths(self, key: str, lengths: Tensor) -> None:
        shape = list(self.inputs[key].shape)
        if len(shape) < 2:
            raise ValueError(
                f"lengths names {key!r}, but inputs[{key!r}] of shape {shape} is no "
                "sequence [B, L, ...]"
            )
        fractional = lengths.is_floating_point() or lengths.is_complex()
        if lengths.dim() != 1 or fractional or lengths.dtype == torch.bool:
            raise ValueError(
                f"lengths[{key!r}] are whole numbers of shape [B], got {lengths.dtype} "
                f"of shape {list(lengths.shape)}"
            )
        if is_batchedtensor(lengths):  # inside vmap no value can be looked at
            return
        wrong = (lengths < 0) | (lengths > shape[1])
        if wrong.any():
            sample = int(wrong.nonzero()[0])
            raise ValueError(
                f"lengths[{key!r}] of sample {sample} is {lengths[sample].item()}, but "
                f"the sequences have 0 to {shape[1]} steps (shape {shape})"
            )

    @staticmethod
    def from_arrays(
        inputs: Mapping[str, Any],
        targets: Mapping[str, Any] | None = None,
        present: Mapping[str, Any] | None = None,
        lengths: Mapping[str, Any] | None = None,
    ) -> Batch:
        r"""A batch of what people have: arrays of numpy, tables and columns of pandas,
        lists, tensors of any precision.

        Real numbers get torch's default precision (float32). What else happens:

        | given | as an input | as a target |
        |---|---|---|
        | a table (`DataFrame`) `[N, d]` | real numbers `[N, d]` | a column each |
        | one number a sample, `[N]` | `[N, 1]` | `[N]` |
        | whole numbers | stay whole: ids | stay whole: classes, counts |
        | bool | 0.0 and 1.0 | classes 0 and 1, −1 where missing |
        | categories (pandas) | – | their codes, −1 where missing |
        | whole numbers with gaps (pandas) | real, with NaN | real, with NaN |

        Whole numbers that are no ids, the pixels of a picture say, have to become real
        before: `pixels / 255`. Rows are matched by their position.

        Args:
            inputs, targets, present, lengths: as in `Batch`.

        Raises:
            TypeError: for what is no dict.
            ValueError: for text, dates and other things that are no numbers, columns of
                pandas with different row labels, and whatever `Batch` refuses.
        """
        groups = {
            "inputs": inputs,
            "targets": {} if targets is None else targets,
            "present": {} if present is None else present,
            "lengths": {} if lengths is None else lengths,
        }
        for group, values in groups.items():
            if not isinstance(values, Mapping):
                raise TypeError(
                    f"{group} is a dict from names to arrays, such as "
                    f"{{'table': x}}, got {type(values).__name__}"
                )
        same_rows(groups)
        converted = {
            group: {
                key: to_tensor(value, f"{group}[{key!r}]", group)
                for key, value in values.items()
            }
            for group, values in groups.items()
        }
        return Batch(**converted)

    def _groups(self) -> dict[str, dict[str, Tensor]]:
        return {
            "inputs": self.inputs,
            "targets": self.targets,
            "present": self.present,
            "lengths": self.lengths,
        }

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        def each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {key: function(value) for key, value in tensors.items()}

        return Batch.unchecked(
            each(self.inputs),
            each(self.targets),
            each(self.present),
            each(self.lengths),
            self.complete,
        )

    def knowing(self, complete: Iterable[str]) -> Batch:
        """The same batch, told which of its targets miss nothing."""
        return Batch.unchecked(
            self.inputs, self.targets, self.present, self.lengths, frozenset(complete)
        )

    @staticmethod
    def unchecked(
        inputs: dict[str, Tensor],
        targets: dict[str, Tensor],
        present: dict[str, Tensor],
        lengths: dict[str, Tensor],
        complete: frozenset[str] = frozenset(),
    ) -> Batch:
        """A batch of tensors that come from a valid one, as in a slice of it: nothing
        is checked, since this runs at every step."""
        new = object.__new__(Batch)
        vars(new).update(
            inputs=inputs,
            targets=targets,
            present=present,
            lengths=lengths,
            complete=complete,
        )
        return new

    def __len__(self) -> int:
        return len(next(iter((self.inputs or self.targets).values())))

    def __getitem__(self, index: slice | Tensor) -> Batch:
        """The samples that a slice, an index tensor or a bool mask selects."""
        if not isinstance(index, slice | Tensor | list | np.ndarray):
            raise TypeError(
                "index a Batch by a slice or a tensor, as in batch[3:4]: a sample is "
                "a batch of one"
            )
        if isinstance(index, Tensor) and index.dtype == torch.long and index.dim() == 1:
            return self._map(lambda tensor: tensor.index_select(0, index))  # faster
        return self._map(lambda tensor: tensor[index])

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from where GPUs copy faster; a
        `DataLoader` with `pin_memory=True` asks for it."""
        return self._map(lambda tensor: tensor.pin_memory())

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
        modalities and tasks.

        Sequences are padded to the longest, if `lengths` says that they are sequences;
        so are targets with an entry for each step, as missing.
        """
        batches = list(batches)
        if not batches:
            raise ValueError("Batch.cat needs at least one batch, got none")
        first = batches[0]
        for name in ("inputs", "targets"):
            for other in batches[1:]:
                if set(getattr(other, name)) != set(getattr(first, name)):
                    raise ValueError(
                        f"Batch.cat: {name} differ: {sorted(getattr(first, name))} "
                        f"and {sorted(getattr(other, name))}"
                    )
        partly = {key for batch in batches for key in batch.present}
        padded = {key for batch in batches for key in batch.lengths}
        for key in first.inputs:
            shapes = {b.inputs[key].shape[2 if key in padded else 1 :] for b in batches}
            if len(shapes) > 1:
                raise ValueError(
                    f"Batch.cat: inputs[{key!r}] have the shapes "
                    f"{[list(b.inputs[key].shape) for b in batches]}; sequences are "
                    "padded where lengths names them, everything else has one shape"
                )
        return Batch(
            inputs={
                key: (cat if key in padded else torch.cat)(
                    [b.inputs[key] for b in batches]
                )
                for key in first.inputs
            },
            targets={
                key: cat(
                    [b.targets[key] for b in batches],
                    torch.nan if value.is_floating_point() else MISSING_CLASS,
                )
                for key, value in first.targets.items()
            },
            present={
                key: torch.cat([b.mask(key) for b in batches]) for key in sorted(partly)
            },
            lengths={
                key: torch.cat([b._lengths(key) for b in batches])
                for key in sorted(padded)
            },
        )

    def _lengths(self, modality: str) -> Tensor:
        value = self.inputs[modality]
        whole = torch.full((len(value),), value.shape[1], device=value.device)
        return self.lengths.get(modality, whole)


def cat(parts: Sequence[Tensor], fill: float = 0) -> Tensor:
    """Rows of several tensors, one after another; where these differ in the size of
    their second axis, the tokens, they are filled up to the longest."""
    if parts[0].dim() < 2:
        return torch.cat(list(parts))
    longest = max(part.shape[1] for part in parts)
    return torch.cat(
        [
            F.pad(
                part,
                (0, 0) * (part.dim() - 2) + (0, longest - part.shape[1]),
                value=fill,
            )
            for part in parts
        ]
    )


# From single samples, arrays and tables


def collate(samples: Sequence[Any], *, like: Any = None) -> Batch:
    r"""A batch of single samples, for a `DataLoader(dataset, collate_fn=collate)`.

    A sample is `(inputs, targets)`, or inputs alone: modality → array or tensor `[...]`
    without a batch axis; task → number, array or tensor. A modality or a target that a
    sample lacks is left out of its dict, or `None`.

    - A missing modality becomes zeros, and `present` says so.
    - A missing target becomes NaN (real numbers) or −1 (whole ones).
    - Where samples of a modality differ in the size of their first axis, they are
      sequences: padded with zeros to the longest, and `lengths` says how far each goes
      (0 for a missing one). Targets of different lengths, a class for each step, are
      padded as missing.

    Numbers are converted as by `Batch.from_arrays`.

    Args:
        samples: one or more.
        like: a sample that has everything, for batches in which nobody has some
            modality or target, whose shape could not be known: pass
            `functools.partial(collate, like=dataset[0])`.

    Raises:
        ValueError: for no sample, or shapes that differ in more than the first axis.
    """
    if not len(samples):
        raise ValueError("collate needs at least one sample, got none")
    parts = [_parts(sample) for sample in samples]
    whole = _parts({} if like is None else like)
    inputs, present, lengths, targets = {}, {}, {}, {}
    for key in _keys([whole[0], *(part[0] for part in parts)]):
        values = [_sample(part[0], key, "inputs") for part in parts]
        inputs[key], sizes = padded(
            values, _sample(whole[0], key, "inputs"), f"inputs[{key!r}]", False
        )
        there = torch.tensor([value is not None for value in values])
        if not there.all():
            present[key] = there
        if len(set(sizes[there].tolist())) > 1:
            lengths[key] = sizes
    for key in _keys([whole[1], *(part[1] for part in parts)]):
        values = [_sample(part[1], key, "targets") for part in parts]
        targets[key], _ = padded(
            values, _sample(whole[1], key, "targets"), f"targets[{key!r}]", True
        )
    return Batch(inputs, targets, present, lengths)


def _parts(sample: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    pair = (sample, {}) if isinstance(sample, Mapping) else sample
    if (
        not isinstance(pair, tuple)
        or len(pair) != 2
        or not all(isinstance(part, Mapping) for part in pair)
    ):
        raise ValueError(
            "a sample is (inputs, targets), two dicts by name, or inputs alone; got "
            f"{type(sample).__name__}"
        )
    return pair


def _keys(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """All names for which somebody has a value, each once, in order."""
    found = (key for part in parts for key, value in part.items() if value is not None)
    return list(dict.fromkeys(found))


def _sample(part: Mapping[str, Any], key: str, group: str) -> Tensor | None:
    value = part.get(key)
    if value is None:
        return None
    # with a batch axis in front, so that a number becomes what it is in a column
    one = value.unsqueeze(0) if isinstance(value, Tensor) else [value]
    return to_tensor(one, f"{group}[{key!r}]", group)[0]


# What the stages hand on


def row_mask(mask: Tensor, like: Tensor) -> Tensor:
    """A mask over the first axes of `like`, with axes of size one appended until it
    broadcasts."""
    return mask.reshape(mask.shape + (1,) * (like.dim() - mask.dim()))


class Features:
    r"""What an encoder or a fusion returns: a sequence of tokens. A vector is a
    sequence of length one.

    Args:
        tokens: `[B, L, D]`.
        valid: bool `[B, L]`, false where a token is padding; `None`: every token
            counts.
    """

    # Tokens of a vector, and the mean of tokens, are found when somebody asks, and
    # once: in a small model's step they take their time. (In functools.cached_property
    # is a lock, at which torch.compile would cut the forward pass into pieces.)
    _tokens: Tensor | None
    _pooled: Tensor | None

    def __init__(self, tokens: Tensor, valid: Tensor | None = None) -> None:
        self._tokens, self.valid, self._pooled = tokens, valid, None
        #: One vector per sample, made by `Features.vector`.
        self.is_vector = False

    @staticmethod
    def vector(value: Tensor) -> Features:
        """One vector per sample `[B, D]` as a sequence of length one."""
        features = Features.__new__(Features)
        features._tokens, features.valid, features._pooled = None, None, value
        features.is_vector = True
        return features

    def __repr__(self) -> str:
        return f"Features({self.tokens!r}, {self.valid!r})"

    @property
    def tokens(self) -> Tensor:
        """`[B, L, D]`."""
        if self._tokens is None:
            self._tokens = cast(Tensor, self._pooled).unsqueeze(1)
        return self._tokens

    @property
    def pooled(self) -> Tensor:
        r"""`[B, D]`: the mean over the valid tokens (zero for a sample that has
        none)."""
        if self._pooled is None:
            self._pooled = pool(self.tokens, self.valid)
        return self._pooled

    def is_wide(self, dim: int) -> bool:
        """Whether this is a sequence of tokens of width `dim`."""
        x, axes = (self._pooled, 2) if self._tokens is None else (self._tokens, 3)
        return x is not None and x.dim() == axes and x.shape[-1] == dim


def pool(tokens: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over the valid tokens: `[B, L, D]` and bool `[B, L]` → `[B, D]`; zero where
    none is valid."""
    if valid is None:
        # `squeeze` hands its gradient back as a view, `[:, 0]` writes it into zeros; so
        # does a sum, while `mean` writes it token by token, in an order in memory that
        # convolutions are slow to read.
        count = tokens.shape[1]
        return tokens.squeeze(1) if count == 1 else tokens.sum(1) / count
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
