"""What kind of picture an upload is, told from its pixels in a few milliseconds and without a model.

The answer chooses a task and a price, never a caption: docs/looks.md has its figures and its limits. This module
loads neither numpy nor Pillow, so that whatever only passes a `Looks` on stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from captions import media

__all__ = ["CATEGORIES", "Category", "Looks", "classify"]

Category = Literal["product", "photo", "busy", "document", "chart", "screenshot", "code", "drawing", "little"]
CATEGORIES: tuple[Category, ...] = get_args(Category)


class Looks(BaseModel):
    """What a picture looks like: its likeliest `category`, and how likely that is (`confidence`, 0..1).

    `text_share` is the share (0..1) of the picture's area that surely is lines of writing. `cjk` is the likelihood
    (0..1) that this writing is Chinese, Japanese or Korean; known for documents, screenshots and code, and None where
    there is too little of it, or too small, to tell.
    """

    model_config = ConfigDict(frozen=True)

    category: Category
    confidence: float = Field(ge=0, le=1)
    text_share: float = Field(default=0.0, ge=0, le=1)
    cjk: float | None = Field(default=None, ge=0, le=1)


def classify(picture: media.Picture) -> Looks:
    """Tell what `picture`, decoded by `media.inspect`, looks like; deterministic, and never raises for its content."""
    from captions.picture_class.forest import judged  # numpy and Pillow load only where pictures are looked at

    return judged(picture)
