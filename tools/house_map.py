"""The map of the house: rooms and their lines, arrows between rooms, circles, and what each function imports.

    python tools/house_map.py            # what `make map` prints
    python tools/house_map.py --json     # the same for machines
    python tools/house_map.py --photo    # the modules that one photo passes, by running it through dedupe and caption

Imports are read by grimp, which import-linter is built on.
"""

import argparse
import ast
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = ("batches", "captions")
SHARED = ("batches", "captions.composition")
"""Modules that import for each function by itself, inside of what that function calls."""
FUNCTIONS = sorted(path.name for path in (ROOT / "functions").iterdir() if path.is_dir())
LAZY = ("captions.gateway", "captions.tasks")
"""The packages whose names are looked up in `_WHERE` when they are first used, which no import statement shows."""


@cache
def graph() -> Any:
    """Return what imports what in the package, inside of functions too; what only type checkers read is left out."""
    whole = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    for importer in sorted(whole.modules):
        for package in LAZY:
            for imported in _lazily(package, _names_of(tree(importer), package)):
                whole.add_import(importer=importer, imported=imported)
    for kind in (module for module in whole.modules if module.startswith("captions.tasks.kinds.")):
        whole.add_import(importer="captions.tasks.registry", imported=kind)
    return whole


def path_of(module: str) -> Path:
    """Return a module's file."""
    path = ROOT.joinpath("shared", *module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def tree(module: str) -> ast.Module:
    """Return a module's syntax."""
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def room(module: str) -> str:
    """Return the room that a module stands in: the package or module below `captions`."""
    return module.split(".")[1] if "." in module else module


def closure(function: str) -> set[str]:
    """Return the modules that a function's handler imports, directly or through others, now or when it is called."""
    whole = graph()
    files = sorted((ROOT / "functions" / function).rglob("*.py"))  # a handler, or the API's package
    own = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    reached: set[str] = set()
    waiting = [*(name for each in own for name in _imported(each)), *_used_of_shared(own)]
    while waiting:
        module = waiting.pop()
        if module not in whole.modules or module in reached:
            continue
        reached.add(module)
        waiting.append(module.rpartition(".")[0])
        if module not in SHARED:
            waiting += whole.find_modules_directly_imported_by(module)
    return reached


def unused() -> set[str]:
    """Return the modules of the layer that no function imports."""
    return set(graph().modules) - set().union(*map(closure, FUNCTIONS))


def rooms() -> dict[str, dict[str, int]]:
    """Return modules, lines and the longest file of each room."""
    facts: dict[str, dict[str, int]] = {}
    for module in sorted(graph().modules):
        lines = len(path_of(module).read_text(encoding="utf-8").splitlines())
        about = facts.setdefault(room(module), {"modules": 0, "lines": 0, "longest": 0})
        about["modules"] += 1
        about["lines"] += lines
        about["longest"] = max(about["longest"], lines)
    return facts


def arrows() -> Counter[tuple[str, str]]:
    """Return how many imports lead from one room into another."""
    whole = graph()
    return Counter(
        (room(importer), room(imported))
        for importer in whole.modules
        for imported in whole.find_modules_directly_imported_by(importer)
        if room(importer) != room(imported)
    )


def circles() -> list[list[str]]:
    """Return the rooms that lead back to themselves."""
    ways: dict[str, set[str]] = {}
    for start, end in arrows():
        ways.setdefault(start, set()).add(end)
    while ends := [name for name, targets in ways.items() if not targets & ways.keys()]:
        for name in ends:
            del ways[name]
    return [sorted(ways)] if ways else []


def longest_functions(count: int = 3) -> list[tuple[int, str]]:
    """Return the functions with the most lines, and where they are."""
    lengths = [
        (node.end_lineno - node.lineno + 1, f"{module}.{node.name}")
        for module in graph().modules
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    ]
    return sorted(lengths, reverse=True)[:count]


def _lazily(package: str, names: Iterable[str]) -> Iterator[str]:
    """Yield the modules that a lazy package imports for names of it."""
    (where,) = [
        ast.literal_eval(node.value)
        for node in tree(package).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_WHERE"
    ]
    yield from (f"{package}.{where[name]}" for name in names if name in where)


def _names_of(syntax: ast.AST, package: str) -> Iterator[str]:
    """Yield what is imported by name from a package, but for type checkers alone."""
    if isinstance(syntax, ast.If) and "TYPE_CHECKING" in ast.unparse(syntax.test):
        return
    if isinstance(syntax, ast.ImportFrom) and syntax.module == package:
        yield from (alias.name for alias in syntax.names)
    for child in ast.iter_child_nodes(syntax):
        yield from _names_of(child, package)


def _imported(syntax: ast.AST) -> Iterator[str]:
    """Yield the modules that import statements may mean."""
    for node in ast.walk(syntax):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            if node.module in LAZY:
                yield from _lazily(node.module, (alias.name for alias in node.names))


def _used_of_shared(syntax: Sequence[ast.AST]) -> list[str]:
    """Return what the shared modules import for what a handler uses of them, and not for the other handlers."""
    imported: list[str] = []
    for shared in SHARED:
        bodies = {node.name: node for node in tree(shared).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        top = [node for node in tree(shared).body if isinstance(node, ast.Import | ast.ImportFrom)]
        used: list[ast.AST] = [*top]
        wanted = [name for part in syntax for name in _names_of(part, shared)]
        wanted += [name for part in syntax for name in _attributes_of(part, shared.rpartition(".")[2])]
        while wanted:
            body = bodies.pop(wanted.pop(), None)
            if body is not None:
                used.append(body)
                wanted += [node.id for node in ast.walk(body) if isinstance(node, ast.Name)]
        imported += [name for part in used for name in _imported(part)]
        syntax = [*syntax, *used]
    return imported


def _attributes_of(syntax: ast.AST, name: str) -> Iterator[str]:
    for node in ast.walk(syntax):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name:
            yield node.attr


def facts() -> dict[str, Any]:
    """Return all of the map as JSON-plain values."""
    ways: dict[str, list[str]] = {}
    for start, end in sorted(arrows()):
        ways.setdefault(start, []).append(end)
    return {
        "rooms": rooms(),
        "arrows": ways,
        "circles": circles(),
        "functions": {function: len(closure(function)) for function in FUNCTIONS},
        "modules": len(graph().modules),
        "no function imports": sorted(unused()),
        "longest functions": longest_functions(),
    }


def passed_by_a_photo() -> dict[str, list[str]]:
    """Return the modules of which a function runs while one photo is deduped, and while it is captioned.

    It is the second photo of its sandbox, on moto and the local endpoint, as tests have them; what runs at import does
    not count.
    """
    sys.path.insert(0, str(ROOT / "tests"))
    from captions_cli.local.model_endpoint import LocalEndpoint
    from support.pipeline import MEDIA, aws_for_the_pipeline, dedupe_on
    from support.worker import workshop

    def modules(step: Callable[[], object]) -> list[str]:
        seen: set[str] = set()

        def note(frame: Any, event: str, _: Any) -> None:
            if event == "call" and frame.f_code.co_name != "<module>":
                seen.add(str(frame.f_globals.get("__name__")))

        threading.setprofile(note)
        sys.setprofile(note)
        try:
            step()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        return sorted(name for name in seen if name.split(".")[0] in PACKAGES)

    with aws_for_the_pipeline() as aws, LocalEndpoint(latency_scale=0.0) as endpoint:
        dedupe = dedupe_on(aws)
        shop = workshop(aws, dedupe, endpoint)
        dedupe.upload("first.jpg", (MEDIA / "perched-osprey.jpg").read_bytes())
        shop.run_all(shop.jobs())
        photo = (MEDIA / "casa-mila.jpg").read_bytes()
        return {
            "dedupe": modules(lambda: dedupe.upload("photo.jpg", photo)),
            "caption": modules(lambda: shop.run_all(shop.jobs())),
        }


def main() -> None:
    """Print the map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--photo", action="store_true")
    given = parser.parse_args()
    if given.photo:
        passed = passed_by_a_photo()
        for step, names in passed.items():
            print(f"{step}: {len(names)} modules: {' '.join(name.removeprefix('captions.') for name in names)}")
        print(f"both: {len(set().union(*passed.values()))} modules")
        return
    whole = facts()
    if given.json:
        print(json.dumps(whole, indent=1))
        return
    print(f"{'room':18} {'modules':>7} {'lines':>6} {'longest':>7}  uses")
    for name, about in sorted(whole["rooms"].items(), key=lambda item: -item[1]["lines"]):
        uses = " ".join(whole["arrows"].get(name, ()))
        print(f"{name:18} {about['modules']:7} {about['lines']:6} {about['longest']:7}  {uses}")
    print(f"{'all':18} {whole['modules']:7} {sum(about['lines'] for about in whole['rooms'].values()):6}")
    print(f"circles between rooms: {' '.join(*whole['circles']) if whole['circles'] else 'none'}")
    for function, count in whole["functions"].items():
        print(f"functions/{function}: {count} modules in its import closure")
    print(f"no function imports: {' '.join(whole['no function imports']) or 'none'}")
    print("longest functions: " + ", ".join(f"{name} ({lines} lines)" for lines, name in whole["longest functions"]))


if __name__ == "__main__":
    main()
