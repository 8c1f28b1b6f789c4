"""Deployment: a trained model as one file, which answers without the code that made
it."""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from keyword import iskeyword
from pathlib import Path

import torch
from torch import Tensor

from mtmm_lib.batch import Batch
from mtmm_lib.model import TaskModel
from mtmm_lib.replacing import replacing

Named = dict[str, Tensor]
#: Name in a file → what it is in a batch: the group (`inputs`, `present`, `lengths`)
#: and the modality.
Layout = dict[str, tuple[str, str]]

_ENDINGS = {"inputs": "", "present": "_present", "lengths": "_length"}
_KEY = "mtmm"  # under which a file holds its layout and its tasks


class Predictor:
    """An exported model, as `load` returns it: `predictor(batch)` → task → prediction,
    on the CPU.

    Its `inputs` are the names of what the file reads: a modality `m`, `m_present` (bool
    `[B]`: whether each sample has it), `m_length` (int64 `[B]`: its valid tokens).

    Args:
        layout: these names, and what each of them is in a batch.
        outputs: the tasks.
        run: the named inputs → the outputs, in their order.
    """

    def __init__(
        self,
        layout: Mapping[str, tuple[str, str]],
        outputs: Sequence[str],
        run: Callable[[Named], Sequence[Tensor]],
    ) -> None:
        self.inputs, self.outputs = tuple(layout), tuple(outputs)
        self._layout, self._run = dict(layout), run

    def __call__(self, batch: Batch) -> Named:
        """What the model's heads return: logits `[B, classes]`, values `[B, dim]`.

        Raises:
            KeyError: when the batch lacks a modality or lengths that the file reads.
            ValueError: when the file reads no presence, but something is absent.
        """
        given, lacking = {}, []
        for name, (group, modality) in self._layout.items():
            if group == "present" and modality in batch.inputs:
                given[name] = batch.mask(modality)
            elif modality in getattr(batch, group):
                given[name] = getattr(batch, group)[modality]
            else:
                lacking.append(name)
        if lacking:
            raise KeyError(
                f"the file reads {list(self.inputs)}, and the batch has no {lacking}"
            )
        kinds = self._layout.values()
        for modality in (m for group, m in kinds if group == "inputs"):
            if ("present", modality) not in kinds and not batch.mask(modality).all():
                raise ValueError(
                    f"{modality!r} is absent in the batch, and the file does not read "
                    f"'{modality}_present': export the model with an example that has "
                    f"present[{modality!r}]"
                )
        outputs = self._run({name: x.detach().cpu() for name, x in given.items()})
        return dict(zip(self.outputs, outputs, strict=True))


