"""The library installs alone: its wheel holds the data and runs where nothing else of
the project is."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tools.project import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_library_and_its_data_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.split("/")[0] for name in names}
    assert (
        len(folders) == 2
        and "mtmm_lib" in folders
        and all(f.startswith("mtmm_lib") for f in folders)
    )
    for path in [*(ROOT / "data").rglob("*.npz"), *(ROOT / "data").rglob("CARD.md")]:
        assert (
            f"mtmm_lib/data/embedded/{path.relative_to(ROOT / 'data').as_posix()}"
            in names
        )
    library = ROOT / "mtmm_lib"
    for path in [
        *(library / "lesson/static").glob("*.*"),
        *(library / "data/manifests").glob("*.sha256"),
    ]:
        assert path.relative_to(ROOT).as_posix() in names
    sources = ROOT / "chapters" / "src"
    for path in [*sources.glob("*/*.*"), ROOT / "_toc.yml"]:
        own = path.relative_to(sources if sources in path.parents else ROOT)
        assert f"mtmm_lib/lesson/chapters/{own.as_posix()}" in names
    assert not [name for name in names if name.endswith(".pyc") or "/tests/" in name]


STEP = """
import mtmm_lib, pathlib, sys
assert pathlib.Path(mtmm_lib.__file__).is_relative_to(sys.prefix), mtmm_lib.__file__
from mtmm_lib.data import talking_digits
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import SumFusion
from mtmm_lib.lesson.exercises import exercises
from mtmm_lib.lesson.questions import load
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Classification
from mtmm_lib.training import fit

train, valid, test = talking_digits(tasks=("digit",))
dims = dict.fromkeys(train.inputs, 8)
encoders = {name: MLPEncoder(x[0].numel(), 8) for name, x in train.inputs.items()}
tasks = [Classification("digit", classes=10)]
model = Model(encoders, SumFusion(dims, 8), HardSharing(["digit"], 8, 8), tasks)
fit(model, train, epochs=1, progress=False)
print(len(load("warm-up")) > 0 and len(exercises()) > 0)
"""


def test_the_wheel_runs_in_an_empty_environment(wheel, tmp_path):
    """The environment has the wheel alone; what it depends on is seen through a path,
    not installed again."""
    home = tmp_path / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(home)], check=True
    )
    python = home / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = subprocess.run(
        [str(python), "-I", "-c", STEP], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
