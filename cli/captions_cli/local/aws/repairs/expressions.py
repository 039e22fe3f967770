"""What makes moto's handling of DynamoDB's expressions fast without changing what it answers.

It reads an update expression twice for each request, copies its tree by the general way, goes through the tree ten
times, lists the types of its nodes at each node, and checks the whole again at each of its parts. It reads a condition
twice too, and makes the patterns of words again for each word.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from captions.once import once
from captions_cli.local.aws.repairs.replacements import Replace

_MOST_EXPRESSIONS = 1_000


def make_fast(replace: Replace) -> None:
    """Put the faster functions in place."""
    from moto.dynamodb.comparisons import ConditionExpressionParser
    from moto.dynamodb.parsing import validators
    from moto.dynamodb.parsing.ast_nodes import DepthFirstTraverser, Node
    from moto.dynamodb.parsing.executors import UpdateExpressionExecutor
    from moto.dynamodb.parsing.expressions import UpdateExpressionParser

    replace(DepthFirstTraverser, "traverse", _traverse)
    replace(Node, "find_clauses", _finding_clauses())
    replace(UpdateExpressionParser, "make", staticmethod(_reader()))
    replace(validators, "deepcopy", _copying(validators.deepcopy))
    replace(validators.ActionCountValidator, "traverse", _count_actions)
    replace(validators.OverlappingPathsValidator, "traverse", _find_overlaps)
    replace(UpdateExpressionExecutor, "get_specific_execution", _executor_of)
    replace(ConditionExpressionParser, "parse", _reader_of_conditions())


@once
def _reader() -> Any:
    """Moto's reader of update expressions; whoever changes what it returns copies it first (`Validator`)."""
    from moto.dynamodb.parsing.expressions import UpdateExpressionParser

    return lru_cache(maxsize=_MOST_EXPRESSIONS)(UpdateExpressionParser.make)


_Places = list[tuple[Any, int]]
"""The nodes of a tree, children first, each with its place among its parent's children."""
_ABSENT = object()
_TREATMENTS: dict[type[Any], dict[type[Any], Any]] = {}
"""By traverser and type of node, the class by which its processor is known; None: it has none."""


_IS_NODE: dict[type[Any], bool] = {}


def _is_node(kind: type[Any]) -> bool:
    """`issubclass(kind, Node)`, which takes long of an abstract class."""
    if kind not in _IS_NODE:
        from moto.dynamodb.parsing.ast_nodes import Node

        _IS_NODE[kind] = issubclass(kind, Node)
    return _IS_NODE[kind]


def _traverse(self: Any, root: Any) -> Any:
    """Moto's traversal of an update expression, which looks up once what to do with each type of node."""
    from moto.dynamodb.parsing.ast_nodes import DepthFirstTraverser

    treatments = _TREATMENTS.setdefault(type(self), {})
    processors: dict[type[Any], Any] = self._processing_map()

    def process(node: Any, place: int) -> Any:
        kind = type(node)
        treatment = treatments.get(kind, _ABSENT)
        if treatment is _ABSENT:
            treatment = treatments[kind] = next((known for known in processors if issubclass(kind, known)), None)
        if treatment is None:
            return node
        parent, processed = node.parent, processors[treatment](node)
        processed.parent = parent
        if parent:
            parent.children[place] = processed
        return processed

    if type(self).pre_processing_of_child is not DepthFirstTraverser.pre_processing_of_child:
        return _traverse_prepared(self, root, process)
    places, changed = _places(root), False
    for index, (node, place) in enumerate(places):
        if treatments.get(type(node), _ABSENT) is None:
            continue
        processed = process(node, place)
        if processed is node:
            continue
        places[index] = (processed, place)
        changed = changed or _has_nodes(node) or _has_nodes(processed)
        root = processed if node is root else root
    vars(root)["places"] = None if changed else places
    return root


def _traverse_prepared(self: Any, root: Any, process: Callable[[Any, int], Any]) -> Any:
    """The traversal of those who are shown each child before it, and what is below it, is processed."""
    changed = False

    def traverse(node: Any, place: int) -> Any:
        nonlocal changed
        for position, child in enumerate(node.children or ()):
            self.pre_processing_of_child(node, position)
            if _is_node(type(child)):
                traverse(child, position)
        processed = process(node, place)
        changed = changed or processed is not node
        return processed

    known = vars(root).get("places")
    root = traverse(root, -1)
    vars(root)["places"] = None if changed else known
    return root


