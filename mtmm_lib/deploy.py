"""Deployment: a trained model as one file, which answers without the code that made
it."""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Batch

Named = dict[str, Tensor]


class Predictor:
    """An exported model, as `load` returns it: `predictor(batch)` → task → prediction,
    on the CPU.

    Args:
        inputs: names of what the file reads: a modality `m`, `m_present` (bool `[B]`:
            whether each sample has it), `m_length` (int64 `[B]`: its valid tokens).
        outputs: the tasks.
        run: the named inputs → the outputs, in their order.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        outputs: Sequence[str],
        run: Callable[[Named], Sequence[Tensor]],
    ) -> None:
        self.inputs, self.outputs, self._run = tuple(inputs), tuple(outputs), run

    def __call__(self, batch: Batch) -> Named:
        """What the model's heads return: logits `[B, classes]`, values `[B, dim]`.

        Raises:
            KeyError: when the batch lacks a modality or lengths that the file reads.
            ValueError: when the file reads no presence, but something is absent.
        """
        given = _named(batch)
        for modality in batch.inputs:
            name = f"{modality}_present"
            if name in self.inputs:
                given.setdefault(name, batch.mask(modality))
            elif modality in self.inputs and not batch.mask(modality).all():
                raise ValueError(
                    f"{modality!r} is absent in the batch, and the file does not read "
                    f"{name!r}: export the model with an example that has "
                    f"present[{modality!r}]"
                )
        if lacking := [name for name in self.inputs if name not in given]:
            raise KeyError(
                f"the file reads {list(self.inputs)}, and the batch has no {lacking}"
            )
        outputs = self._run({name: given[name].detach().cpu() for name in self.inputs})
        return dict(zip(self.outputs, outputs, strict=True))


def export(model: nn.Module, example: Batch, path: str | os.PathLike[str]) -> Path:
    """Writes what a model computes, from a batch to the predictions, into a file that
    `load` reads.

    The suffix says of which kind: `.onnx` runs in ONNX Runtime and other engines, from
    many languages and without PyTorch; `.pt2` is PyTorch's own (`torch.export`). In the
    file, the model is in evaluation mode and on the CPU, and the size of a batch is
    free. What the file reads follows from the example, as far as
    the model uses it: its inputs, and where the example has them, `present` and
    `lengths`. Before it returns, the file is read back and its predictions are compared
    with the model's, for the example and for its first sample alone.

    Args:
        model: a `Model` or `DecisionFusion`, which stays as it is.
        example: two samples or more, of the sizes to come; its targets play no part.
        path: the file, which is replaced where there is one.

    Returns:
        the path.

    Raises:
        ValueError: for another suffix, or an example of fewer than two samples.
        RuntimeError: when the file answers otherwise than the model.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise ValueError(
            f"export writes files that end in .onnx or .pt2, got {path.name!r}"
        )
    if len(example) < 2:
        raise ValueError(
            "export needs an example of two samples or more: of one, any size might "
            "be constant"
        )
    flat = _Flat(copy.deepcopy(model).cpu().eval())
    example = Batch(example.inputs, {}, example.present, example.lengths).to("cpu")
    with torch.no_grad(), _quiet():
        # Copies: the file holds its example, and of a slice it would hold the whole.
        named = {name: value.clone() for name, value in _named(example).items()}
        program = _trace(flat, named)
        used = [
            name
            for name, node in zip(
                named, program.graph_signature.user_inputs, strict=True
            )
            if any(n.name == node and n.users for n in program.graph.nodes)
        ]
        if used != list(named):
            named = {name: named[name] for name in used}
            program = _trace(flat, named)
        tasks = list(flat.model.tasks)
        if path.suffix == ".pt2":
            names = json.dumps({"inputs": used, "outputs": tasks})
            torch.export.save(program, path, extra_files={"names.json": names})
        else:
            written = torch.onnx.export(
                program,
                dynamo=True,
                input_names=used,
                output_names=tasks,
                verbose=False,
            )
            written.save(path)
        predictor = load(path)
        for batch in (example, example[:1]):
            expected, got = flat.model(batch).predictions, predictor(batch)
            for task in tasks:
                if not torch.allclose(got[task], expected[task], rtol=1e-4, atol=1e-5):
                    gap = (got[task] - expected[task]).abs().max().item()
                    raise RuntimeError(
                        f"{path} answers otherwise than the model: task {task!r} "
                        f"differs by up to {gap:.2g} on {len(batch)} samples"
                    )
    return path


def load(path: str | os.PathLike[str]) -> Predictor:
    """The model in a file that `export` wrote.

    Raises:
        ValueError: for another suffix.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        def run(named: Named) -> list[Tensor]:
            outputs = session.run(
                None, {name: value.numpy() for name, value in named.items()}
            )
            return [torch.from_numpy(output) for output in outputs]

        inputs, outputs = (
            [x.name for x in side]
            for side in (session.get_inputs(), session.get_outputs())
        )
        return Predictor(inputs, outputs, run)
    if path.suffix == ".pt2":
        files = {"names.json": ""}
        with _quiet():
            module = torch.export.load(path, extra_files=files).module()
        names = json.loads(files["names.json"])
        return Predictor(names["inputs"], names["outputs"], torch.no_grad()(module))
    raise ValueError(f"load reads files that end in .onnx or .pt2, got {path.name!r}")


class _Flat(nn.Module):
    """A model with tensors by name on one side and a tuple of tensors, one for each
    task, on the other."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, named: Named) -> tuple[Tensor, ...]:
        inputs = {
            name: x
            for name, x in named.items()
            if not name.endswith(("_present", "_length"))
        }
        present = {
            name: named[f"{name}_present"]
            for name in inputs
            if f"{name}_present" in named
        }
        lengths = {
            name: named[f"{name}_length"]
            for name in inputs
            if f"{name}_length" in named
        }
        predictions = self.model(
            Batch(inputs, present=present, lengths=lengths)
        ).predictions
        return tuple(predictions[task] for task in self.model.tasks)


def _named(batch: Batch) -> Named:
    return {
        **batch.inputs,
        **{f"{name}_present": mask for name, mask in batch.present.items()},
        **{f"{name}_length": length for name, length in batch.lengths.items()},
    }


def _trace(flat: _Flat, named: Named) -> torch.export.ExportedProgram:
    size = torch.export.Dim("batch", min=1)
    return torch.export.export(
        flat, (named,), dynamic_shapes=({name: {0: size} for name in named},)
    )


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
