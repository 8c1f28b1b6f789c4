"""What the site serves itself: the pinned archives and nothing else."""

import base64
import hashlib
import io
import tarfile

import pytest

from tools import vendor


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "archive.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in (
            "package/dist/embed.js",
            "package/dist/font.woff2",
            "package/src/secret.ts",
        ):
            content = name.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_an_archive_with_another_hash_is_refused(archive):
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    vendor.check(archive, f"sha512-{digest}")
    archive.write_bytes(archive.read_bytes() + b" ")
    with pytest.raises(SystemExit, match="archive.tgz: package.json expects sha512-"):
        vendor.check(archive, f"sha512-{digest}")


def test_only_what_is_wanted_is_unpacked(archive, tmp_path):
    vendor.unpack(archive, tmp_path / "out", ["dist/embed.js", "dist/*.woff2"])
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == [
        "embed.js",
        "font.woff2",
    ]


def test_every_package_is_pinned_with_its_hash():
    versions, hashes = vendor.versions(), vendor.packages()["integrity"]
    assert set(versions) == set(hashes) == set(vendor.FILES)
    assert all(version[0].isdigit() for version in versions.values())


def test_what_only_tests_load_is_not_served():
    assert vendor.FOLDER in vendor.folder("mathjax").parents
    assert vendor.FOLDER not in vendor.folder("axe-core").parents


def test_without_npm_scripts_come_from_the_public_address_and_fonts_from_the_reader(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(vendor, "FOLDER", tmp_path)
    version = vendor.packages()["dependencies"]["mathjax"]
    assert vendor.addresses("mathjax") == [
        f"{vendor.PUBLIC}/mathjax@{version}/es5/tex-chtml-full.js"
    ]
    assert vendor.addresses("@fontsource-variable/source-serif-4") == []
