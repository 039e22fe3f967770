"""Names and words that say too little, or that nobody says, do not come back."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = {"told", "found", "one", "said", "it"}
"""As names they say that something was given, not what it is."""
WORDS = re.compile(r"\b(?:anew|stood back|(?:is|are|was|were) told of)\b", re.IGNORECASE)
TEXTS = {".md", ".py", ".sh", ".toml", ".yaml", ".yml"}


def files() -> list[Path]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = [ROOT / name for name in done.stdout.splitlines()]
    return [path for path in tracked if path.is_file() and path != Path(__file__)]


def bound(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The names that a module gives: to variables, parameters, functions, and what it imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.MatchAs(name=str(name)):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name


def test_no_name_is_one_of_those_that_say_too_little() -> None:
    sources = [path for path in files() if path.suffix == ".py"]
    assert len(sources) > 300
    assert [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources
        for line, name in bound(ast.parse(path.read_text(encoding="utf-8")))
        if name.strip("_") in NAMES
    ] == []


def test_prose_has_none_of_the_words_that_nobody_says() -> None:
    texts = [path for path in files() if path.suffix in TEXTS or path.name == "Makefile"]
    assert [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if WORDS.search(line)
    ] == []


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "def f(told): ...",
        "[one for one in ()]",
        "def said(): ...",
        "import a as _one",
        "[it for it in ()]",
    ],
)
def test_that_check_can_fail(source: str) -> None:
    assert any(name.strip("_") in NAMES for _, name in bound(ast.parse(source)))
