"""Describing a picture from its pixels: measured, never recognised.

`measuring` computes the figures; `phrase` turns them into two sentences. Nothing is known of what the picture depicts,
and the text says so.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from PIL import Image

from captions_cli.local.model_endpoint import bars
from captions_cli.local.model_endpoint.description import Description
from captions_cli.local.model_endpoint.measuring import PixelFacts, decoded, facts_of, on_white

NAME = "pixels"
CLOSING = "(described from pixels by the local model)"
# A vision encoder's patch after merging: 32 x 32 pixels to a token (Qwen3-VL).
_PIXELS_PER_TOKEN = 32 * 32
# Shares of even ground: drawings and charts have more, photos less.
_DRAWN_FLATNESS = 0.6
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Pixels:
    """The describer that recognises nothing."""

    def describe(self, data: bytes, max_pixels: int) -> Description:
        """Return what `describe` does."""
        return describe(data, max_pixels)


def describe(data: bytes, max_pixels: int = 50_000_000) -> Description:
    """Return the description of an encoded picture.

    Raises:
        UnreadableMediaError: not a picture, broken, truncated, or of more than `max_pixels` pixels.
    """
    image = decoded(data, max_pixels)
    return description_of(image, facts_of(image))


def description_of(image: Image.Image, facts: PixelFacts) -> Description:
    """Return the description of a decoded picture by its facts."""
    short, more = phrase(facts)
    # Photos have no even ground for bars to stand on, and need not be searched for any.
    standing = bars.bars_of(on_white(image)[0]) if facts.flatness > _DRAWN_FLATNESS else ()
    return Description(
        text=" ".join(part for part in (short, more, CLOSING) if part),
        tokens=max(4, -(-facts.width * facts.height // _PIXELS_PER_TOKEN)),
        short=short,
        tags=tags(facts),
        facts=asdict(facts),
        measured=answers(facts, standing),
        model=NAME,
    )


def answers(facts: PixelFacts, standing: tuple[bars.Bar, ...] = ()) -> dict[str, Any]:
    """Return what was measured by the names that the shapes of answers use for it."""
    unread = []
    if facts.text_lines:
        unread.append(f"About {facts.text_lines} rows look like lines of text, which the local model cannot read.")
    measures: dict[str, Any] = {
        "objects": [
            {
                "name": f"{region.colour} area",
                "count": 1,
                "position": place_words(region.x, region.y),
                "details": f"{_percent(region.area)} of the frame",
            }
            for region in facts.regions
        ],
        "blocks": [],
        "unclear": unread,
        "code": "",
        "doubts": unread,
        "chart_type": "unknown",
        "purpose": "informative",
        "reason": "",
    }
    if standing:
        measures |= _chart(standing)
    if is_plain(facts):
        reason = "It is a plain field of one colour without visible content."
        measures |= {"purpose": "decorative", "reason": reason, "alt": "", "long_description": ""}
    return measures


def _chart(standing: tuple[bars.Bar, ...]) -> dict[str, Any]:
    """Return what bars tell without the words beside them: how many there are and how high each is."""
    highest = max(range(len(standing)), key=lambda at: standing[at].height)
    lowest = min(range(len(standing)), key=lambda at: standing[at].height)
    points = [{"x": f"bar {place}", "y": round(bar.height, 2)} for place, bar in enumerate(standing, start=1)]
    summary = (
        f"{len(standing)} upright bars from one base; bar {highest + 1} from the left is the highest, bar {lowest + 1} "
        f"the lowest at {round(100 * standing[lowest].height)}% of it. The local model does not read the axis."
    )
    return {
        "chart_type": "bar",
        "summary/series": summary,
        "series": [{"name": "height as a share of the highest bar", "points": points, "read": "estimated"}],
    }


def phrase(facts: PixelFacts) -> tuple[str, str]:
    """Return two sentences: what the picture looks like, and how it is made."""
    if is_plain(facts):
        name = facts.colours[0][0]
        article = "An" if format_name(facts)[0] in "aeiou" else "A"
        tone = f"lightness {facts.lightness:.0f} of 100"
        return f"{article} {format_name(facts)} field of plain {name} without visible content, {tone}.", _exif_words(
            facts
        )
    first = _text_sentence(facts) if facts.text_lines else _picture_sentence(facts)
    return first, " ".join(part for part in (_manner_sentence(facts), _exif_words(facts)) if part)


def tags(facts: PixelFacts) -> tuple[str, ...]:
    """Return single words for what was measured, for indexes and tag fields."""
    words = [format_name(facts), *(name for name, share in facts.colours[:3] if share >= 0.1)]
    words.append("dark" if facts.lightness < 38 else "bright" if facts.lightness > 80 else "mid-toned")
    if facts.chroma < 5:
        words.append("monochrome")
    elif facts.chroma > 38:
        words.append("vivid")
    if facts.text_lines:
        words.append("text")
    if facts.horizon is not None:
        words.append("horizon")
    if is_plain(facts):
        words.append("plain")
    return tuple(dict.fromkeys(words))


def is_plain(facts: PixelFacts) -> bool:
    """Return whether a picture is a field of one colour."""
    return facts.contrast < 3 and facts.detail < 0.001 and not facts.regions


def format_name(facts: PixelFacts) -> str:
    """Return the name of the frame's proportions."""
    ratio = facts.width / facts.height
    if ratio > 2.2:
        return "panoramic"
    if ratio > 1.08:
        return "landscape-format"
    if ratio > 0.925:
        return "square"
    return "portrait-format" if ratio > 0.45 else "tall and narrow"


