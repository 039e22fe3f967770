"""The whole stack on one machine. `LocalStack` is loaded when it is first asked for: moto takes a second to import."""

from typing import TYPE_CHECKING, Any

from captions_cli.local.errors import StackError

if TYPE_CHECKING:
    from captions_cli.local.stack import LocalStack

__all__ = ["LocalStack", "StackError"]


def __getattr__(name: str) -> Any:
    if name == "LocalStack":
        from captions_cli.local.stack import LocalStack

        return LocalStack
    raise AttributeError(name)