def _places(root: Any) -> _Places:
    """All nodes of a tree; its root keeps them until nodes that have others below them are replaced."""
    known: _Places | None = vars(root).get("places")
    if known is not None:
        return known
    places: _Places = []

    def add(node: Any, place: int) -> None:
        for position, child in enumerate(node.children or ()):
            if _is_node(type(child)):
                add(child, position)
        places.append((node, place))

    add(root, -1)
    return places


def _has_nodes(node: Any) -> bool:
    return any(_is_node(type(child)) for child in node.children or ())


def _copying(original: Any) -> Any:
    """`copy.deepcopy`, with a short way for the trees of expressions, of which the nodes alone are changed."""

    def copied(value: Any) -> Any:
        if not _is_node(type(value)):
            return original(value)
        places: _Places = []
        copy = copied_node(value, None, -1, places)
        vars(copy).update(places=places, copied_from=value)
        return copy

    def copied_node(node: Any, parent: Any, place: int, places: _Places) -> Any:
        copy = object.__new__(type(node))
        copy.__dict__.update(node.__dict__, parent=parent)
        if node.children is not None:
            copy.children = children = list(node.children)
            for position, child in enumerate(children):
                if _is_node(type(child)):
                    children[position] = copied_node(child, copy, position, places)
                elif type(child) is not str:
                    children[position] = original(child)
        places.append((copy, place))
        return copy

    return copied


def _finding_clauses() -> Any:
    from moto.dynamodb.parsing.ast_nodes import Expression, UpdateExpressionFunction

    nested: dict[type[Any], bool] = {}

    def find_clauses(self: Any, clause_types: Any) -> list[Any]:
        clauses: list[Any] = []
        for child in self.children or ():
            kind = type(child)
            if kind in clause_types:
                clauses.append(child)
                continue
            if kind not in nested:
                nested[kind] = issubclass(kind, (Expression, UpdateExpressionFunction))
            if nested[kind]:
                clauses.extend(child.find_clauses(clause_types))
        return clauses

    return find_clauses


def _count_actions(self: Any, root: Any) -> Any:
    """A check of an update expression, which finds all that is below the node that it is given, and needs no other."""
    read = vars(root).get("copied_from", root)
    if "counted" not in vars(read):
        self.verify_action_counts(root)
        read.counted = True
    return root


def _find_overlaps(self: Any, root: Any) -> Any:
    """Check for overlapping paths each time: the names behind the placeholders may differ."""
    return self.check_for_overlapping_paths(root)


def _executor_of(self: Any, node: Any) -> Any:
    return self.execution_map.get(type(node))


@once
def _reader_of_conditions() -> Any:
    """Moto's reading of conditions, which knows one from the last time, but for its names and values."""
    from moto.dynamodb.comparisons import AttributePath, AttributeValue, ConditionExpressionParser

    original = ConditionExpressionParser.parse

    class Reading(ConditionExpressionParser):  # type: ignore[misc,unused-ignore] # untyped to some versions of mypy
        """Leaves names and values as they are written, and returns the tree."""

        parse = original

        def _lookup_expression_attribute_value(self, name: str) -> Any:
            return name

        def _lookup_expression_attribute_name(self, name: str) -> str:
            return name

        def _make_op_condition(self, node: Any) -> Any:
            return node

    class Filling(ConditionExpressionParser):  # type: ignore[misc,unused-ignore]
        """Puts names and values where they are written."""

        def _make_operand(self, node: Any) -> Any:
            if node.kind == self.Kind.PATH:
                names: Any = self.expression_attribute_names
                return AttributePath(
                    [names[child.text] if child.text.startswith("#") else child.value for child in node.children]
                )
            if node.kind == self.Kind.EXPRESSION_ATTRIBUTE_VALUE:
                values: Any = self.expression_attribute_values
                return AttributeValue(values[node.text])
            return super()._make_operand(node)

    @lru_cache(maxsize=_MOST_EXPRESSIONS)
    def read(expression: str) -> tuple[Any, list[str], list[str]] | None:
        reading = Reading(expression, None, None)
        try:
            tree = reading.parse()
        except Exception:  # moto's own reading raises it again
            return None
        return tree, reading.expr_attr_names_found, reading.expr_attr_values_found

    def parse(self: Any) -> Any:
        known = read(self.condition_expression) if self.condition_expression else None
        if known is None:
            return original(self)
        tree, names, values = known
        try:
            condition = Filling(
                None, self.expression_attribute_names, self.expression_attribute_values
            )._make_op_condition(tree)
        except Exception:  # a name or a value is missing: moto says so where it comes to it
            return original(self)
        self.expr_attr_names_found.extend(names)
        self.expr_attr_values_found.extend(values)
        return condition

    return parse
