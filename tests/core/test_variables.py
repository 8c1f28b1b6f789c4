"""Environment variables and places of the user, on machines that lack them."""

import os
import tempfile
from pathlib import Path

import platformdirs
import pooch
import pytest

from mtmm_lib.environment import own_folder, variable, whole_number
from mtmm_lib.experiments import repeat, scale
from mtmm_lib.training.place import Place
from tools.project import jobs


def test_the_empty_string_means_not_set(monkeypatch):
    monkeypatch.setenv("MTMM_X", "")
    assert variable("MTMM_X") == "" and variable("MTMM_X", "here") == "here"
    assert whole_number("MTMM_X", 3) == 3
    monkeypatch.setenv("MTMM_X", "5")
    assert variable("MTMM_X", "here") == "5" and whole_number("MTMM_X", 3) == 5


@pytest.mark.parametrize("text", ["-1", "1.5", "one", "0"])
def test_what_is_no_whole_number_is_refused_with_the_variable(monkeypatch, text):
    monkeypatch.setenv("MTMM_X", text)
    with pytest.raises(ValueError, match=f"MTMM_X is a whole number from 1 on.*{text}"):
        whole_number("MTMM_X", 2, least=1)


def test_everything_that_reads_a_variable_takes_an_empty_one(monkeypatch):
    names = ("MTMM_SCALE", "MTMM_WORKERS", "MTMM_JOBS", "WORLD_SIZE")
    for name in names:
        monkeypatch.setenv(name, "")
    assert scale(1, 100) == 1
    assert repeat(lambda seed: {"seed": seed}, [1, 2])["seed"].tolist() == [1, 2]
    assert jobs() == 2
    assert Place("cpu", "float32").world == 1


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """A process under a number that is nobody's, as in a container."""
    pwd = pytest.importorskip("pwd", reason="this system knows its users otherwise")

    def nobody(_):
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert not os.path.isabs(os.path.expanduser("~"))


@pytest.mark.parametrize("find", [pooch.os_cache, platformdirs.user_data_path])
def test_without_a_home_directory_files_are_temporary(homeless, find):
    place = own_folder(find, "mtmm")
    assert place.parent == Path(tempfile.gettempdir())
    assert place.name.startswith("mtmm-")


def test_a_home_directory_that_nobody_can_tell_is_none():
    """As some versions of platformdirs leave it."""
    place = own_folder(lambda name: Path("~/.cache") / name, "mtmm")
    assert place.parent == Path(tempfile.gettempdir())


def test_below_a_folder_that_cannot_be_written_files_are_temporary(
    monkeypatch, tmp_path
):
    usual = tmp_path / "home" / ".cache" / "mtmm"

    def place():
        return own_folder(lambda name: usual, "mtmm")

    assert place() == usual
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert place().parent == Path(tempfile.gettempdir())
    usual.mkdir(parents=True)
    assert place() == usual
