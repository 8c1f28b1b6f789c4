"""What the tests need from the system is installed where it may be, or named."""

import pytest

from tools import system


def having(*names: str):
    return lambda name: f"/usr/bin/{name}" if name in names else None


def test_nothing_is_missing_where_everything_is_there():
    there = having("google-chrome", "espeak-ng", "npm")
    assert system.missing(there) == []


def test_what_is_missing_is_named_with_its_purpose_and_its_command():
    absent = system.missing(having("npm"))
    assert [program.names[0] for program in absent] == ["chromium", "espeak-ng"]
    told = system.advice(absent, having("dnf"))
    assert "`sudo dnf install chromium espeak-ng`" in told
    assert all(program.purpose in told for program in absent)


@pytest.mark.parametrize(
    "there, root, commands",
    [
        (
            ["apt-get"],
            True,
            [
                "apt-get update -qq",
                "apt-get install -y -qq --no-install-recommends npm",
            ],
        ),
        (["brew"], False, ["brew install --quiet node"]),
        (["apt-get"], False, []),  # no sudo: nothing may be installed
        ([], True, []),
    ],
)
def test_what_is_missing_is_installed_where_it_may_be(there, root, commands):
    absent = system.missing(having("chromium", "espeak-ng"))
    planned = system.plan(absent, having(*there), root)
    assert [" ".join(command) for command in planned] == commands
