"""Execute the notebooks into the execution cache, then build the site from it; warnings
are errors."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbformat import NotebookNode

from mtmm_lib.environment import variable
from tools import chapters, generate, vendor
from tools.execute import execute, read
from tools.lesson import numbered
from tools.project import BUILD, FRONT, ROOT, jobs, lessons, notebook, notebooks

KEPT_CACHES = 3
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


def fingerprint() -> str:
    """A hash over what the result of every notebook depends on: library, data, versions
    and seed.

    jupyter-cache looks at the notebook alone and would publish results of an older
    library.
    """
    seed = variable("MTMM_SEED", "0")
    return _hash([ROOT / "constraints.txt", ROOT / "mtmm_lib", ROOT / "data"], seed)


def own_fingerprint(path: Path) -> str:
    """A hash over what the result of one notebook depends on besides its own code: what
    else lies in its lesson's folder, and the arrows that its picture shows.

    The text between the code is no part of it: new words execute nothing.
    """
    lesson = next((each for each in lessons() if notebook(each) == path), None)
    if lesson is None:
        return ""
    beside = [each for each in lesson.folder.iterdir() if each.name != "lesson.md"]
    return _hash(beside, repr(lesson.arrows))


def _hash(places: list[Path], *words: str) -> str:
    """Of files, of all that folders hold, and of words."""
    digest = hashlib.sha256("\0".join(words).encode())
    files = [
        path
        for place in places
        for path in ([place] if place.is_file() else place.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    ]
    for path in sorted(files):
        name = path.relative_to(ROOT).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def cache_folder() -> Path:
    """The execution cache that belongs to the present library, data, versions and
    seed."""
    return BUILD / f".jupyter_cache-{fingerprint()}"


def fill_cache(folder: Path, paths: list[Path]) -> dict[Path, NotebookNode]:
    """Execute those of ``paths`` that the cache in ``folder`` lacks; return all, with
    their outputs.

    Raises:
        SystemExit: a notebook failed; the message names it, the cell and the error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(
        folder.parent.glob(".jupyter_cache-*"), key=lambda path: path.stat().st_mtime
    ):
        if (
            len(list(folder.parent.glob(".jupyter_cache-*"))) > KEPT_CACHES
            and old != folder
        ):
            shutil.rmtree(old)
    cache = get_cache(folder)

    def missing(path: Path) -> bool:
        try:
            found = cache.match_cache_notebook(read(path))
        except KeyError:
            return True
        return found.data.get("own") != own_fingerprint(path)

    tasks = [(path, path.name, {}) for path in paths if missing(path)]
    runs = execute(tasks, jobs()) if tasks else []
    for run in runs:
        if run.error is None:
            data = {"execution_seconds": run.seconds, "own": own_fingerprint(run.path)}
            result = CacheBundleIn(run.notebook, str(run.path), data=data)
            cache.cache_notebook_bundle(result, check_validity=False, overwrite=True)
    if failed := [f"{run.label}: {run.error}" for run in runs if run.error]:
        raise SystemExit(
            "\n".join(["A notebook failed; the site is not built.", *failed])
        )
    return {path: cache.merge_match_into_notebook(read(path))[1] for path in paths}


def builder(root: Path) -> list[str]:
    """The command that builds the site of the book in ``root``.

    ``_toc.yml`` lists slugs. The builder gets a copy that has the notebooks' names.
    """
    toc = root / "_build" / "_toc.yml"
    toc.parent.mkdir(exist_ok=True)
    text = numbered((root / "_toc.yml").read_text(encoding="utf-8"))
    if not toc.exists() or toc.read_text(encoding="utf-8") != text:
        toc.write_text(text, encoding="utf-8")
    book = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root)]
    return [*book, "--toc", str(toc), "-q"]


def build(folder: Path, root: Path = ROOT, *, fresh: bool = False) -> None:
    """Build the site of the book in ``root`` with Jupyter Book.

    Raises:
        SystemExit: when there was any warning.
    """
    if fresh:  # pages of sources that are as they were are not part of `--all`
        shutil.rmtree(root / "_build" / "html" / "_modules", ignore_errors=True)
    command = [*builder(root), "-W", "--keep-going", *["--all"] * fresh]
    environment = {**os.environ, "MTMM_EXECUTION_CACHE": str(folder)}
    if subprocess.run(command, env=environment, cwd=ROOT).returncode:
        raise SystemExit("The site has warnings or errors; they stand above.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="write every page anew")
    parser.add_argument(
        "--pdf", action="store_true", help="print each lesson to _build/pdf, too"
    )
    wanted = parser.parse_args()
    start = time.perf_counter()
    for path in chapters.write():
        print("written:", path.relative_to(ROOT))
    vendor.fetch()
    folder = cache_folder()
    generate.write(fill_cache(folder, [FRONT, *notebooks()]))
    build(folder, fresh=wanted.all)
    if wanted.pdf:
        from tools import pdf  # with Playwright, which the site itself needs not

        for path in pdf.write():
            print("printed:", path.relative_to(ROOT))
    print(f"{time.perf_counter() - start:.1f} s: {BUILD / 'html' / 'index.html'}")


if __name__ == "__main__":
    main()
