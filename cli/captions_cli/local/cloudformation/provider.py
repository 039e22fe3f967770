"""How one type of resource is made, changed, removed and read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from captions_cli.local.cloudformation.resources import Resource

Clients = Callable[[str], Any]  # service -> boto3 client of the stack's region

_Put = Callable[[Resource, Resource | None, Clients], None]
_Delete = Callable[[Resource, Clients], None]
_Read = Callable[[Resource, Clients], Mapping[str, Any]]


@dataclass(frozen=True)
class Provider:
    """How one type is put and deleted, and how what matters of it is read back, for drift.

    `fixed`: properties whose change would need another resource in its place, which the local stack does not do.
    `read` gives properties as the template names them, those that it can tell.
    """

    put: _Put
    delete: _Delete
    fixed: frozenset[str] = frozenset()
    read: _Read | None = None


def truth(value: Any) -> bool:
    """Whether a property is true, which a template may also write as text."""
    return str(value).lower() == "true"


def tags_of(resource: Resource) -> list[dict[str, str]]:
    """Return the tags of a resource as a list, which some types write as a mapping."""
    tags = resource.properties.get("Tags", [])
    if isinstance(tags, Mapping):
        return [{"Key": key, "Value": str(value)} for key, value in tags.items()]
    return [{"Key": tag["Key"], "Value": str(tag["Value"])} for tag in tags]
