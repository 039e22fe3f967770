"""Which task and which chain of models an upload gets, and what must be equal for two uploads to share a caption."""

from dataclasses import dataclass

from captions.settings import IntakeSettings, RoutingSettings, WorkerSettings
from captions.tasks import CAPTION, TRANSCRIBE, Task
from captions.uploads import ObjectVersion


@dataclass(frozen=True)
class Route:
    """The task of an upload and the queue its job stands on."""

    task: Task
    queue_url: str


def route(kind: str, settings: RoutingSettings) -> Route | None:
    """Return the route of a kind of media; None for one that no task takes."""
    if kind in ("image", "animation", "document"):
        return Route(CAPTION, settings.image_queue_url)
    if kind == "audio":
        return Route(TRANSCRIBE, settings.audio_queue_url)
    return None


def chain(kind: str, settings: WorkerSettings) -> tuple[str, ...]:
    """Return the models to try for a kind of media, in order."""
    return settings.audio_models if kind == "audio" else settings.image_models


def budget_scopes(upload: ObjectVersion, settings: WorkerSettings) -> tuple[str, ...]:
    """Return the spending limits an upload counts against: those of the prefixes its key lies under."""
    return tuple(prefix for prefix in settings.prefix_budgets if upload.key.startswith(prefix))


def tenant(upload: ObjectVersion, prefix_segments: int) -> str:
    """Return the tenant an object belongs to: its bucket, and as many leading path segments as are configured.

    An object that lies above that depth belongs to the prefix it lies in.
    """
    segments = upload.key.split("/")[:-1][:prefix_segments]
    return "/".join((upload.bucket, *segments))


def scope(upload: ObjectVersion, task: Task, hash_version: str, settings: IntakeSettings) -> str:
    """Return what must be equal for two uploads to share a caption, as one text: nothing is shared across scopes."""
    parts = (tenant(upload, settings.tenant_prefix_segments), task.version, settings.language, hash_version)
    return "|".join(part.replace("%", "%25").replace("|", "%7C").replace("#", "%23") for part in parts)
