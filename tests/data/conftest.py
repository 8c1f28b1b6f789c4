"""Stand-ins for the real public data sets: files of the same format, small and made
up."""

import hashlib
from dataclasses import replace

import pytest

from mtmm_lib.data import registry


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """`stand_in(name, files)` makes files (path → bytes) the content of a registered
    set."""

    def make(name, files):
        folder = tmp_path / "sets" / name
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        manifest = tmp_path / f"{name}.sha256"
        lines = [
            f"{hashlib.sha256(content).hexdigest()}  {path}\n"
            for path, content in files.items()
        ]
        manifest.write_text("".join(lines), encoding="utf-8")
        changed = replace(registry.SETS[name], manifest=manifest)
        monkeypatch.setattr(registry, "SETS", registry.SETS | {name: changed})
        monkeypatch.setenv("MTMM_DATA", str(tmp_path / "sets"))
        return folder

    return make
