"""What must be equal for two uploads to share a caption."""

from captions.config.environment import IntakeSettings
from captions.uploads.version import ObjectVersion


def tenant(upload: ObjectVersion, prefix_segments: int) -> str:
    """Return the tenant an object belongs to: its bucket, and as many leading path segments as are configured.

    An object that lies above that depth belongs to the prefix it lies in.
    """
    segments = upload.key.split("/")[:-1][:prefix_segments]
    return "/".join((upload.bucket, *segments))


def scope_of(upload: ObjectVersion, identity: str, hash_version: str, settings: IntakeSettings) -> str:
    """Return what must be equal for two uploads to share a caption, as one text: nothing is shared across scopes.

    `identity` is that of the ask (task, prompt, language, style, context and question), or of several (`shared_as`).
    """
    parts = (tenant(upload, settings.tenant_prefix_segments), identity, hash_version)
    return "|".join(part.replace("%", "%25").replace("|", "%7C").replace("#", "%23") for part in parts)
