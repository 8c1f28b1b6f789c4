r"""Conversions: what people have, arrays, tables and lists, becomes tensors."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: The target of a sample whose class is not known.
MISSING_CLASS = -1


def padded(
    values: Sequence[Tensor | None], like: Tensor | None, where: str, target: bool
) -> tuple[Tensor, Tensor]:
    """Tensors under each other, padded on the first axis, and what they had of it."""
    given = [value for value in (like, *values) if value is not None]
    rest = given[0].shape[1:]
    for i, value in enumerate(values):
        if value is not None and (
            value.dim() != given[0].dim() or value.shape[1:] != rest
        ):
            raise ValueError(
                f"{where}: sample {i} of the batch has shape {list(value.shape)} and "
                f"another {list(given[0].shape)}; they may differ in the first size "
                "alone"
            )
    dtype = reduce(torch.promote_types, [value.dtype for value in given])
    fill = 0 if not target else torch.nan if dtype.is_floating_point else MISSING_CLASS
    there = [value for value in values if value is not None] or given
    long = max((len(value) for value in there if value.dim()), default=0)
    shape = (len(values), *([long, *rest] if given[0].dim() else []))
    padded = torch.full(shape, fill, dtype=dtype)
    sizes = torch.zeros(len(values), dtype=torch.int64)
    for i, value in enumerate(values):
        if value is None:
            continue
        if value.dim():
            padded[i, : len(value)], sizes[i] = value, len(value)
        else:
            padded[i] = value
    return padded, sizes


def to_tensor(value: Any, where: str, group: str) -> Tensor:
    """What `Batch.from_arrays` makes of one array, table, list or tensor."""
    tensor = value if isinstance(value, Tensor) else _from_numpy(value, where, group)
    if group == "inputs":
        if tensor.dim() == 1:
            tensor = tensor.unsqueeze(1)
        if tensor.dtype == torch.bool or _is_pandas(value, "DataFrame"):
            tensor = tensor.to(torch.get_default_dtype())
    elif group == "targets" and tensor.dtype == torch.bool:
        tensor = tensor.long()
    if tensor.is_floating_point():
        return tensor.to(torch.get_default_dtype())
    return tensor if tensor.dtype == torch.bool else tensor.long()


def _from_numpy(value: Any, where: str, group: str) -> Tensor:
    if _is_pandas(value, "DataFrame"):
        columns = [value.iloc[:, i] for i in range(value.shape[1])]
        if not columns:
            raise ValueError(f"{where} is a table without columns")
        array = np.stack(
            [_column(c, f"{where}, column {c.name!r},", group) for c in columns], 1
        )
    elif _is_pandas(value, "Series"):
        array = _column(value, where, group)
    else:
        array = _numbers(value, where)
    kind, size = array.dtype.kind, array.dtype.itemsize
    native = {"f": np.float32 if size <= 4 else np.float64, "b": np.bool_}
    # torch takes no memory that is read-only, runs backwards or has foreign bytes
    return torch.from_numpy(np.require(array, native.get(kind, np.int64), ["C", "W"]))


def _numbers(value: Any, where: str) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{where} is a list of things of different sizes; collate pads them"
        ) from error
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{where} holds {array.dtype}, expected numbers; a column of names becomes "
            "classes by pandas' .astype('category'), an input of names numbers by "
            "pandas.get_dummies"
        )
    return array


def _column(column: Any, where: str, group: str) -> np.ndarray[Any, Any]:
    """The numbers of a column of pandas, whose gaps have as many marks as it has
    dtypes."""
    dtype, gaps = column.dtype, column.isna()
    if hasattr(dtype, "categories") and group == "targets":
        return _numbers(column.cat.codes, where)  # −1 where missing
    if isinstance(dtype, np.dtype) or dtype.kind not in "fiub":
        return _numbers(column, where)
    if not gaps.any():
        return _numbers(column.to_numpy(getattr(dtype, "numpy_dtype", None)), where)
    if dtype.kind == "b" and group == "targets":
        return _numbers(column.to_numpy(np.int64, na_value=MISSING_CLASS), where)
    return _numbers(column.to_numpy(np.float64, na_value=np.nan), where)


def _is_pandas(value: Any, kind: str) -> bool:
    # who has made a table has imported pandas; nobody else should have to
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, getattr(pandas, kind))


def same_rows(groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses columns and tables of pandas of which one has been sorted or thinned out
    and another has not."""
    labelled = {
        f"{group}[{key!r}]": value.index
        for group, values in groups.items()
        for key, value in values.items()
        if _is_pandas(value, "Series") or _is_pandas(value, "DataFrame")
    }
    names = list(labelled)
    for name in names[1:]:
        first, other = labelled[names[0]], labelled[name]
        if len(first) == len(other) and not first.equals(other):
            raise ValueError(
                f"{names[0]} and {name} have different row labels (pandas' index), but "
                "rows are matched by position: bring them into one order, then use "
                ".reset_index(drop=True)"
            )
