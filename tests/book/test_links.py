"""The link check: pages that are gone, pages that turn robots away, a machine without a
network."""

import http.server
import sys
import threading

import pytest

from tools import links

ANSWERS = {"/here": 200, "/moved": 302, "/shy": 403, "/gone": 404}


@pytest.fixture
def server():
    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(ANSWERS[self.path])
            if self.path == "/moved":
                self.send_header("Location", "/here")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def plant(folder, address):
    (folder / "_config.yml").write_text("title: Planted\nonly_build_toc_files: true\n")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    (folder / "index.md").write_text(
        f"# Planted\n\n[a]({address}/here) [b]({address}/shy) [c](other.md)\n"
    )
    (folder / "other.md").write_text("# Not in the table of contents\n")
    (folder / "README.md").write_text(
        f"# Text\n\n[d]({address}/moved)\n\n[e]({address}/gone)\n"
    )
    (folder / "CONTRIBUTING.md").write_text("# Text\n\n[f](README.md)\n")


def test_only_a_page_that_is_not_there_is_a_failure(tmp_path, server):
    plant(tmp_path, server)
    records = links.check(tmp_path, tmp_path / "cache")
    kinds = {record["uri"].removeprefix(server): record["status"] for record in records}
    assert kinds == {
        "/here": "working",
        "/shy": "turned away",
        "/moved": "redirected",
        "/gone": "broken",
    }
    lines, broken = links.judge(records)
    assert lines[0] == "1 broken, 1 redirected, 1 turned away, 1 working"
    assert len(lines) == 2 and lines[1].startswith(
        f"turned away: index.md:3: {server}/shy (403 "
    )
    assert len(broken) == 1 and broken[0].startswith(
        f"README.md:5: {server}/gone (404 "
    )


def test_without_a_network_it_says_so():
    """What a machine without network gets for each link: no answer from anybody."""
    record = {
        "filename": "a.md",
        "lineno": 1,
        "uri": "https://example.org",
        "status": "broken",
    }
    lost = [
        {**record, "info": "Failed to resolve"},
        {**record, "status": "timeout", "info": "timed out"},
    ]
    with pytest.raises(
        SystemExit, match="No network: none of 2 pages could be reached"
    ):
        links.judge(lost)
    found = {**record, "status": "working", "info": ""}
    lines, broken = links.judge([*lost, found])
    assert lines == [
        "1 broken, 1 timeout, 1 working",
        "timeout: a.md:1: https://example.org (timed out)",
    ]
    assert broken == ["a.md:1: https://example.org (Failed to resolve)"]


def test_a_builder_that_fails_is_reported(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such page')"]
    with pytest.raises(
        SystemExit, match="(?s)The builder did not come to an end.*no such page"
    ):
        links.outcome(command, tmp_path, tmp_path)
