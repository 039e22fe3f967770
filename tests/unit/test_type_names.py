"""Each public type of the product, the command, the local stack and the API has a name of its own.

The API's client says its names again, as they are part of the contract.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("shared", "cli/captions_cli")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def public_types(module: Path) -> Iterator[tuple[str, str]]:
    """Name and meaning of a module's classes and type aliases; aliases that are written alike mean the same."""
    for statement in ast.parse(module.read_text(encoding="utf-8")).body:
        match statement:
            case ast.ClassDef(name=name):
                meaning = f"class in {module.relative_to(ROOT)}"
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                meaning = ast.unparse(value)
            case _:
                continue
        if name[0].isupper() and not name.isupper():
            yield name, meaning


def test_no_name_means_two_types() -> None:
    meanings = defaultdict(set)
    for module in SOURCES:
        for name, meaning in public_types(module):
            meanings[name].add(meaning)
    assert {name: sorted(held) for name, held in meanings.items() if len(held) > 1} == {}
    assert len(meanings) > 300
