"""The library's floors, and what importing it costs."""

import ast
import pkgutil
import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mtmm_lib

# Top to bottom. A module imports only from floors below its own, or from its own
# package; and no module imports, by whatever way, itself.
FLOORS = [
    ["lesson"],
    ["deploy", "experiments"],
    ["training"],
    ["balancing"],
    ["model"],
    ["fusion", "sharing", "tasks"],
    ["encoders", "metrics", "data"],
    ["bar", "batch", "environment", "replacing", "results"],
    ["arrays"],
]
LEVEL = {name: len(FLOORS) - i for i, floor in enumerate(FLOORS) for name in floor}
HEAVY = [
    "IPython",
    "ipywidgets",
    "joblib",
    "jupyterquiz",
    "matplotlib",
    "pandas",
    "PIL",
    "pooch",
]
HEAVY += [
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pygments",
    "scipy",
    "sklearn",
    "torchmetrics",
    "tqdm",
]

ROOT = Path(mtmm_lib.__file__).parent
MODULES = [
    module.name for module in pkgutil.walk_packages(mtmm_lib.__path__, "mtmm_lib.")
]


def imports(path: Path, modules: set[str]) -> set[str]:
    """The modules that a file imports from, anywhere in it, for annotations too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path} has a relative import: write the whole name"
            )
            for alias in node.names:  # `from package import module` imports the module
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules else node.module)
    return found & modules


def graph(root: Path) -> dict[str, set[str]]:
    """Every module of the library in `root` → what of the library it imports from."""
    paths = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: imports(path, set(paths)) for name, path in sorted(paths.items())}


def problems(found: dict[str, set[str]]) -> list[str]:
    """Arrows up the floors, and circles, each in a sentence."""
    told = []
    for name, imported in found.items():
        if name == "mtmm_lib":
            continue
        room = name.split(".")[1]
        if room not in LEVEL:
            told.append(f"{room} stands on no floor: add it to FLOORS")
            continue
        for other in sorted(imported - {"mtmm_lib"}):
            there = other.split(".")[1]
            if there != room and LEVEL.get(there, 99) >= LEVEL[room]:
                told.append(f"{name} imports {other}, which is not below it")
    try:
        tuple(TopologicalSorter(found).static_order())
    except CycleError as error:
        told.append("a circle: " + " → ".join(error.args[1]))
    return told


def test_a_module_imports_only_from_floors_below():
    assert problems(graph(ROOT)) == []


@pytest.mark.parametrize(
    "module, line, problem",
    [
        ("batch", "from mtmm_lib.data import splits", "imports mtmm_lib.data.splits"),
        (
            "tasks/base",
            "if TYPE_CHECKING:\n    from mtmm_lib.model import Model",
            "mtmm_lib.tasks.base imports mtmm_lib.model, which is not below it",
        ),
        (
            "metrics",
            "def late():\n    import mtmm_lib.training.fit",
            "mtmm_lib.metrics imports mtmm_lib.training.fit, which is not below it",
        ),
        (
            "training/seeds",
            "from mtmm_lib.training.place import Place",
            "a circle: mtmm_lib.training",
        ),
        ("sharing/base", "from mtmm_lib.tasks import Task", "which is not below it"),
    ],
)
def test_a_planted_arrow_is_found(tmp_path, module, line, problem):
    shutil.copytree(ROOT, tmp_path / "mtmm_lib")
    with open(tmp_path / "mtmm_lib" / f"{module}.py", "a", encoding="utf-8") as file:
        file.write(f"\n\n{line}\n")
    assert any(problem in told for told in problems(graph(tmp_path / "mtmm_lib")))


def test_importing_the_library_loads_nothing_heavy():
    """What torch loads itself is torch's own cost; the rest comes with the function
    that needs it."""
    code = f"""
import importlib, sys
import torch, torch.nn.functional, torch.utils.data
for name in {["mtmm_lib", *MODULES]}:
    before = set(sys.modules)
    importlib.import_module(name)
    loaded = {{module.split(".")[0] for module in set(sys.modules) - before}}
    for heavy in sorted(loaded & set({HEAVY})):
        print(name, "loads", heavy)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
