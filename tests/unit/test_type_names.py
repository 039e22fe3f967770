"""Each public type of the command and of the local stack has a name of its own."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

CLI = Path(__file__).parents[2] / "cli" / "captions_cli"


def public_types(module: Path) -> Iterator[str]:
    """Names of a module's classes and type aliases."""
    for statement in ast.parse(module.read_text(encoding="utf-8")).body:
        match statement:
            case ast.ClassDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
                if name[0].isupper() and not name.isupper():
                    yield name


def test_no_name_means_two_types() -> None:
    modules_of = defaultdict(list)
    for module in CLI.rglob("*.py"):
        for name in public_types(module):
            modules_of[name].append(str(module.relative_to(CLI)))
    assert {name: modules for name, modules in modules_of.items() if len(modules) > 1} == {}
    assert len(modules_of) > 50