def export(model: TaskModel, example: Batch, path: str | os.PathLike[str]) -> Path:
    """Writes what a model computes, from a batch to the predictions, into a file that
    `load` reads.

    The suffix says of which kind: `.onnx` runs in ONNX Runtime and other engines, from
    many languages and without PyTorch; `.pt2` is PyTorch's own (`torch.export`). In the
    file, the model is in evaluation mode and on the CPU. What the file reads follows
    from the example, as far as the model uses it: its inputs, and where the example has
    them, `present` and `lengths`.

    Free are the size of a batch, and the second axis of an input wherever the model
    computes the same for any size of it: the tokens of a sequence, unless something
    reads exactly L of them, such as an `MLPEncoder` over the flattened input or learned
    positions. PyTorch decides that while it traces the model: a size stays free as long
    as no operation asks for its value. An axis of size one in the example is fixed.

    Before the file takes its place at `path`, it is read back, and its predictions are
    compared with the model's, for the example, for its first sample alone, and for
    sequences of twice the length where they are free. Until then a file that was there
    stays as it is.

    Args:
        model: a `Model` or `DecisionFusion`, which stays as it is.
        example: two samples or more, and two tokens or more of a sequence; its targets
            play no part.
        path: the file, which is replaced where there is one.

    Returns:
        the path.

    Raises:
        TypeError: for arguments in another order.
        ValueError: for another suffix, an example of fewer than two samples, a name
            that is a word of Python, or two things of one name in the file, as when a
            modality or a task is called `m_present`.
        RuntimeError: when the file answers otherwise than the model.
        OSError: where the file cannot be written.
    """
    given = {"model": model, "example": example, "path": path}
    kinds = {"model": torch.nn.Module, "example": Batch, "path": str | os.PathLike}
    for name, kind in kinds.items():
        if not isinstance(given[name], kind):
            raise TypeError(
                "a model, an example and a path are given in this order, as in "
                "export(model, batch, 'model.onnx'), but "
                f"{name} is a {type(given[name]).__name__}"
            )
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise ValueError(
            f"export writes files that end in .onnx or .pt2, got {path.name!r}"
        )
    words = [name for name in (*example.inputs, *model.tasks) if iskeyword(name)]
    if words:
        raise ValueError(
            f"{words} are words of Python, under which PyTorch cannot export a "
            "modality or a task: build the model with other names, and load the "
            "weights into it"
        )
    if len(example) < 2:
        raise ValueError(
            "export needs an example of two samples or more: of one, any size might "
            "be constant"
        )
    example = Batch(example.inputs, {}, example.present, example.lengths).to("cpu")
    layout, tasks = _layout(example), list(model.tasks)
    flat = _Flat(copy.deepcopy(model).cpu().eval(), layout)
    with replacing(path) as part, torch.no_grad(), _quiet():
        program = _trace(flat, example)
        read = [name for name, node in _nodes(program, layout) if node.users]
        if read != list(layout):
            flat.layout = layout = {name: layout[name] for name in read}
            program = _trace(flat, example)
        if path.suffix == ".pt2":
            names = {f"{_KEY}.json": _description(layout, tasks)}
            torch.export.save(program, part, extra_files=names)
        else:
            _save_onnx(program, layout, tasks, part)
        predictor = load(part)
        for batch in (example, example[:1], *_longer(program, layout, example)):
            expected, got = flat.model(batch).predictions, predictor(batch)
            for task in tasks:
                if not torch.allclose(got[task], expected[task], rtol=1e-4, atol=1e-5):
                    gap = (got[task] - expected[task]).abs().max().item()
                    raise RuntimeError(
                        f"the file for {path} answers otherwise than the model: task "
                        f"{task!r} differs by up to {gap:.2g} on {len(batch)} samples; "
                        "nothing was written"
                    )
    return path


