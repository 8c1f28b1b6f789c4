"""What the site serves itself (mathematics, widgets, type), and what its tests load,
taken from npm packages.

``package.json`` names the packages, their versions and the hashes of their archives.
Where npm is not available the site loads the same versions of the scripts from their
public address, and no fonts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from tools.project import BUILD, ROOT

FOLDER = BUILD / "vendor"
FOR_TESTS = BUILD / "vendor-tests"  # the site does not serve it
PUBLIC = "https://cdn.jsdelivr.net/npm"
# package → what a page loads, and what that loads in turn
FILES = {
    "mathjax": (["es5/tex-chtml-full.js"], ["es5/output/chtml/fonts/woff-v2/*.woff"]),
    "@jupyter-widgets/html-manager": (["dist/embed.js"], ["dist/*.woff2"]),
    "@fontsource-variable/source-serif-4": (
        ["index.css", "wght-italic.css"],
        ["files/*-wght-*.woff2"],
    ),
    "@fontsource-variable/source-sans-3": (
        ["index.css"],
        ["files/*-wght-normal.woff2"],
    ),
    "axe-core": (["axe.min.js"], []),
}


@cache
def packages() -> dict[str, Any]:
    """The content of ``package.json``."""
    return json.loads((ROOT / "package.json").read_text(encoding="utf-8"))


def versions() -> dict[str, str]:
    """Package → its version, of what the site and the tests load."""
    return packages()["dependencies"] | packages()["devDependencies"]


def folder(package: str) -> Path:
    """Where the files of ``package`` lie; the version is in the name, so that a new one
    is fetched."""
    place = FOLDER if package in packages()["dependencies"] else FOR_TESTS
    return place / f"{package}@{versions()[package]}"


def addresses(package: str) -> list[str]:
    """What a page loads: below ``_static`` when it was fetched; else scripts from
    outside, and no type."""
    loaded = FILES[package][0]
    if folder(package).exists():
        return [
            (folder(package) / name).relative_to(FOLDER).as_posix() for name in loaded
        ]
    return [
        f"{PUBLIC}/{package}@{versions()[package]}/{name}"
        for name in loaded
        if name.endswith(".js")
    ]


def fetch() -> None:
    """Fetch what is not there yet, with npm; without npm, say so and leave the public
    address."""
    npm = shutil.which("npm")
    for package, version in versions().items():
        if folder(package).exists():
            continue
        with tempfile.TemporaryDirectory() as scratch:
            command = [
                "pack",
                "--silent",
                "--pack-destination",
                scratch,
                f"{package}@{version}",
            ]
            if (
                npm is None
                or subprocess.run(
                    [npm, *command], cwd=scratch, capture_output=True
                ).returncode
            ):
                print(
                    f"npm could not fetch {package} {version}: see tools/vendor.py "
                    "for what that means"
                )
                continue
            archive = next(Path(scratch).glob("*.tgz"))
            check(archive, packages()["integrity"][package])
            unpack(
                archive,
                folder(package),
                [*FILES[package][0], *FILES[package][1], "LICENSE*"],
            )


def check(archive: Path, integrity: str) -> None:
    """Refuse an archive whose SHA-512 is not the one in ``package.json``."""
    found = (
        "sha512-"
        + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    )
    if found != integrity:
        raise SystemExit(
            f"{archive.name}: package.json expects {integrity}, the archive has {found}"
        )


def unpack(archive: Path, target: Path, wanted: list[str]) -> None:
    """Unpack the wanted files; the target appears only when it is complete."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            name = member.name.split("/", 1)[-1]  # all lies in one folder, "package"
            if member.isfile() and any(fnmatch(name, pattern) for pattern in wanted):
                path = partial / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())
    partial.rename(target)


if __name__ == "__main__":
    fetch()
