"""Repairs of moto's S3 Vectors: what it lacks is done exactly, where AWS approximates.

Source: Amazon S3 user guide, "Metadata filtering" (filters; a filter comes before the search, as in indexes made since
September 2026) and "Limitations and restrictions" (numbers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import mul
from typing import Any

from captions_cli.local.aws.repairs.replacements import Repair, Replace

MOST_RESULTS = 100
MOST_WRITTEN = 500
MOST_READ = 100
MOST_LISTED = 1_000
LISTED = 500
"""On a page that names no number."""


def s3vectors_repairs() -> tuple[Repair, ...]:
    """Return the repairs."""
    return (
        Repair("vector-queries", "It has no QueryVectors.", _queries),
        Repair("vector-pages", "ListVectors has one page, however long.", _pages),
        Repair("vector-limits", "It takes and gives more vectors at once than the service does.", _limits),
    )


def _queries(replace: Replace) -> None:
    from moto.s3vectors import urls
    from moto.s3vectors.responses import S3VectorsResponse

    replace(urls, "url_paths", {**urls.url_paths, "{0}/QueryVectors$": S3VectorsResponse.dispatch})
    replace(S3VectorsResponse, "query_vectors", _query_vectors)


def _query_vectors(self: Any) -> Any:
    from moto.core.responses import ActionResult
    from moto.s3vectors.exceptions import ValidationError, VectorWrongDimension

    index = _index(self)
    vector, most = self._get_param("queryVector")["float32"], int(self._get_param("topK"))
    wanted = self._get_param("filter")
    if not 1 <= most <= MOST_RESULTS:
        raise ValidationError(f"topK must be between 1 and {MOST_RESULTS}")
    if len(vector) != index.dimension:
        raise VectorWrongDimension(key="query", actual=index.dimension, provided=len(vector))
    if index.distance_metric == "cosine" and not any(vector):
        raise ValidationError("Query vector must not be zero for an index of cosine distances")
    measure = DISTANCES[index.distance_metric]
    kept = [each for each in index.vectors.values() if wanted is None or matches(each.metadata or {}, wanted)]
    nearest = sorted(
        ((measure(vector, each.data["float32"]), each.key, each) for each in kept), key=lambda neighbour: neighbour[:2]
    )
    shown = []
    for distance, key, each in nearest[:most]:
        about: dict[str, Any] = {"key": key}
        if self._get_bool_param("returnDistance", False):
            about["distance"] = distance
        if self._get_bool_param("returnMetadata", False):
            about["metadata"] = each.metadata
        shown.append(about)
    return ActionResult({"vectors": shown, "distanceMetric": index.distance_metric})


def _index(response: Any) -> Any:
    name, arn = response._get_param("indexName"), response._get_param("indexArn")
    bucket = response._get_param("vectorBucketName")
    response._validate_index_params(arn, name, bucket)
    return response.s3vectors_backend.get_index(bucket, name, arn)


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    norms = math.hypot(*first) * math.hypot(*second)
    return 1.0 - math.fsum(map(mul, first, second)) / norms if norms else 1.0


DISTANCES: Mapping[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "cosine": _cosine,
    "euclidean": math.dist,
}
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "$gt": lambda value, bound: value > bound,
    "$gte": lambda value, bound: value >= bound,
    "$lt": lambda value, bound: value < bound,
    "$lte": lambda value, bound: value <= bound,
}


def matches(metadata: Mapping[str, Any], wanted: Any) -> bool:
    """Tell whether a vector's metadata are as a filter wants them; raises moto's ValidationError for what is none."""
    if not isinstance(wanted, Mapping) or not wanted:
        raise _invalid("a filter is an object with at least one member")
    return all(_holds(metadata, name, condition) for name, condition in wanted.items())


def _holds(metadata: Mapping[str, Any], name: str, condition: Any) -> bool:
    if name in ("$and", "$or"):
        if not isinstance(condition, list) or not condition:
            raise _invalid(f"{name} takes an array of filters")
        each = [matches(metadata, part) for part in condition]
        return all(each) if name == "$and" else any(each)
    if name.startswith("$"):
        raise _invalid(f"there is no {name}")
    operators = condition if isinstance(condition, Mapping) else {"$eq": condition}
    if not operators:
        raise _invalid(f"{name}: no operator")
    return all(_compares(metadata, name, operator, operand) for operator, operand in operators.items())


def _compares(metadata: Mapping[str, Any], name: str, operator: str, operand: Any) -> bool:
    held = metadata.get(name)
    values = held if isinstance(held, list) else [] if name not in metadata else [held]
    if operator == "$exists":
        if not isinstance(operand, bool):
            raise _invalid("$exists takes true or false")
        return (name in metadata) is operand
    if operator in ("$eq", "$ne"):
        if not isinstance(operand, str | int | float | bool):
            raise _invalid(f"{operator} takes a string, a number or a boolean")
        return (operand in values) is (operator == "$eq")
    if operator in ("$in", "$nin"):
        if not isinstance(operand, list) or not operand:
            raise _invalid(f"{operator} takes an array that is not empty")
        return any(value in operand for value in values) is (operator == "$in")
    if operator not in _COMPARISONS:
        raise _invalid(f"there is no {operator}")
    if not isinstance(operand, int | float) or isinstance(operand, bool):
        raise _invalid(f"{operator} takes a number")
    return any(isinstance(value, int | float) and _COMPARISONS[operator](value, operand) for value in values)


def _invalid(message: str) -> Exception:
    from moto.s3vectors.exceptions import ValidationError

    error: Exception = ValidationError(f"Invalid query filter: {message}")
    return error


def _pages(replace: Replace) -> None:
    from moto.core.responses import ActionResult
    from moto.s3vectors.exceptions import ValidationError
    from moto.s3vectors.responses import S3VectorsResponse

    def list_vectors(self: Any) -> Any:
        index = _index(self)
        most, after = int(self._get_param("maxResults") or LISTED), self._get_param("nextToken") or ""
        if not 1 <= most <= MOST_LISTED:
            raise ValidationError(f"maxResults must be between 1 and {MOST_LISTED}")
        left = sorted(key for key in index.vectors if key > after)
        shown = [index.vectors[key] for key in left[:most]]
        data, metadata = self._get_bool_param("returnData", False), self._get_bool_param("returnMetadata", False)
        result: dict[str, Any] = {
            "vectors": [
                {
                    "key": vector.key,
                    "data": vector.data if data else None,
                    "metadata": vector.metadata if metadata else None,
                }
                for vector in shown
            ]
        }
        return ActionResult(result | ({"nextToken": shown[-1].key} if len(left) > most else {}))

    replace(S3VectorsResponse, "list_vectors", list_vectors)


def _limits(replace: Replace) -> None:
    from moto.s3vectors.exceptions import ValidationError
    from moto.s3vectors.responses import S3VectorsResponse

    def bounded(original: Callable[[Any], Any], name: str, most: int) -> Callable[[Any], Any]:
        def call(self: Any) -> Any:
            number = len(self._get_param(name) or ())
            if not 1 <= number <= most:
                raise ValidationError(f"{number} {name}: there must be between 1 and {most}")
            return original(self)

        return call

    for method, name, most in (
        ("put_vectors", "vectors", MOST_WRITTEN),
        ("delete_vectors", "keys", MOST_WRITTEN),
        ("get_vectors", "keys", MOST_READ),
    ):
        replace(S3VectorsResponse, method, bounded(getattr(S3VectorsResponse, method), name, most))
