"""The whole stack on one machine. `LocalStack` is loaded when it is first asked for: moto takes a second to import."""

from typing import TYPE_CHECKING, Any

from captions_cli.local.errors import StackError
from captions_cli.local.options import Address, ModelOptions, WorkerOptions

if TYPE_CHECKING:
    from captions_cli.local.aws.events import Unreliability
    from captions_cli.local.stack import LocalStack

__all__ = ["Address", "LocalStack", "ModelOptions", "StackError", "Unreliability", "WorkerOptions"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "LocalStack":
            from captions_cli.local.stack import LocalStack

            return LocalStack
        if name == "Unreliability":
            from captions_cli.local.aws.events import Unreliability

            return Unreliability
        raise AttributeError(name)
