"""Files that are replaced as a whole or not at all."""

import os
import platform
import subprocess
import sys
import time

import pytest

from mtmm_lib.replacing import replacing


def test_the_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with replacing(path) as part:
        assert part.parent == tmp_path and part.suffix == ".onnx"
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(RuntimeError), replacing(path) as part:
        part.write_text("broken")
        raise RuntimeError
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_several_write_at_once(tmp_path):
    path = tmp_path / "model.onnx"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written_it_fails_at_once(tmp_path):
    begun = False
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "no" / "model.onnx"):
        begun = True
    assert not begun


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "a[1].onnx"
    code = """
import os, sys
from pathlib import Path
from mtmm_lib.replacing import replacing
with replacing(Path(sys.argv[1])) as part:
    part.write_text("half")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 9
    (left,) = tmp_path.iterdir()
    # another host's process of this number may be alive
    elsewhere = left.with_name(left.name.replace(platform.node(), "elsewhere"))
    elsewhere.write_text("half")
    other = tmp_path / "b.onnx"
    other.write_text("another model")
    with replacing(path) as part:
        part.write_text("new")
    assert set(tmp_path.iterdir()) == {path, elsewhere, other}
    long_ago = time.time() - 2 * 3600
    os.utime(elsewhere, (long_ago, long_ago))
    with replacing(path) as part:
        part.write_text("newer")
    assert path.read_text() == "newer" and set(tmp_path.iterdir()) == {path, other}
