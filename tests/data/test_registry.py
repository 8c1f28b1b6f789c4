"""The registry: what is pinned, and that a set is either whole or refused in one clear
sentence."""

import errno
import gzip
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import pooch
import pytest

from mtmm_lib.data import registry
from mtmm_lib.data.files import data_file
from mtmm_lib.data.registry import SETS, DataError, DataSet, at_hand, fetch

FILES = {
    "LICENSE": b"do what you like\n",
    "words/one.txt": b"1" * 100_000,
    "words/two.txt": b"zwei\n",
}


class Server:
    """An HTTP server on this machine: path → body, or a function that answers the
    request."""

    def __init__(self) -> None:
        self.answers = {}
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                answer = outer.answers.get(self.path)
                if callable(answer):
                    answer(self)
                elif answer is None:
                    self.send_error(404)
                else:
                    begin(self, len(answer))
                    self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}
        ).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def begin(handler, size):
    handler.send_response(200)
    handler.send_header("Content-Length", str(size))
    handler.end_headers()


def breaks_off(body):
    """Promise all, send a third, hang up."""

    def answer(handler):
        begin(handler, len(body))
        handler.wfile.write(body[: len(body) // 3])

    return answer


def slow(body, seconds):
    """Send a third, and the rest after a while."""

    def answer(handler):
        begin(handler, len(body))
        handler.wfile.write(body[: len(body) // 3])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.wfile.write(body[len(body) // 3 :])

    return answer


def archive(files, folder="repository-123", extra=()):
    """A .tar.gz with the files in one top folder, as services that host code make
    them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{path}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member, content in extra:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("MTMM_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "mtmm_lib"


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "manifest.sha256"
    lines = [
        f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in FILES.items()
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def register(monkeypatch, source, manifest):
    size = sum(map(len, FILES.values()))
    data = DataSet("Tiny", source, manifest, "CC0", "Nobody, 2020", size)
    monkeypatch.setattr(registry, "SETS", {"tiny": data})


@pytest.fixture
def folder_of_files(server, cache, manifest, monkeypatch):
    """The set as single files below an address."""
    server.answers = {f"/pinned/{path}": body for path, body in FILES.items()}
    register(monkeypatch, f"{server.address}/pinned", manifest)
    return server


@pytest.fixture
def one_archive(server, cache, manifest, monkeypatch):
    """The set as one archive."""
    server.answers = {"/pinned.tar.gz": archive(FILES)}
    register(monkeypatch, f"{server.address}/pinned.tar.gz", manifest)
    return server


either = pytest.mark.parametrize("kind", ["folder_of_files", "one_archive"])


def holds(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(cache=None):
    """The message of a refused fetch: one sentence. With a cache, nothing of the
    download is left in it."""
    with pytest.raises(DataError) as caught:
        fetch("tiny")
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and ". " not in message, (
        message
    )
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    if cache is not None:
        assert not cache.exists() or list(cache.iterdir()) == []
    return message


# What is registered


@pytest.mark.parametrize("name", SETS)
def test_sources_are_pinned_and_files_have_their_hashes(name):
    data = SETS[name]
    assert re.search(r"/[0-9a-f]{40}(/|\.tar\.gz$|$)", data.source), (
        "a commit, which cannot move"
    )
    assert data.licence and data.citation and data.title and data.size > 0
    lines = data.manifest.read_text(encoding="utf-8").splitlines()
    assert data.files and len(data.files) == len(lines)
    for path, digest in data.files.items():
        assert re.fullmatch(r"[0-9a-f]{64}", digest)
        assert (
            not PurePosixPath(path).is_absolute()
            and ".." not in PurePosixPath(path).parts
        )


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_a_card_that_says_what_the_registry_says(name):
    card = data_file(name, "CARD.md").read_text(encoding="utf-8")
    data = SETS[name]
    assert data.licence in card and f"{data.size:,}" in card
    assert re.search(r"[0-9a-f]{40}", data.source)[0] in card


@pytest.mark.parametrize("name", SETS)
def test_the_real_files_are_the_published_ones(name):
    if not (root := os.environ.get("MTMM_DATA")):
        pytest.skip("MTMM_DATA names no folder with the real sets")
    folder = fetch(name)
    assert folder == Path(root) / name
    assert (
        sum((folder / path).stat().st_size for path in SETS[name].files)
        == SETS[name].size
    )


@pytest.mark.parametrize("ask", [fetch, at_hand])
def test_an_unknown_name_is_refused_with_the_known_ones(ask):
    with pytest.raises(
        DataError,
        match=r"^There is no data set 'fssd'; the registry has fsdd, snips, .*\.$",
    ):
        ask("fssd")


# When all is well


@either
def test_a_set_is_fetched_once_and_then_read_from_the_cache(
    kind, request, cache, capsys
):
    server = request.getfixturevalue(kind)
    folder = fetch("tiny")
    assert folder == cache / "tiny" and holds(folder) == FILES
    assert os.listdir(cache) == ["tiny"], "nothing temporary stays"
    asked = len(server.asked)
    server.answers.clear()
    assert fetch("tiny") == folder and len(server.asked) == asked
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_content_counts_and_not_the_bytes_of_the_archive(one_archive, cache):
    one_archive.answers["/pinned.tar.gz"] = gzip.compress(
        gzip.decompress(
            archive(FILES | {"README": b"not listed"}, folder="another-name")
        ),
        1,
    )
    assert holds(fetch("tiny")) == FILES, (
        "and what the manifest does not list is not unpacked"
    )


def test_names_with_blanks_are_asked_for_as_an_address_needs(
    server, cache, tmp_path, monkeypatch
):
    path = tmp_path / "manifest.sha256"
    path.write_text(
        f"{hashlib.sha256(b'x').hexdigest()}  a b/ü.txt\n", encoding="utf-8"
    )
    server.answers = {"/pinned/a%20b/%C3%BC.txt": b"x"}
    register(monkeypatch, f"{server.address}/pinned", path)
    assert holds(fetch("tiny")) == {"a b/ü.txt": b"x"}


@either
def test_mtmm_data_is_read_and_nothing_is_downloaded(
    kind, request, cache, tmp_path, monkeypatch
):
    server = request.getfixturevalue(kind)
    shutil.copytree(fetch("tiny"), tmp_path / "mine" / "tiny")
    shutil.rmtree(cache)
    server.asked.clear()
    (tmp_path / "mine" / "tiny" / "SOURCE.md").write_text(
        "files that are not listed may lie there, too"
    )
    monkeypatch.setenv("MTMM_DATA", str(tmp_path / "mine"))
    assert fetch("tiny") == tmp_path / "mine" / "tiny"
    assert server.asked == [] and not cache.exists()


def test_an_empty_mtmm_data_is_none(folder_of_files, cache, monkeypatch):
    monkeypatch.setenv("MTMM_DATA", "")
    assert fetch("tiny") == cache / "tiny"


def test_at_hand_is_what_needs_no_download(
    folder_of_files, cache, tmp_path, monkeypatch
):
    assert not at_hand("tiny") and folder_of_files.asked == [], (
        "asking downloads nothing"
    )
    fetch("tiny")
    assert at_hand("tiny")
    monkeypatch.setenv("MTMM_DATA", str(tmp_path / "mine"))
    assert not at_hand("tiny"), "where MTMM_DATA is set, the cache does not count"
    (tmp_path / "mine" / "tiny").mkdir(parents=True)
    assert at_hand("tiny"), "whether the files are all right, fetch finds out"


# What is broken where it lies


def spoil_absent(path):
    path.unlink()


def spoil_truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def spoil_altered(path):
    path.write_bytes(b"0" + path.read_bytes()[1:])


def spoil_replaced(path):
    path.unlink()
    path.mkdir()


SPOILERS = {
    spoil_absent: r"incomplete, for words/one.txt cannot be read \(No such file or "
    r"directory\)",
    spoil_truncated: "damaged, for words/one.txt is cut short or altered",
    spoil_altered: "damaged, for words/one.txt is cut short or altered",
    spoil_replaced: r"incomplete, for words/one.txt cannot be read \(Is a directory\)",
}


@pytest.mark.parametrize(("spoil", "words"), SPOILERS.items())
def test_a_spoiled_file_in_the_cache_is_refused(spoil, words, folder_of_files, cache):
    spoil(fetch("tiny") / "words" / "one.txt")
    before = sorted(cache.rglob("*"))
    message = refusal()
    assert (
        re.search(words, message)
        and f"delete {cache / 'tiny'} and fetch the set again" in message
    )
    assert sorted(cache.rglob("*")) == before
    shutil.rmtree(cache / "tiny")
    assert holds(fetch("tiny")) == FILES, "doing what the message says helps"


@pytest.mark.parametrize(("spoil", "words"), SPOILERS.items())
def test_a_spoiled_file_in_mtmm_data_is_refused(
    spoil, words, folder_of_files, tmp_path, cache, monkeypatch
):
    mine = tmp_path / "mine" / "tiny"
    shutil.copytree(fetch("tiny"), mine)
    spoil(mine / "words" / "one.txt")
    folder_of_files.asked.clear()
    monkeypatch.setenv("MTMM_DATA", str(tmp_path / "mine"))
    message = refusal()
    assert (
        re.search(words, message)
        and f"put the set into {mine}, or unset MTMM_DATA" in message
    )
    assert folder_of_files.asked == []


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_mtmm_data_without_the_set_is_refused(
    name, folder_of_files, cache, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MTMM_DATA", str(tmp_path / name))
    assert (
        f"put the set into {tmp_path / name / 'tiny'}, or unset MTMM_DATA"
        in refusal(cache)
    )
    assert folder_of_files.asked == []


# What goes wrong on the way


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, r"could not be downloaded from http\S+ \(it answered 404\)"),
        (
            breaks_off(FILES["words/one.txt"]),
            r"could not be downloaded from http\S+ \(no connection, or it",
        ),
        (
            FILES["words/one.txt"][:-1],
            "damaged, for words/one.txt is cut short or altered",
        ),
        (
            b"0" + FILES["words/one.txt"][1:],
            "damaged, for words/one.txt is cut short or altered",
        ),
        (b"", "damaged, for words/one.txt is cut short or altered"),
    ],
    ids=["404", "broken off", "truncated", "altered", "empty"],
)
def test_a_file_that_does_not_arrive_whole_is_refused(
    answer, words, folder_of_files, cache
):
    whole = folder_of_files.answers["/pinned/words/one.txt"]
    folder_of_files.answers["/pinned/words/one.txt"] = answer
    message = refusal(cache)
    assert (
        re.search(words, message) and "try again" in message and "MTMM_DATA" in message
    )
    folder_of_files.answers["/pinned/words/one.txt"] = whole
    assert holds(fetch("tiny")) == FILES, "trying again helps"


def linked(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member, b""


WITHOUT = {path: body for path, body in FILES.items() if path != "words/one.txt"}
WHOLE = archive(FILES)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, r"could not be downloaded from http\S+ \(it answered 404\)"),
        (
            breaks_off(WHOLE),
            r"could not be downloaded from http\S+ \(no connection, or it broke\)",
        ),
        (WHOLE[: len(WHOLE) // 2], "is cut short or damaged"),
        (
            WHOLE[: len(WHOLE) // 2] + b"?" + WHOLE[len(WHOLE) // 2 + 1 :],
            "is cut short or",
        ),
        (b"<html>log in first</html>", "is cut short or damaged"),
        (b"", "is cut short or damaged"),
        (
            archive(WITHOUT),
            r"incomplete, for words/one.txt cannot be read \(No such file or "
            r"directory\)",
        ),
        (
            archive(FILES | {"words/one.txt": b"1"}),
            "damaged, for words/one.txt is cut short or altered",
        ),
        (
            archive(FILES, extra=[(tarfile.TarInfo("top/../../out.txt"), b"x")]),
            "'top/../../out.txt' would",
        ),
        (
            archive(FILES, extra=[(tarfile.TarInfo("/top/out.txt"), b"x")]),
            "'/top/out.txt' would leave",
        ),
        (
            archive(WITHOUT, extra=[linked("repository-123/words/one.txt", "two.txt")]),
            "incomplete, for words/one.txt",
        ),
    ],
    ids=[
        "404",
        "broken off",
        "half",
        "a wrong byte",
        "a page instead",
        "empty",
        "a file left out",
        "a file altered",
        "a member that climbs out",
        "an absolute member",
        "a link",
    ],
)
def test_an_archive_that_is_not_right_is_refused(
    answer, words, one_archive, cache, tmp_path
):
    one_archive.answers["/pinned.tar.gz"] = answer
    assert re.search(words, refusal(cache))
    assert not [path for path in tmp_path.rglob("out.txt")]
    one_archive.answers["/pinned.tar.gz"] = WHOLE
    assert holds(fetch("tiny")) == FILES


def test_a_member_below_a_link_is_not_written_through_it(one_archive, cache, tmp_path):
    """A link that stands for a folder would lead what lies in it elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    link = linked("repository-123/words", str(tmp_path / "elsewhere"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(link[0])
        for path, body in FILES.items():
            member = tarfile.TarInfo(f"repository-123/{path}")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    one_archive.answers["/pinned.tar.gz"] = buffer.getvalue()
    assert holds(fetch("tiny")) == FILES
    assert list((tmp_path / "elsewhere").iterdir()) == []


@either
def test_without_a_network(kind, request, cache):
    request.getfixturevalue(kind).close()
    message = refusal(cache)
    assert (
        "(no connection, or it broke): try again with a network, or let MTMM_DATA "
        "name a folder"
    ) in message


@either
def test_a_server_that_falls_silent(kind, request, cache, monkeypatch):
    server = request.getfixturevalue(kind)
    monkeypatch.setattr(registry, "_TIMEOUT", (1, 0.2))
    server.answers = {path: slow(body, 1.0) for path, body in server.answers.items()}
    assert "(no connection, or it broke)" in refusal(cache)


class FullDisk(io.FileIO):
    """A file that takes a little and then says what a full disk says."""

    def write(self, data):
        if self.tell() + len(data) > 1000:
            super().write(data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize(
    ("kind", "bodies"),
    [
        ("folder_of_files", {}),
        (
            "one_archive",
            {"/pinned.tar.gz": archive(FILES | {"README": os.urandom(10_000)})},
        ),
        ("one_archive", {}),
    ],
    ids=["a file", "the archive", "unpacking"],
)
def test_a_full_disk(kind, bodies, request, cache, monkeypatch):
    request.getfixturevalue(kind).answers.update(bodies)
    monkeypatch.setattr(registry, "open", FullDisk, raising=False)
    message = refusal(cache)
    assert (
        f"could not be written to {cache} (No space left on device): it needs a folder"
        in message
    )


@either
def test_a_folder_that_cannot_be_written(kind, request, cache, tmp_path):
    server = request.getfixturevalue(kind)
    (tmp_path / "cache").write_text("a file where the cache's folder should be")
    assert f"could not be written to {cache} (Not a directory)" in refusal()
    assert server.asked == []


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_folder_without_the_right_to_write(folder_of_files, cache):
    cache.mkdir(parents=True)
    cache.chmod(0o500)
    try:
        assert "(Permission denied)" in refusal(cache)
    finally:
        cache.chmod(0o700)


# Interrupts and other processes


@pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="this system has other signals"
)
@either
def test_an_interrupted_download_leaves_nothing(kind, request, cache):
    """Control-C, or the button that interrupts a kernel, in the middle of a
    download."""
    # who runs in the background ignores it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    server = request.getfixturevalue(kind)
    whole = server.answers

    def interrupting(body):
        def answer(handler):
            begin(handler, len(body))
            handler.wfile.write(body[: len(body) // 3])
            handler.wfile.flush()
            wait_until(
                lambda: [
                    path
                    for path in cache.rglob("*")
                    if path.is_file() and path.stat().st_size
                ]
            )
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        return answer

    last = list(whole)[-1]
    server.answers = {**whole, last: interrupting(b"x" * 300_000)}
    with pytest.raises(KeyboardInterrupt) as caught:
        fetch("tiny")
    assert (
        str(caught.value)
        == "The download of tiny was interrupted; nothing of it was kept."
    )
    assert list(cache.iterdir()) == []
    server.answers = whole
    assert holds(fetch("tiny")) == FILES


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


FETCH = """
import importlib.util, sys
from pathlib import Path
import pooch
module, source, manifest, cache = sys.argv[1:]
# alone, since PyTorch is slow to import
spec = importlib.util.spec_from_file_location("registry", module)
registry = sys.modules["registry"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(registry)
pooch.os_cache = lambda project: Path(cache) / project
registry.SETS = {
    "tiny": registry.DataSet("Tiny", source, Path(manifest), "CC0", "Nobody, 2020", 1)
}
print(registry.fetch("tiny"))
"""


def start_fetch(server, manifest, cache):
    """A process of its own that fetches the set."""
    source = f"{server.address}/pinned.tar.gz"
    environment = {
        key: value for key, value in os.environ.items() if key != "MTMM_DATA"
    }
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            FETCH,
            registry.__file__,
            source,
            str(manifest),
            str(cache.parent),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_killed_download_is_no_data_set(one_archive, cache, manifest):
    whole = one_archive.answers
    one_archive.answers = {path: slow(body, 2.0) for path, body in whole.items()}
    process = start_fetch(one_archive, manifest, cache)
    wait_until(lambda: one_archive.asked)
    process.kill()
    process.communicate(timeout=60)
    assert not (cache / "tiny").exists()
    one_archive.answers = whole
    assert holds(fetch("tiny")) == FILES


def test_what_a_killed_download_has_left_is_removed_and_a_living_one_is_not(
    one_archive, cache, manifest
):
    """Also where the set itself was fetched meanwhile."""
    whole = one_archive.answers
    one_archive.answers = {path: slow(body, 2.0) for path, body in whole.items()}
    process = start_fetch(one_archive, manifest, cache)
    wait_until(lambda: cache.is_dir() and list(cache.glob(".tiny-*")))
    process.kill()
    process.communicate(timeout=60)
    (left,) = cache.iterdir()
    one_archive.answers = whole
    fetch("tiny")
    assert set(os.listdir(cache)) == {"tiny", left.name}  # it could live
    long_ago = time.time() - 2 * 3600
    for path in (left, *left.rglob("*")):
        os.utime(path, (long_ago, long_ago))
    (cache / ".tiny-alive").mkdir()
    os.utime(cache / ".tiny-alive", (long_ago, long_ago))
    (cache / ".tiny-alive" / "part").write_bytes(b"just written")
    fetch("tiny")
    assert set(os.listdir(cache)) == {"tiny", ".tiny-alive"}


def test_without_a_home_directory_the_cache_is_temporary(
    folder_of_files, monkeypatch, tmp_path
):
    def nowhere(project):
        raise RuntimeError("no home")

    monkeypatch.setattr(pooch, "os_cache", nowhere)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    folder = fetch("tiny")
    assert holds(folder) == FILES and folder.is_relative_to(tmp_path / "temporary")
    assert at_hand("tiny")


@either
def test_a_log_holds_no_bar_and_a_terminal_shows_one(kind, request, monkeypatch):
    request.getfixturevalue(kind)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for out in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", out)
        shutil.rmtree(fetch("tiny"))
        assert ("Tiny" in out.getvalue()) == out.isatty()


def test_processes_that_fetch_at_once_do_not_disturb_each_other(
    one_archive, cache, manifest
):
    together = threading.Barrier(2)

    def answer(handler):
        together.wait(60)
        slow(WHOLE, 0.2)(handler)

    one_archive.answers = {"/pinned.tar.gz": answer}
    processes = [start_fetch(one_archive, manifest, cache) for _ in range(2)]
    for process in processes:
        output, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        assert output.strip() == str(cache / "tiny")
    assert holds(cache / "tiny") == FILES and os.listdir(cache) == ["tiny"]


def test_who_comes_second_takes_what_is_there(folder_of_files, cache, monkeypatch):
    """Another process finishes between our verification and our renaming."""
    replace = os.replace

    def late(stage, folder):
        shutil.copytree(stage, folder)
        return replace(stage, folder)

    monkeypatch.setattr(os, "replace", late)
    assert holds(fetch("tiny")) == FILES and os.listdir(cache) == ["tiny"]


def test_a_renaming_that_fails_is_reported(folder_of_files, cache, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", fail)
    assert "could not be written to" in refusal(cache)
