"""To add a lesson takes one folder and one line in `_toc.yml`: shown in a copy of the
project, where everything else follows."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtmm_lib.lesson import book
from tools.lesson import source
from tools.project import ROOT, tracked

AFTER, MODEL, SLUG = "the-twelve-steps", "hard-parameter-sharing", "a-dummy"


# Derives everything in the copy, and prints what the build would make of it.
DERIVED = f"""
import json
from pathlib import Path
from mtmm_lib.lesson import book
from tools import book as site, chapters, generate

def claim(slug):
    result = {{"text": "2.0"}}
    return {{"chapter": slug, "supports": None, "verdict": "supported", "missing": "",
            "statement": "A fact", "result": result}}

chapters.write()
site.builder(Path.cwd())
print(json.dumps({{
    "stale": chapters.stale(),
    "lessons": generate.lessons(),
    "article": generate.article(),
    "ledger": generate.ledger([claim("{SLUG}"), claim("hard-parameter-sharing")]),
    "toc": Path("_build/_toc.yml").read_text(encoding="utf-8"),
}}))
"""


def adapted(text: str, ids: list[str]) -> str:
    """A text of the lesson that is taken for a model, with names that nobody has."""
    for id in ids:
        place = rf'(["`]|label: |exercise: |solution}} ){id}(?=["`\n])'
        text = re.sub(place, rf"\1dummy-{id}", text)
    text = text.replace(f'("{MODEL}")', f'("{SLUG}")')
    text = re.sub(r"\b(eq|sec)-hard-", r"\1-dummy-", text)
    return re.sub(r"^  title: .*$", "  title: A dummy", text, flags=re.MULTILINE)


def state(folder: Path) -> dict[str, str]:
    """Path → hash of its content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in files
        if path.suffix != ".pyc"
    }


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project with a lesson more; which files were changed for it by hand, which
    were derived; and what the build would make of it."""
    folder = tmp_path_factory.mktemp("copy")
    for name in tracked():
        if not name.startswith("seed/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    rules = folder / "tests" / "book" / "test_chapters.py"  # for both the same
    text = rules.read_text(encoding="utf-8")
    rules.write_text(text.replace(f'"{MODEL}",', f'"{MODEL}",\n    "{SLUG}",'))
    as_it_was = state(folder)
    model, ids = book.lesson(MODEL), list(source(book.lesson(MODEL)).exercises)
    new = folder / "chapters" / "src" / SLUG
    new.mkdir()
    for path in model.folder.glob("*.*"):
        text = adapted(path.read_text(encoding="utf-8"), ids)
        (new / path.name).write_text(text, encoding="utf-8")
    toc = folder / "_toc.yml"
    line = f"      - file: chapters/{AFTER}\n"
    text = toc.read_text(encoding="utf-8")
    assert text.count(line) == 1
    toc.write_text(text.replace(line, f"{line}      - file: chapters/{SLUG}\n"))
    by_hand = state(folder)
    made = json.loads(run(folder, "-c", DERIVED))
    derived = changed(by_hand, state(folder)) - {"_build/_toc.yml"}
    return folder, changed(as_it_was, by_hand), derived, made


def run(folder: Path, *arguments: str) -> str:
    """What Python prints in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def order() -> list[str]:
    slugs = list(book.lessons())
    slugs.insert(slugs.index(AFTER) + 1, SLUG)
    return slugs


def test_a_lesson_is_one_folder_and_one_line(copy):
    _, by_hand, derived, made = copy
    files = ("lesson.md", "exercises.py", "quiz.json")
    assert by_hand == {"_toc.yml", *(f"chapters/src/{SLUG}/{name}" for name in files)}
    assert {name for name in derived if not name.endswith(".ipynb")} == {"README.md"}
    assert made["stale"] == []


def test_the_copy_keeps_the_rules_of_lessons(copy):
    rules = ["tests/book/test_chapters.py", "tests/lesson/test_exercises.py"]
    wanted = f"{SLUG} or unique or table_of_contents or its_pages"
    pytest_quietly = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    shown = run(copy[0], *pytest_quietly, *rules, "-k", wanted)
    assert re.search(r"\d\d passed", shown) and "skipped" not in shown


def test_everything_that_follows_is_renumbered(copy):
    """Names and titles of notebooks, links and words about chapters in them and in the
    README."""
    folder, numbers = copy[0], {slug: f"{n:02}" for n, slug in enumerate(order())}
    names = {path.name for path in (folder / "chapters").glob("*.ipynb")}
    lessons = {f"{numbers[slug]}-{slug}.ipynb" for slug in numbers}
    assert names == {"start.ipynb", *lessons}
    spoken_of = set()
    for path in [*(folder / "chapters").glob("*.ipynb"), folder / "README.md"]:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"\b\d\d-[a-z-]+\.ipynb", text)) <= names
        for number, name in re.findall(r"\[(?:[cC]hapter )?(\d\d)\]\((\S+?)\)", text):
            assert name.startswith(f"{number}-") and name in names
            spoken_of.add(name)
    assert f"{numbers['hard-parameter-sharing']}-hard-parameter-sharing.ipynb" in (
        spoken_of
    )
    for slug in numbers:
        name = f"{numbers[slug]}-{slug}.ipynb"
        first = json.loads((folder / "chapters" / name).read_text(encoding="utf-8"))
        title = "".join(first["cells"][0]["source"]).splitlines()[0]
        assert title.startswith(f"# {numbers[slug]} · ")


def test_pages_of_the_site_are_renumbered(copy):
    made = copy[3]
    for number, slug in enumerate(order()):
        title = "A dummy" if slug == SLUG else book.lesson(slug).title
        name = f"{number:02}-{slug}"
        assert f"- [{number:02} · {title}](chapters/{name}.ipynb). " in made["lessons"]
        assert f'href="chapters/{name}.html"' in made["lessons"]
        assert f"- file: chapters/{name}\n" in made["toc"]
    (row,) = re.findall(r"^\| F1 \|.*$", made["article"], flags=re.MULTILINE)
    slugs = list(order())
    number, after = (
        f"{slugs.index(each):02}" for each in (SLUG, "hard-parameter-sharing")
    )
    assert f"[{number} A dummy](../../chapters/{number}-{SLUG}.ipynb)" in row
    for words in (
        f"[chapter {number}](../../chapters/{number}-{SLUG}.ipynb)",
        f"[chapter {after}](../../chapters/{after}-hard-parameter-sharing.ipynb)",
    ):
        assert words in made["ledger"]