def load(path: str | os.PathLike[str]) -> Predictor:
    """The model in a file that `export` wrote.

    Raises:
        ValueError: for another suffix, or a file that `export` did not write.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        def run(named: Named) -> list[Tensor]:
            given = {name: value.numpy() for name, value in named.items()}
            return [torch.from_numpy(output) for output in session.run(None, given)]

        found = session.get_modelmeta().custom_metadata_map.get(_KEY, "")
    elif path.suffix == ".pt2":
        files = {f"{_KEY}.json": ""}
        with _quiet():
            run = torch.no_grad()(torch.export.load(path, extra_files=files).module())
        found = files[f"{_KEY}.json"]
    else:
        raise ValueError(
            f"load reads files that end in .onnx or .pt2, got {path.name!r}"
        )
    if not found:
        raise ValueError(f"{path} was not written by mtmm_lib.deploy.export")
    names = json.loads(found)
    layout = {name: (group, modality) for name, group, modality in names["inputs"]}
    return Predictor(layout, names["outputs"], run)


class _Flat(torch.nn.Module):
    """A model with tensors by name on one side and a tuple of tensors, one for each
    task, on the other."""

    def __init__(self, model: TaskModel, layout: Layout) -> None:
        super().__init__()
        self.model, self.layout = model, layout

    def forward(self, named: Named) -> tuple[Tensor, ...]:
        groups: dict[str, Named] = {group: {} for group in _ENDINGS}
        for name, (group, modality) in self.layout.items():
            groups[group][modality] = named[name]
        predictions = self.model(Batch(**groups)).predictions
        return tuple(predictions[task] for task in self.model.tasks)


def _layout(batch: Batch) -> Layout:
    layout: Layout = {}
    for group, ending in _ENDINGS.items():
        for modality in getattr(batch, group):
            name = modality + ending
            if name in layout:
                raise ValueError(
                    f"{name!r} would be two things in the file: the modality of this "
                    f"name, and what says of {modality!r} which samples or tokens are "
                    "there; give one of the two modalities another name"
                )
            layout[name] = (group, modality)
    return layout


def _description(layout: Layout, tasks: Sequence[str]) -> str:
    inputs = [(name, *kind) for name, kind in layout.items()]
    return json.dumps({"inputs": inputs, "outputs": tasks})


def _trace(flat: _Flat, example: Batch) -> torch.export.ExportedProgram:
    # Copies: the file holds its example, and of a slice it would hold the whole.
    named = {
        name: getattr(example, group)[modality].clone()
        for name, (group, modality) in flat.layout.items()
    }
    size = torch.export.Dim("batch", min=1)
    shapes = {
        name: {0: size, 1: torch.export.Dim.AUTO}
        if x.dim() > 1 and x.shape[1] > 1
        else {0: size}
        for name, x in named.items()
    }
    return torch.export.export(flat, (named,), dynamic_shapes=(shapes,))


def _nodes(
    program: torch.export.ExportedProgram, layout: Layout
) -> Iterator[tuple[str, torch.fx.Node]]:
    """What stands for each input in the trace."""
    nodes = {node.name: node for node in program.graph.nodes}
    for name, node in zip(layout, program.graph_signature.user_inputs, strict=True):
        yield name, nodes[str(node)]


def _longer(
    program: torch.export.ExportedProgram, layout: Layout, example: Batch
) -> Iterator[Batch]:
    """The example with all sequences twice, one after the other, that are of free
    length in the trace; none where there are none."""
    parts: dict[str, Named] = {group: {} for group in _ENDINGS}
    free = set()
    for name, node in _nodes(program, layout):
        group, modality = layout[name]
        x = parts[group][modality] = getattr(example, group)[modality]
        if x.dim() > 1 and 2 * x.shape[1] <= _most(program, node.meta["val"].shape[1]):
            parts[group][modality] = torch.cat([x, x], 1)
            free.add(modality)
    for modality in free & set(parts["lengths"]):
        parts["lengths"][modality] = 2 * parts["lengths"][modality]
    if free:
        yield Batch(**parts)


def _most(program: torch.export.ExportedProgram, size: int | torch.SymInt) -> float:
    """The largest size that an axis in the trace may have."""
    if isinstance(size, int):
        return size
    if (fixed := _fixed(size)) is not None:
        return fixed
    limits = program.range_constraints.get(size.node.expr)
    return float("inf") if limits is None else float(limits.upper)


def _fixed(size: int | torch.SymInt) -> int | None:
    """The size of an axis in the trace, unless it is free."""
    fixed: int | None = size if isinstance(size, int) else size.node.maybe_as_int()
    return fixed


def _save_onnx(
    program: torch.export.ExportedProgram,
    layout: Layout,
    tasks: Sequence[str],
    path: Path,
) -> None:
    if both := [task for task in tasks if task in layout]:
        raise ValueError(
            f"tasks and inputs share the names {both}, and ONNX has one name for one "
            "thing: rename the tasks, or export to .pt2"
        )
    written = torch.onnx.export(program, dynamo=True, verbose=False)
    assert written is not None  # which it is for a file that is named to it
    graph = written.model.graph
    # The exporter names what is between after operations, as in "linear": such a name
    # may be a task's. No name of a modality or a task has a dot in it.
    between = [value for node in graph for value in node.outputs]
    for value in [*graph.initializers.values(), *between]:
        value.name = f"inner.{value.name}"
    for value, (name, node) in zip(graph.inputs, _nodes(program, layout), strict=True):
        value.name = name
        # The exporter still has a symbol for an axis that turned out to be fixed.
        for axis, size in enumerate(node.meta["val"].shape):
            if value.shape is not None and (fixed := _fixed(size)) is not None:
                value.shape[axis] = fixed
    for value, name in zip(graph.outputs, tasks, strict=True):
        value.name = name
    written.model.metadata_props[_KEY] = _description(layout, tasks)
    written.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """A context without the exporters' remarks about themselves; errors still come
    through."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
