"""The workflows run what anybody can run, with the rights that they need, and turn
failures into issues."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools import claims, constraints
from tools.project import ROOT

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {
    path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yml"))
}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)[1].split()

# What a step may run besides make: on systems where make is no matter of course, the
# README's commands.
PLAIN = {
    ".ci/run",
    "python -m pip install --constraint constraints.txt "
    '--editable ".[lab]" --group book --group test',
    "python -m pytest -q tests/core",
    "python -m pytest -q --nbval-lax chapters/*-everything-is-a-mapping.ipynb",
}
# What a job may do beyond reading the repository.
RIGHTS = {
    ("tests.yml", "publish"): {"pages": "write", "id-token": "write"},
    ("weekly.yml", "report"): {"contents": "read", "issues": "write"},
}


def jobs():
    return [
        (name, *job)
        for name, text in WORKFLOWS.items()
        for job in yaml.safe_load(text)["jobs"].items()
    ]


def expanded(job: dict, text: str) -> set[str]:
    """What ``text`` becomes in the job's matrix."""
    matrix = job.get("strategy", {}).get("matrix", {})
    rows = matrix.get("include") or [
        {name: value} for name, values in matrix.items() for value in values
    ]
    fill = re.compile(r"\$\{\{ matrix\.(\w+) \}\}")
    return {
        fill.sub(lambda match, row=row: row[match[1]], text) for row in rows or [{}]
    }


each_job = pytest.mark.parametrize(
    "file, name, job", jobs(), ids=lambda value: value if isinstance(value, str) else ""
)


@each_job
def test_a_step_runs_a_target_of_the_makefile(file, name, job):
    for step in job["steps"]:
        for command in expanded(job, step.get("run", "make help")):
            program, *words = shlex.split(command)
            if program == "make":
                assert words[0] in TARGETS and all("=" in word for word in words[1:]), (
                    command
                )
            else:
                assert command in PLAIN, command


@each_job
def test_a_job_has_a_time_limit_and_no_more_rights_than_it_needs(file, name, job):
    assert job["timeout-minutes"] <= 300
    assert job.get("permissions") == RIGHTS.get((file, name))


@pytest.mark.parametrize("file", WORKFLOWS)
def test_a_workflow_reads_and_knows_no_secret(file):
    plan = yaml.safe_load(WORKFLOWS[file])
    assert plan["permissions"] == {"contents": "read"}
    assert "secrets" not in WORKFLOWS[file], "the job's own token is github.token"
    assert "pull_request_target" not in WORKFLOWS[file], (
        "it would give a stranger's code the rights of main"
    )
    for job in plan["jobs"].values():
        with_token = [step for step in job["steps"] if "github.token" in str(step)]
        assert not with_token or "permissions" in job


