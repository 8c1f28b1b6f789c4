"""The programs that the tests need and pip cannot install: a browser, a voice, npm.

What is missing is installed where a package manager is at hand and may be used; where
not, a sentence names it and the command that installs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Which = Callable[[str], str | None]


@dataclass(frozen=True)
class Program:
    """A program: the names it goes by, what it is for, and the package of each
    manager that has it."""

    names: tuple[str, ...]
    purpose: str
    packages: dict[str, str]


PROGRAMS = (
    Program(
        ("chromium", "chromium-browser", "google-chrome"),
        "the tests of the site look at it in a browser",
        {"apt-get": "chromium", "dnf": "chromium", "brew": "chromium"},
    ),
    Program(
        ("espeak-ng",),
        "a test makes the spoken digits anew",
        {"apt-get": "espeak-ng", "dnf": "espeak-ng", "brew": "espeak-ng"},
    ),
    Program(
        ("npm",),
        "the site serves its own scripts and fonts",
        {"apt-get": "npm", "dnf": "npm", "brew": "node"},
    ),
)
INSTALL = {
    "apt-get": ["apt-get", "install", "-y", "-qq", "--no-install-recommends"],
    "dnf": ["dnf", "install", "-y", "-q"],
    "brew": ["brew", "install", "--quiet"],
}


def missing(which: Which = shutil.which) -> list[Program]:
    """The programs that are not there."""
    return [p for p in PROGRAMS if not any(map(which, p.names))]


def plan(
    absent: Sequence[Program], which: Which = shutil.which, root: bool = False
) -> list[list[str]]:
    """The commands that install them; none where no manager is there or may be used.

    Args:
        absent: what to install.
        which: finds a program.
        root: whether this process may do everything.
    """
    manager = next((name for name in INSTALL if which(name)), None)
    if manager is None:
        return []
    before = []
    if manager != "brew" and not root:
        # Without a password, or not at all: nobody may be there to type one.
        if not which("sudo") or subprocess.run(["sudo", "-n", "true"]).returncode:
            return []
        before = ["sudo", "-n"]
    packages = [program.packages[manager] for program in absent]
    update = [[*before, "apt-get", "update", "-qq"]] if manager == "apt-get" else []
    return [*update, [*before, *INSTALL[manager], *packages]]


def advice(absent: Sequence[Program], which: Which = shutil.which) -> str:
    """What is missing, what for, and what installs it."""
    lines = [f"- {p.names[0]}: {p.purpose}" for p in absent]
    manager = next((name for name in INSTALL if which(name)), "apt-get")
    packages = " ".join(program.packages[manager] for program in absent)
    sudo = "" if manager == "brew" else "sudo "
    return "\n".join(
        [
            "The tests need programs that are not installed:",
            *lines,
            f"Install them, as with `{sudo}{manager} install {packages}`, and run "
            "`make test` again.",
        ]
    )


def main() -> None:
    if not (absent := missing()):
        return
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    for command in plan(absent, root=root):
        print(" ".join(command), flush=True)
        if subprocess.run(command).returncode:
            break
    if absent := missing():
        sys.exit(advice(absent))


if __name__ == "__main__":
    main()
