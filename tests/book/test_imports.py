"""The library's floors, and what importing it costs."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import mtmm_lib

# Top to bottom. A module imports only from floors below its own, or from its own
# package.
FLOORS = [
    ["lesson"],
    ["experiments", "deploy"],
    ["training"],
    ["model", "modality_balance"],
    ["balancing", "tasks", "metrics", "results"],
    ["encoders", "fusion", "sharing", "adversarial", "alignment", "masked"],
    ["attention"],
    ["modalities"],
    ["data"],
    ["batch"],
]
LEVEL = {
    name: len(FLOORS) - depth for depth, floor in enumerate(FLOORS) for name in floor
}
HEAVY = [
    "accelerate",
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


def imports(path: Path) -> set[str]:
    """What of the library a file imports, anywhere in it, as the name of the module on
    the first level."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            # names for annotations, which are imported by no one who runs the code
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path.name} has a relative import: write the whole name"
            )
            whole = node.module == "mtmm_lib"
            found |= (
                {f"mtmm_lib.{alias.name}" for alias in node.names}
                if whole
                else {node.module}
            )
    return {name.split(".")[1] for name in found if name.startswith("mtmm_lib.")}


def problems(name: str, imported: set[str]) -> list[str]:
    if name not in LEVEL:
        return [f"{name} stands on no floor: add it to FLOORS"]
    upward = [
        other for other in imported - {name} if LEVEL.get(other, 99) >= LEVEL[name]
    ]
    return [
        f"{name} imports {other}, which is not below it" for other in sorted(upward)
    ]


def test_a_module_imports_only_from_floors_below():
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).with_suffix("").parts[0]
        found += problems(name, imports(path)) if name != "__init__" else []
    assert found == []


def test_an_import_from_above_is_found():
    assert problems("batch", {"data"}) == ["batch imports data, which is not below it"]
    assert problems("tasks", {"metrics"}) == [
        "tasks imports metrics, which is not below it"
    ]
    assert problems("training", {"tasks", "batch", "training"}) == []


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
