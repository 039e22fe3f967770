"""Uploads a picture that no other one is like, sees it captioned by a model, and removes it."""

import io
import secrets
from datetime import UTC, datetime

from captions_cli.errors import CommandError, ExitCode
from captions_cli.stack import Stack
from captions_cli.uploading import put
from captions_cli.watching import UploadWatch

PREFIX = "captions-check/"
WIDTH, HEIGHT = 320, 240
SHAPES = 24


def picture() -> bytes:
    """A JPEG of random shapes: another one every time, so that its caption is not known yet."""
    from PIL import Image, ImageDraw

    dice = secrets.SystemRandom()
    image = Image.new("RGB", (WIDTH, HEIGHT), tuple(dice.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(SHAPES):
        left, top = dice.randrange(-40, WIDTH), dice.randrange(-40, HEIGHT)
        box = (left, top, left + dice.randrange(20, 140), top + dice.randrange(20, 140))
        shape = dice.choice([draw.ellipse, draw.rectangle])
        shape(box, fill=tuple(dice.randrange(256) for _ in range(3)))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=90)
    return written.getvalue()


def check(stack: Stack, timeout: float) -> str:
    """Upload, wait at most `timeout` seconds for the caption, remove the upload; returns the model that answered.

    Raises CommandError when it does not end as captioned by a model.
    """
    now = datetime.now(UTC)
    data = picture()
    key = f"{PREFIX}{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.jpg"
    sent = put(stack, key, data, len(data))
    try:
        watch = UploadWatch(stack, [sent])
        in_time = watch.until_ended(timeout, lambda _changed, _seen: None)
        record = watch.seen[key].record
    finally:
        stack.client("s3").delete_object(Bucket=stack.bucket, Key=key)
    if not in_time or record is None:
        state = record.state if record else "not seen by the pipeline"
        raise CommandError(f"the synthetic upload was {state} after {timeout:g} s", ExitCode.TIMEOUT)
    if record.state != "captioned" or record.provenance is None:
        why = f" ({record.reason.code}: {record.reason.message})" if record.reason else ""
        raise CommandError(f"the synthetic upload ended as {record.state}{why}", ExitCode.NOT_CAPTIONED)
    return str(record.provenance.model)
