"""`check(id, answer)`: says at once whether an answer is right, whatever the answer
does: it may raise, end the program or never end."""

from __future__ import annotations

import ctypes
import difflib
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import torch

from mtmm_lib.lesson import book, page
from mtmm_lib.lesson.exercises import Hint, exercises, is_stub
from mtmm_lib.lesson.progress import note
from mtmm_lib.lesson.text import fill

SECONDS = 10.0

STUB = "Put your own answer in the place of the stub, then run this cell again."
NO_EXERCISE = "There is no exercise {id!r}. Did you mean {near!r}?"
SWAPPED = "The exercise's name comes first: check({id!r}, …)."
ENDLESS = (
    "Your code had not finished after {seconds:g} seconds, and was stopped. Is there a "
    "loop that never ends?"
)
EXIT = (
    "Your code ended the program, by exit() or sys.exit(). A function hands its result "
    "over with return."
)
STOPPED = "Your code stopped at line {line}, `{code}`, with {error}"
UNUSABLE = (
    "Your answer could not be checked ({error}). Is it what the exercise asks for?"
)

_LIBRARIES = tuple(
    [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    + [str(Path(__file__).parents[1]), str(book.FOLDER)]
)


@dataclass(frozen=True)
class Feedback:
    """What `check` found: whether the answer passed; if not, the hint, a template and
    its fields. A stub is no attempt."""

    passed: bool
    template: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    attempt: bool = True

    @property
    def hint(self) -> str:
        return fill(self.template, self.fields)

    def _ipython_display_(self) -> None:
        """Nothing: `check` has shown it, and as the last line of a cell it would appear
        twice."""


def check(id: str, answer: Any) -> Feedback:
    """Say at once whether an answer is right, and if not, what to look at.

    Raises nothing, unless the reader interrupts it. A reader's attempts are noted on
    the reader's machine; `progress` shows them.

    Args:
        id: the exercise.
        answer: what the exercise asks for: a function, a class or a value.
    """
    feedback = judge(id, answer)
    head = "✓ Correct." if feedback.passed else "Not yet."
    noted = note(id, feedback.passed) if feedback.attempt else ""
    page.box(
        f'<p><span class="mtmm-head">{head}</span> {escape(feedback.hint)}</p>'
        + (f'<p class="mtmm-soft">{escape(noted)}</p>' if noted else ""),
        " ".join(filter(None, [head, feedback.hint, noted])),
        "good" if feedback.passed else "open",
        role="status",
    )
    return feedback


def judge(id: str, answer: Any) -> Feedback:
    """What `check` shows."""
    known = exercises()
    if not isinstance(id, str) or id not in known:
        return _unknown(id, answer, list(known))
    if _stub(answer):
        return Feedback(False, STUB, attempt=False)
    try:
        with torch.random.fork_rng(devices=[]), _no_exit(), _time_limit(SECONDS):
            torch.manual_seed(0)
            known[id].check(answer)
    except Hint as hint:
        return Feedback(False, hint.template, hint.fields)
    except SystemExit:
        return Feedback(False, EXIT)
    except _TooLong:
        return Feedback(False, ENDLESS, {"seconds": SECONDS})
    except Exception as error:
        if is_stub(error):
            return Feedback(False, STUB, attempt=False)
        return _explained(error)
    return Feedback(True)


def _unknown(id: Any, answer: Any, known: list[str]) -> Feedback:
    if isinstance(answer, str) and answer in known:
        return Feedback(False, SWAPPED, {"id": answer}, attempt=False)
    near = difflib.get_close_matches(str(id), known, 1, cutoff=0)[0]
    return Feedback(False, NO_EXERCISE, {"id": id, "near": near}, attempt=False)


def _stub(answer: Any) -> bool:
    if isinstance(answer, dict):
        return any(map(_stub, answer.values()))
    if isinstance(answer, (tuple, list)):
        return any(map(_stub, answer))
    return answer is None or answer is Ellipsis


def _explained(error: Exception) -> Feedback:
    name = traceback.format_exception_only(error)[0].strip().split("\n")[0][:300]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.line and not frame.filename.startswith(_LIBRARIES):
            where = {"line": frame.lineno, "code": frame.line, "error": name}
            return Feedback(False, STOPPED, where)
    return Feedback(False, UNUSABLE, {"error": name})


class _TooLong(BaseException):
    """No `Exception`, so that an answer's own `except Exception` does not catch it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` in this thread after so many seconds.

    A signal would do that in a main thread on Linux and macOS only. Here a second
    thread keeps the time, on every platform, and is gone when the block ends.
    """
    done, here = threading.Event(), ctypes.c_ulong(threading.get_ident())
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def watch() -> None:
        while not done.wait(seconds):  # again, should a bare `except:` have caught it
            throw(here, ctypes.py_object(_TooLong))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        throw(here, None)  # one that was thrown at the last moment


@contextmanager
def _no_exit() -> Iterator[None]:
    """In a notebook `exit` and `quit` shut the kernel down; in here they raise
    SystemExit, as in a script."""
    names: dict[str, Any] = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {
        name: names[name] for name in ("exit", "quit") if name in names
    }
    names.update(dict.fromkeys(kept, sys.exit))
    try:
        yield
    finally:
        names.update(kept)
