"""Run notebooks in parallel, each in a kernel of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm

TIMEOUT = 900  # seconds for one cell: an endless loop must end, a slow machine must not


@dataclass
class Run:
    """One executed notebook. ``error`` is None, or says which cell failed and why."""

    path: Path
    notebook: NotebookNode
    label: str
    seconds: float = 0.0
    error: str | None = None


def read(path: Path) -> NotebookNode:
    """A notebook from ``.ipynb``, or from MyST text read as the site's builder reads
    it."""
    if path.suffix == ".ipynb":
        return nbformat.read(path, as_version=4)
    from myst_nb.core.config import NbParserConfig
    from myst_nb.core.read import create_nb_reader
    from myst_parser.config.main import MdParserConfig

    text = path.read_text(encoding="utf-8")
    reader = create_nb_reader(str(path), MdParserConfig(), NbParserConfig(), text)
    if reader is None:
        raise ValueError(
            f"{path} is no notebook: its front matter must name the format and the "
            "kernel"
        )
    return reader.read(text)


def failed_cell(notebook: NotebookNode) -> str:
    """Which code cell stopped the run: its number, its first line, and the error it
    shows."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        for output in cell.outputs:
            if output.output_type == "error":
                first = cell.source.strip().splitlines()[0]
                return (
                    f"code cell {number} of {len(code)} (`{first}`): "
                    f"{output.ename}: {output.evalue}"
                )
    return "no cell shows an error"


async def _run(
    run: Run,
    environment: Mapping[str, str],
    slots: asyncio.Semaphore,
    go_on_after: Sequence[str],
) -> Run:
    async with slots:
        client = NotebookClient(
            run.notebook,
            timeout=TIMEOUT,
            allow_error_names=list(go_on_after),
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            # timings in the cells' metadata would change the notebook's cache key
            record_timing=False,
            resources={"metadata": {"path": str(run.path.parent)}},
        )
        start = time.perf_counter()
        try:
            # The work is parallel here: workers of a kernel's own would only compete.
            alone = {"OMP_NUM_THREADS": "1", "MTMM_WORKERS": "1"}
            await client.async_execute(env={**os.environ, **alone, **environment})
        except CellExecutionError:
            run.error = failed_cell(run.notebook)
        except (CellTimeoutError, DeadKernelError) as error:
            run.error = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        run.seconds = time.perf_counter() - start
        return run


def execute(
    tasks: Sequence[tuple[Path, str, Mapping[str, str]]],
    jobs: int,
    go_on_after: Sequence[str] = (),
) -> list[Run]:
    """Run notebooks, ``jobs`` at a time, and show the progress.

    Args:
        tasks: for each run the notebook, a label that no other run has, and additions
            to the environment.
        jobs: how many kernels work at once.
        go_on_after: names of exceptions that do not end a run.
    """

    async def all_of_them() -> list[Run]:
        slots = asyncio.Semaphore(jobs)
        runs = [
            _run(Run(path, read(path), label), extra, slots, go_on_after)
            for path, label, extra in tasks
        ]
        done = []
        with tqdm(total=len(runs), desc="executing", unit="notebook") as bar:
            for finished in asyncio.as_completed(runs):
                run = await finished
                done.append(run)
                tqdm.write(
                    f"{run.seconds:6.1f} s  "
                    f"{run.label}{'  FAILED' if run.error else ''}"
                )
                bar.update()
        order = {label: index for index, (_, label, _) in enumerate(tasks)}
        return sorted(done, key=lambda run: order[run.label])

    return asyncio.run(all_of_them())
