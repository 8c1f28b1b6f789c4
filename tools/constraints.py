"""Resolve the dependencies of ``pyproject.toml`` for Python 3.10 to 3.13 and write
``constraints.txt``.

Versions that still fit are kept; ``--upgrade`` takes the newest. The CUDA libraries
that PyTorch's default build brings along are left to PyTorch: it pins them itself, and
its CPU-only build needs none of them. ``--check`` looks, without a network, whether
every dependency has a version that fits for each Python.
"""

from __future__ import annotations

import re
import subprocess
import sys

from packaging.requirements import Requirement

from tools.project import ROOT, pyproject

TARGET = ROOT / "constraints.txt"
HEADER = (
    "# The versions this project was tested with, for Python 3.10 to 3.13. "
    "Refresh: make constraints\n"
)
LEFT_TO_TORCH = re.compile(r"(nvidia|cuda|triton)\b")
GROUPS = ("--group", "book", "--group", "test")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def missing() -> list[str]:
    """The dependencies that ``constraints.txt`` gives no fitting version, one sentence
    each."""
    lines = [
        line
        for line in TARGET.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    pins = [Requirement(line) for line in lines]
    plan = pyproject()
    project = plan["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    lists += plan.get("dependency-groups", {}).values()
    # The project's own name, in an extra that takes others along, is no dependency.
    own = project.get("name")
    wanted = [
        line for group in lists for line in group if Requirement(line).name != own
    ]
    problems = []
    for python in PYTHONS:
        here = {"python_version": python, "python_full_version": f"{python}.0"}
        for line in wanted:
            need = Requirement(line)
            if need.marker and not need.marker.evaluate(here):
                continue
            fits = [
                pin
                for pin in pins
                if pin.name.lower() == need.name.lower()
                and (not pin.marker or pin.marker.evaluate(here))
                and need.specifier.contains(
                    next(iter(pin.specifier)).version, prereleases=True
                )
            ]
            if len(fits) != 1:
                problems.append(
                    f"Python {python}: {line} has {len(fits)} fitting versions in "
                    f"{TARGET.name}"
                )
    return problems


def main() -> None:
    if "--check" in sys.argv[1:]:
        if problems := missing():
            raise SystemExit("\n".join([*problems, "Run `make constraints`."]))
        return
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "pyproject.toml",
        "--all-extras",
        *GROUPS,
        "--universal",
    ]
    command += [
        "--python-version",
        "3.10",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
        "--quiet",
    ]
    subprocess.run(
        [*command, *sys.argv[1:], "--output-file", str(TARGET)], cwd=ROOT, check=True
    )
    lines = TARGET.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [
        line
        for line in lines
        if not line.startswith("#") and not LEFT_TO_TORCH.match(line)
    ]
    TARGET.write_text(HEADER + "".join(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
