"""Resolve the dependencies of ``pyproject.toml`` for Python 3.10 to 3.13 and write ``constraints.txt``.

Versions that still fit are kept; ``--upgrade`` takes the newest. The CUDA libraries that PyTorch's default
build brings along are left to PyTorch: it pins them itself, and its CPU-only build needs none of them.
"""

from __future__ import annotations

import re
import subprocess
import sys

from tools.project import ROOT

HEADER = "# The versions this project was tested with, for Python 3.10 to 3.13. Refresh: make constraints\n"
LEFT_TO_TORCH = re.compile(r"(nvidia|cuda|triton)\b")


def main() -> None:
    target = ROOT / "constraints.txt"
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--all-extras", "--universal"]
    command += ["--python-version", "3.10", "--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
    subprocess.run([*command, *sys.argv[1:], "--output-file", str(target)], cwd=ROOT, check=True)
    lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("#") and not LEFT_TO_TORCH.match(line)]
    target.write_text(HEADER + "".join(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