@each_job
def test_actions_are_githubs_own_in_a_version_and_keep_no_token(file, name, job):
    for step in job["steps"]:
        if action := step.get("uses"):
            assert re.fullmatch(r"actions/[\w-]+@(v\d+|[0-9a-f]{40})", action), action
        if (action or "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False


def test_commands_hold_nothing_that_a_stranger_can_write():
    """A title or a branch's name would be put into the shell as it is."""
    for _, _, job in jobs():
        for step in job["steps"]:
            assert set(re.findall(r"\$\{\{ *(\w+)", step.get("run", ""))) <= {"matrix"}


def test_only_main_is_published_and_only_after_the_tests():
    plan = yaml.safe_load(WORKFLOWS["tests.yml"])["jobs"]
    (upload,) = [
        step
        for step in plan["everything"]["steps"]
        if "upload-pages" in step.get("uses", "")
    ]
    steps = plan["everything"]["steps"]
    assert steps.index(upload) > steps.index({"run": ".ci/run"})
    assert plan["publish"]["if"] == upload["if"] == "github.ref == 'refs/heads/main'"
    assert set(plan["publish"]["needs"]) >= {"everything", "versions"}


def test_the_oldest_and_the_newest_python_are_tested():
    versions = yaml.safe_load(WORKFLOWS["tests.yml"])["jobs"]["versions"]["strategy"][
        "matrix"
    ]["include"]
    tested = {(row["python"], row["make"]) for row in versions}
    oldest, newest = constraints.PYTHONS[0], constraints.PYTHONS[-1]
    assert tested >= {(oldest, "oldest"), (oldest, "library"), (newest, "library")}
    assert f"\nOLDEST ?= python{oldest}\nNEWEST ?= python{newest}\n" in MAKEFILE
    named = {
        row
        for text in WORKFLOWS.values()
        for row in re.findall(r'python(?:-version)?: "([\d.]+)"', text)
    }
    assert named <= set(constraints.PYTHONS)


def test_every_weekly_job_is_reported():
    plan = yaml.safe_load(WORKFLOWS["weekly.yml"])["jobs"]
    assert set(plan["report"]["needs"]) == set(plan) - {"report"}
    assert plan["report"]["if"] == "always()"


def test_every_week_has_seeds_of_its_own(monkeypatch):
    used, day = [], 24 * 3600
    monkeypatch.setattr(claims, "notebooks", lambda _: [Path("01-first.ipynb")])
    monkeypatch.setattr(
        claims, "execute", lambda tasks, *_, **__: used.append(tasks) or []
    )
    for now in (20_000 * day, 20_007 * day, 20_014 * day, 20_014 * day):
        monkeypatch.setattr(claims.time, "time", lambda now=now: now)
        monkeypatch.setattr("sys.argv", ["claims", "--seeds", "10", "--week"])
        with pytest.raises(SystemExit, match="0"):
            claims.main()
    seeds = [
        [environment["MTMM_SEED"] for _, _, environment in tasks] for tasks in used
    ]
    assert all(len(each) == 10 for each in seeds) and seeds[2] == seeds[3]
    assert len({seed for each in seeds for seed in each}) == 30
    # NumPy's old generator, which start() seeds, takes no larger ones.
    assert 1000 * max(map(int, seeds[2])) + 999 < 2**32


@pytest.fixture
def hosting(tmp_path, monkeypatch):
    """A folder that plays the hosting: a `gh` that answers from a file and writes down
    what it was told."""
    program = tmp_path / "gh"
    program.write_text(
        f"""#!{sys.executable}
import json, pathlib, sys
folder = pathlib.Path({str(tmp_path)!r})
if sys.argv[1:3] == ["issue", "list"]:
    print((folder / "open.json").read_text())
else:
    with open(folder / "told.jsonl", "a") as told:
        told.write(json.dumps(sys.argv[1:]) + chr(10))
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_SERVER_URL": "https://hosting.test",
        "GITHUB_REPOSITORY": "owner/book",
        "GITHUB_RUN_ID": "77",
    }

    def report(results, opened=()):
        (tmp_path / "open.json").write_text(json.dumps(list(opened)))
        (tmp_path / "told.jsonl").write_text("")
        needs = json.dumps(
            {job: {"result": result, "outputs": {}} for job, result in results.items()}
        )
        command = ["make", "--no-print-directory", "report", f"PYTHON={sys.executable}"]
        subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment, "NEEDS": needs},
            check=True,
        )
        return [
            json.loads(line)
            for line in (tmp_path / "told.jsonl").read_text().splitlines()
        ]

    return report


def test_each_failure_opens_an_issue(hosting):
    told = hosting(
        {
            "claims": "failure",
            "links": "success",
            "newest": "cancelled",
            "everything": "skipped",
        }
    )
    assert [words[:4] for words in told] == [
        ["issue", "create", "--title", f"Weekly run: {job} fails"]
        for job in ("claims", "newest")
    ]
    assert "https://hosting.test/owner/book/actions/runs/77" in told[0][-1]


def test_a_second_failure_is_a_comment_on_the_first(hosting):
    opened = [
        {"number": 12, "title": "Weekly run: links fails"},
        {"number": 9, "title": "Weekly run: links fails, and claims fails"},
    ]
    told = hosting({"links": "failure", "claims": "failure"}, opened)
    assert [words[:3] for words in told] == [
        ["issue", "comment", "12"],
        ["issue", "create", "--title"],
    ]


def test_a_good_week_is_not_reported(hosting):
    assert hosting({"links": "success", "claims": "success"}) == []
