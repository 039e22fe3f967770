"""From an ask and the bytes it is about to the answer that is kept: for workers, and for whoever measures models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from captions import media
from captions.config.policy import Policy
from captions.gateway import Media
from captions.inference import escalation, recording
from captions.inference.escalation import Answered, Asking, Content
from captions.routing import routes
from captions.routing.experiments import Arm
from captions.routing.routes import Chains
from captions.tasks import Ask, Seen, prompt

if TYPE_CHECKING:
    from captions.picture_class import Looks

MAX_COPY_BYTES = 2_900_000
"""Of a picture's copy for a model: with base64's third on top, it leaves room for the prompt in a body of 4 MB."""
PICTURE_TOKENS = 2_500
"""Of the largest copy of a picture that a model is sent (gateway/requests.py)."""
_CHARACTERS_PER_TOKEN = 3


def payload(
    kind: str,
    media_type: str,
    data: bytes,
    *,
    link: Callable[[float], str] | None = None,
    max_image_pixels: int | None = None,
) -> Media:
    """Return what a model is sent of an upload; `link` makes a link to sound or video that is too large to be sent.

    Raises:
        MediaError: it cannot be read.
    """
    if kind == "audio":
        sound = media.audio_payload(data)
        link = link if sound.data is data else None  # who follows it reads the file as it was uploaded
        return Media(kind="audio", media_type=sound.media_type, data=sound.data, url=link, duration_s=sound.duration_s)
    if kind == "video":
        whole = data if len(data) <= MAX_COPY_BYTES else None
        length = media.sniff(data).duration_s
        return Media(kind="video", media_type=media_type, data=whole, url=link, duration_s=length)
    limits = media.Limits() if max_image_pixels is None else media.Limits(image_pixels=max_image_pixels)
    copy, copy_type = media.model_copy(data, max_bytes=MAX_COPY_BYTES, limits=limits)
    return Media(kind="image", media_type=copy_type, data=copy, url=None, duration_s=None)


def chains(key: str, kind: str, ask: Ask, looks: Looks | None, rules: Policy, arm: Arm | None = None) -> Chains:
    """Return the models that the policy asks about an upload; `arm` is its side of an experiment."""
    asked = prompt(ask)
    tokens = len(asked.instructions + asked.text) // _CHARACTERS_PER_TOKEN + PICTURE_TOKENS + asked.max_tokens
    return routes.chains(key, kind, ask.task, rules, looks=looks, tokens=tokens, arm=arm)


def seen(kind: str, looks: Looks | None, item: Media, rules: Policy) -> Seen:
    """Return what is known of an upload without a model, as far as the policy believes it."""
    believed = looks is not None and looks.confidence >= rules.routing.category_from
    return Seen(
        kind=kind,
        category=looks.category if looks is not None and believed else None,
        text_share=looks.text_share if looks is not None else None,
        duration_s=item.duration_s,
    )


async def answer(
    call: Asking, key: str, kind: str, ask: Ask, content: Content, chain: Chains, about: Seen, rules: Policy
) -> Answered:
    """Ask the models, in one call or, about sound and video that none takes as it is, in several.

    Raises:
        GatewayError, MediaError: as `recording.answer` does.
    """
    if kind not in ("audio", "video"):
        return await escalation.answer(call, ask, (content.whole,), chain, about)
    return await recording.answer(
        call,
        ask,
        content,
        chain,
        hearing=routes.chains(key, "audio", "transcribe", rules),
        seeing=routes.chains(key, "image", "caption", rules),
        seen=about,
    )
