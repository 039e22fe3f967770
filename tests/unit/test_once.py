"""What threads may reach first is built by one of them, and complete before another sees it."""

import ast
import importlib
import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import captions
from captions.once import once
from captions.tasks.answer_schema import Shape
from captions_cli.stack import Stack

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for room in ("shared", "functions") for path in (ROOT / room).rglob("*.py"))
PURE = {"_likely_script", "_script"}
"""Functions of one text that answer one text: it is all the same which thread's answer is kept."""
OF_ONE_CALL = {"_Compared", "Grid", "Shown"}
"""Classes whose objects one comparison makes, keeps to its own thread, and forgets."""


def at_once(count: int, work: object) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_ten_threads_that_come_first_are_given_the_one_that_was_built() -> None:
    built: list[object] = []

    @once
    def build(name: str) -> object:
        time.sleep(0.02)
        built.append(name)
        return object()

    given: list[object] = []
    at_once(10, lambda: given.append(build("a")))

    assert built == ["a"]
    assert len(set(map(id, given))) == 1
    assert build("b") is not given[0]
    build.cache_clear()
    assert build("a") is not given[0]


def test_what_fails_to_be_built_is_tried_again() -> None:
    tries: list[int] = []

    @once
    def build() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not yet")
        return 7

    with pytest.raises(ValueError, match="not yet"):
        build()
    assert build() == 7


def test_one_may_be_built_of_another_and_of_itself() -> None:
    @once
    def sum_to(number: int) -> int:
        return number + sum_to(number - 1) if number else 0

    assert sum_to(4) == 10


def test_the_threads_of_a_command_share_the_one_client_of_a_service() -> None:
    class Session:
        region_name = "eu-west-1"
        made: list[object] = []  # noqa: RUF012 - of this test alone

        def client(self, service: str, **_: object) -> object:
            time.sleep(0.02)
            self.made.append(object())
            return self.made[-1]

    stack = Stack(Session(), "captions")  # type: ignore[arg-type]
    given: list[object] = []
    at_once(10, lambda: given.append(stack.client("s3")))

    assert len(Session.made) == 1
    assert set(map(id, given)) == {id(Session.made[0])}


def caches(tree: ast.AST) -> Iterator[str]:
    """What a module caches without a lock: decorated functions, cached properties, globals set by functions."""
    of_one_call = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name in OF_ONE_CALL]
    excused = {inner for node in of_one_call for inner in node.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"global {', '.join(node.names)}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                target = decorator.func if isinstance(decorator, ast.Call) else decorator
                name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
                if name == "cached_property" and node in excused:
                    continue
                if name in ("cache", "cached_property") or (name == "lru_cache" and node.name not in PURE):
                    yield f"{name} of {node.name}"


def test_nothing_is_cached_without_a_lock() -> None:
    result = {
        str(path.relative_to(ROOT)): list(caches(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES
    }

    assert {path: names for path, names in result.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "@cache\ndef f(): ...",
        "@functools.cache\ndef f(): ...",
        "@lru_cache(maxsize=3)\ndef f(): ...",
        "class A:\n    @cached_property\n    def f(self): ...",
        "def f():\n    global once\n    once = 1",
    ],
)
def test_that_check_can_fail(source: str) -> None:
    assert list(caches(ast.parse(source)))


def modules() -> list[str]:
    return [result.name for result in pkgutil.walk_packages(captions.__path__, "captions.")]


def subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for item in model.__subclasses__():
        yield item
        yield from subclasses(item)


def test_every_model_is_complete_once_it_is_imported() -> None:
    """Pydantic builds what is not when it is first used, which is not safe for several threads."""
    for name in modules():
        importlib.import_module(name)

    ours = [model for model in subclasses(BaseModel) if model.__module__.startswith("captions.")]
    lazy = {model.__name__ for model in ours if not issubclass(model, Shape) and not model.__pydantic_complete__}
    assert len(ours) > 40
    assert lazy == set()


def imports(name: str) -> set[str]:
    """The product's modules that a module imports when it is imported itself, its packages included."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    result = set()
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            result |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return result & set(modules())


def test_no_two_modules_import_each_other() -> None:
    """Threads that begin such a circle at two ends wait for each other, until one of them is given half of a module."""
    graph = {name: imports(name) - {name} for name in modules()}
    # What a package imports of its own rooms is no circle: they are loaded after it began, by the same thread.
    graph = {name: {item for item in used if not name.startswith(f"{item}.")} for name, used in graph.items()}
    while ends := [name for name, used in graph.items() if not used & graph.keys()]:
        for name in ends:
            del graph[name]

    assert set(graph) == set()


HANDLERS = {
    "dedupe": "captions.pipeline.ingest",
    "caption": "captions.pipeline.caption",
    "transcribe": "captions.pipeline.caption",
    "sweep": "captions.pipeline.sweep",
    "bulk": "captions.bulk.lane",
    "search": "captions.search.fusion",
    "webhooks": "captions.webhooks.deliveries",
    "writeback": "captions.write_back.writing",
}
LOADED = """
import importlib, json, sys
for name in ("app", sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def imported_later(name: str) -> set[str]:
    """The product's modules that functions of a module import when they are called."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    functions = [node for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) if is_code(node)]
    nodes = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
    return {node.module for node in nodes if node.module and node.module.startswith("captions.")}


def is_code(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


@pytest.mark.deep
@pytest.mark.parametrize("function", HANDLERS)
def test_threads_import_only_from_packages_that_are_loaded_before_they_start(function: str) -> None:
    """A thread that begins with a package, and another that begins with one of its modules, wait for each other."""
    environment = {
        "PATH": os.environ["PATH"],
        "POWERTOOLS_SERVICE_NAME": function,
        "LAMBDA_TASK_ROOT": str(ROOT / "functions" / function),  # or X-Ray's recorder makes a client at import
        "PYTHONPATH": str(ROOT / "functions" / function),
    }
    command = [sys.executable, "-c", LOADED, HANDLERS[function]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))

    # What composition imports, it imports for the handler, before there is any thread.
    mine = loaded & set(modules()) - {"captions.composition"}
    later = {item for name in mine for item in imported_later(name)} - loaded
    assert "captions.tasks.prompts" in later or function != "dedupe"
    assert {item for item in later if item.rpartition(".")[0] not in loaded or is_package(item)} == set()


def test_what_numpy_loads_when_it_is_first_reached_is_imported_by_its_own_name() -> None:
    """Of two threads that reach `np.fft` first, one may recurse in numpy's `__getattr__` until Python gives up.

    A module's own name is waited for until it is loaded (`from numpy.fft import rfft`).
    """
    ready = "import json, numpy; print(json.dumps(sorted(vars(numpy))))"
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", ready], capture_output=True, text=True, check=True).stdout
    )
    assert "fft" not in loaded
    reached = {
        f"{path.relative_to(ROOT)}: np.{node.attr}"
        for path in [*SOURCES, *(ROOT / "cli").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np"
        if node.attr not in loaded
    }
    assert reached == set()


def is_package(name: str) -> bool:
    """Whether a module is a package, whose rooms a thread could begin with instead."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None
