"""One list of dependencies, one address, commands as described, nothing of one
machine."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tools import constraints
from tools.project import ROOT, pyproject, repository, tracked

TEXT = (
    ".md",
    ".py",
    ".toml",
    ".yml",
    ".json",
    ".cff",
    ".ipynb",
    ".txt",
    ".css",
    ".js",
    "Makefile",
    "run",
    ".bib",
)


def test_conda_installs_what_pyproject_lists():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    python = next(line for line in conda if line.startswith("python")).split("=")[-1]
    assert SpecifierSet(pyproject()["project"]["requires-python"]).contains(python)
    assert {line.split("=")[0] for line in conda} == {"python", "pip"}, (
        "packages belong into pyproject.toml"
    )
    project = Requirement(f"mtmm-lib{pip['pip'][-1].removeprefix('-e .')}")
    assert pip["pip"][-1].startswith("-e .") and project.extras <= set(
        pyproject()["project"]["optional-dependencies"]
    )
    assert "lab" in project.extras and "--constraint constraints.txt" in pip["pip"]


def test_every_dependency_has_a_tested_version_for_every_python():
    assert constraints.missing() == []


def test_a_dependency_without_a_tested_version_is_found(monkeypatch):
    plan = {
        "project": {
            "dependencies": ["torch>=999", "numpy"],
            "optional-dependencies": {"lab": ["unheard-of"]},
        }
    }
    monkeypatch.setattr(constraints, "pyproject", lambda: plan)
    found = constraints.missing()
    assert len(found) == 2 * len(constraints.PYTHONS)
    assert (
        found[0] == "Python 3.10: torch>=999 has 0 fitting versions in constraints.txt"
    )


def test_the_pythons_are_the_same_everywhere():
    classifiers = pyproject()["project"]["classifiers"]
    named = [
        line.rsplit(" ", 1)[1] for line in classifiers if re.search(r":: 3\.\d+$", line)
    ]
    assert tuple(named) == constraints.PYTHONS
    assert pyproject()["project"]["requires-python"] == f">={named[0]}"
    assert f"Python {named[0]} to {named[-1]}" in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )


def test_every_link_to_the_repository_is_the_one_address():
    owner, name = repository().removeprefix("https://github.com/").split("/")
    wrong = []
    for path in tracked():
        if path.endswith(TEXT):
            text = (ROOT / path).read_text(encoding="utf-8")
            places = re.findall(
                r"(?:github\.com|colab\.research\.google\.com/github|/v2/gh)/([\w.-]+/[\w.-]+)",
                text,
            )
            mine = [
                place
                for place in places
                if place.split("/")[0] == owner or place.split("/")[-1].startswith(name)
            ]
            wrong += [
                f"{path}: {place}"
                for place in mine
                if place.removesuffix(".git") != f"{owner}/{name}"
            ]
    assert wrong == []


def test_a_file_that_needs_the_address_reads_it():
    """Only plain text that nothing can fill in states the address itself."""
    plain = {"pyproject.toml", "README.md", "CITATION.cff"}
    derived = {path for path in tracked("chapters/*.ipynb")}
    stating = {
        path
        for path in tracked()
        if path.endswith(TEXT) and repository() in (ROOT / path).read_text("utf-8")
    }
    assert stating - derived <= plain


def test_nothing_of_one_machine():
    """No absolute path of a machine stands in a tracked file."""
    found = []
    pattern = re.compile(r"(?<![\w.:/])/(?:home|root|Users|work|mnt|opt)/\w+")
    for path in tracked():
        if path.endswith(TEXT) and path != "tests/book/test_environment.py":
            text = (ROOT / path).read_text(encoding="utf-8")
            found += [f"{path}: {match}" for match in pattern.findall(text)]
    assert found == []


@pytest.fixture
def installed(tmp_path):
    """A virtual environment's folder in which everything is installed already, as far
    as make can tell."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    for stamp in (".installed-lab", ".installed-all"):
        (tmp_path / stamp).touch()
    return tmp_path


def planned(*arguments: str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MAKE")
    }
    command = ["make", "--dry-run", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_a_second_start_of_the_lab_installs_nothing(installed):
    plan = planned("lab", f"VENV={installed}", "ARGS=--no-browser --port 8899")
    assert "pip install" not in plan
    assert "--no-browser --port 8899 chapters/start.ipynb" in plan


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_changed_dependencies_are_installed(installed, changed):
    plan = planned("lab", f"VENV={installed}", "-W", changed)
    assert "pip install --constraint constraints.txt --editable '.[lab]'" in plan
    everything = planned("test", f"VENV={installed}", "-W", changed)
    assert "'.[lab]' --group book --group test" in everything


def test_help_lists_every_command():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)[1].split()
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"^(\w+) ", shown, flags=re.MULTILINE) == targets


def test_the_readme_begins_with_the_two_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"^```bash\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL)[
        1
    ]
    commands = [line.split("#")[0].strip() for line in first.splitlines()]
    assert commands[1:] == ["make lab", "make test"]
    assert len(readme[: readme.index(first)].split()) < 60


def test_the_readme_shows_code_that_runs(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL)[
        1
    ]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    scores = eval(done.stdout)
    # Chance is a half; the total has a standard deviation of 2.2.
    assert scores["bright"] > 0.8 and scores["total"] < 1.1


def test_versions_agree():
    import mtmm_lib

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == mtmm_lib.__version__
    assert citation["repository-code"] == repository()
