"""Makes, changes and removes resources by the calls that CloudFormation makes, type by type.

A `put` gets what the resource is to be and what it was (None: it is new). An update that failed half way is taken
back by putting what was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captions_cli.local.cloudformation.data_providers import DATA
from captions_cli.local.cloudformation.function_providers import FUNCTIONS
from captions_cli.local.cloudformation.monitoring_providers import MONITORING
from captions_cli.local.cloudformation.provider import Clients, Provider
from captions_cli.local.cloudformation.resources import Resource
from captions_cli.local.errors import StackError

PROVIDERS: Mapping[str, Provider] = {**DATA, **FUNCTIONS, **MONITORING}
"""The types that are made; the others of RESOURCE_TYPES are run by the local stack alone, or not emulated."""


def put(resource: Resource, before: Resource | None, clients: Clients) -> None:
    """Make the resource, or turn what it was into what it is to be.

    Raises StackError for a change that needs another resource in its place; ClientError as the service does.
    """
    provider = PROVIDERS.get(resource.type)
    if provider is None:
        return
    if before is not None:
        changed = {name for name in provider.fixed if resource.properties.get(name) != before.properties.get(name)}
        if changed:
            raise StackError(f"the local stack does not replace {resource.logical_id}: {', '.join(sorted(changed))}")
    provider.put(resource, before, clients)


def delete(resource: Resource, clients: Clients) -> None:
    """Remove the resource. Raises ClientError as the service does."""
    if (provider := PROVIDERS.get(resource.type)) is not None:
        provider.delete(resource, clients)


def drifted(resource: Resource, clients: Clients) -> list[tuple[str, Any, Any]] | None:
    """Properties that are not as the template says: name, expected, actual; None where that cannot be told."""
    provider = PROVIDERS.get(resource.type)
    if provider is None or provider.read is None:
        return None
    actual = provider.read(resource, clients)
    expected = {name: resource.properties.get(name) for name in actual}
    return [
        (name, expected[name], actual[name])
        for name in sorted(actual)
        if expected[name] is not None and _plain(expected[name]) != _plain(actual[name])
    ]


def _plain(value: Any) -> Any:
    """A value as it compares: CloudFormation takes numbers and truth values as strings as well."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value).lower() if isinstance(value, bool | int | float) else value
