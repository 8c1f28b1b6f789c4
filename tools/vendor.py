"""The two scripts that the site serves itself, mathematics and widgets, taken from their npm packages.

``package.json`` names the packages, their versions and the hashes of their archives. Where npm is not available
the site refers to the same files of the same versions at their public address.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tools.project import BUILD, ROOT

FOLDER = BUILD / "vendor"
PUBLIC = "https://cdn.jsdelivr.net/npm"
# package -> the script a page loads, and the folder of files that script fetches (its fonts)
SCRIPTS = {
    "mathjax": ("es5/tex-chtml-full.js", "es5/output/chtml/fonts/woff-v2/"),
    "@jupyter-widgets/html-manager": ("dist/embed.js", None),
}


@cache
def packages() -> dict[str, Any]:
    """The content of ``package.json``."""
    return json.loads((ROOT / "package.json").read_text(encoding="utf-8"))


def folder(package: str) -> Path:
    """Where the files of ``package`` lie; the version is in the name, so that a new one is fetched."""
    return FOLDER / f"{package}@{packages()['dependencies'][package]}"


def script(package: str) -> str:
    """The address of the package's script for a page: below ``_static`` when it was fetched, else public."""
    path = folder(package) / SCRIPTS[package][0]
    if path.exists():
        return path.relative_to(FOLDER).as_posix()
    return f"{PUBLIC}/{package}@{packages()['dependencies'][package]}/{SCRIPTS[package][0]}"


def fetch() -> None:
    """Fetch what is not there yet, with npm; without npm, say so and leave the public address."""
    for package, version in packages()["dependencies"].items():
        target = folder(package)
        if target.exists():
            continue
        npm = shutil.which("npm")
        if npm is None:
            print(f"npm is not installed: the site will load {package} from {PUBLIC}")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            command = [npm, "pack", "--silent", "--pack-destination", scratch, f"{package}@{version}"]
            done = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
            archives = list(Path(scratch).glob("*.tgz"))
            if done.returncode or not archives:
                print(f"npm could not fetch {package}@{version}: the site will load it from {PUBLIC}")
                continue
            check(archives[0], packages()["integrity"][package])
            unpack(archives[0], target, SCRIPTS[package])


def check(archive: Path, integrity: str) -> None:
    """Refuse an archive whose SHA-512 is not the one in ``package.json``."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != integrity:
        raise SystemExit(f"{archive.name}: expected {integrity}, got {found}. Was the version in package.json raised?")


def unpack(archive: Path, target: Path, wanted: tuple[str, str | None]) -> None:
    """Unpack the wanted files; the target appears only when it is complete."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            name = member.name.removeprefix("package/")
            if member.isfile() and (name == wanted[0] or (wanted[1] and name.startswith(wanted[1]))):
                path = partial / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())
    partial.rename(target)