def _colour_words(facts: PixelFacts) -> str:
    named = [(name, share) for name, share in facts.colours if share >= 0.08][:3] or [facts.colours[0]]
    first, share = named[0]
    rest = " and ".join(name for name, _ in named[1:])
    words = f"{first} ({_percent(share)})"
    if share > 0.9 or not rest:
        return f"almost wholly {words}" if share > 0.9 else f"mostly {words}"
    return f"{'mostly ' if share >= 0.45 else ''}{words}{', ' if len(named) > 2 else ' and '}{rest}"


def _percent(share: float) -> str:
    return f"about {max(5, round(share * 20) * 5)}%"


def _kind_words(facts: PixelFacts) -> str:
    if facts.chroma < 3:
        colour = "black-and-white" if facts.contrast > 60 else "grey-toned"
    elif facts.chroma > 38:
        colour = "vividly coloured"
    elif facts.chroma < 9:
        colour = "muted"
    else:
        colour = "colour"
    graphic = facts.flatness > 0.82 and facts.detail > 0.004
    return f"{colour} {'graphic' if graphic else 'picture'}"


def _picture_sentence(facts: PixelFacts) -> str:
    name = format_name(facts)
    article = "An" if name[0] in "aeiou" else "A"
    sentence = f"{article} {name}, {_kind_words(facts)}, {_colour_words(facts)}"
    return f"{sentence}; {_layout_words(facts)}."


def _layout_words(facts: PixelFacts) -> str:
    if facts.horizon is not None:
        above = "lighter" if facts.upper_lighter else "darker"
        line = f"a level edge {_height_words(facts.horizon)} parts a {above} upper part from the rest"
        if facts.regions:
            return f"{line}; {_region_words(facts)}"
        return line
    if facts.regions:
        return _region_words(facts)
    if facts.symmetric:
        return "left and right halves mirror each other"
    if facts.shading:
        return f"it grows lighter towards the {facts.shading}, without a single subject"
    return "the content fills the frame without a single subject"


def _region_words(facts: PixelFacts) -> str:
    main = facts.regions[0]
    size = (
        "a small" if main.area < 0.05 else "a" if main.area < 0.2 else "a large" if main.area < 0.45 else "a dominant"
    )
    others = len(facts.regions) - 1
    words = f"{size} {main.colour} area {place_words(main.x, main.y)} stands out ({_percent(main.area)} of the frame)"
    if others == 0:
        return words
    number = NUMBERS[others] if others < len(NUMBERS) else "many"
    return f"{words}, besides {number} smaller {'one' if others == 1 else 'ones'}"


def place_words(x: float, y: float) -> str:
    """Return where a point is, given in shares of the frame from its upper left corner."""
    column = "left" if x < 0.4 else "right" if x > 0.6 else ""
    row = "upper" if y < 0.4 else "lower" if y > 0.6 else ""
    if not row and not column:
        return "in the centre"
    if not row:
        return f"on the {column}"
    return f"in the {row} {column}".strip() if column else f"in the {row} middle"


def _height_words(share: float) -> str:
    for limit, words in (
        (0.29, "about a quarter from the top"),
        (0.4, "about a third from the top"),
        (0.6, "about halfway down"),
        (0.71, "about two thirds down"),
    ):
        if share < limit:
            return words
    return "about three quarters down"


def _text_sentence(facts: PixelFacts) -> str:
    ground = "dark strokes on a light ground" if facts.dark_on_light else "light strokes on a dark ground"
    name = format_name(facts)
    article = "An" if name[0] in "aeiou" else "A"
    many = "about " + (str(round(facts.text_lines, -1)) if facts.text_lines >= 15 else str(facts.text_lines))
    return (
        f"{article} {name} page or screen with {many} rows that look like lines of text, {ground}, "
        f"filling {_percent(facts.text_share)} of its height; {_colour_words(facts)}."
    )


def _manner_sentence(facts: PixelFacts) -> str:
    light = "dark" if facts.lightness < 38 else "bright" if facts.lightness > 80 else "evenly lit"
    contrast = "low" if facts.contrast < 30 else "strong" if facts.contrast > 75 else "moderate"
    if facts.detail > 0.3:
        texture = "very finely detailed"
    elif facts.detail > 0.12:
        texture = "richly detailed"
    elif facts.detail > 0.03:
        texture = "moderately detailed"
    else:
        texture = "soft and simple"
    words = [light.capitalize(), f"{contrast} contrast", texture]
    if facts.flatness > 0.6:
        words.append(f"{_percent(facts.flatness)} even ground")
    if facts.direction:
        words.append(f"mostly {facts.direction} lines")
    if facts.chroma >= 9 and abs(facts.warmth) > 8:
        words.append("warm tones" if facts.warmth > 0 else "cool tones")
    if facts.transparent >= 0.05:
        words.append(f"{_percent(facts.transparent)} transparent")
    return f"{', '.join(words)}."


def _exif_words(facts: PixelFacts) -> str:
    words = []
    if facts.camera:
        words.append(f'by a camera that calls itself "{facts.camera}"')
    if facts.taken:
        words.append(f"on {facts.taken}")
    if not words and not facts.located:
        return ""
    sentence = f"Its metadata says it was taken {' '.join(words)}" if words else "Its metadata holds a location"
    return f"{sentence}{', with a location' if words and facts.located else ''}."
