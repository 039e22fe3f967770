"""Pages drawn for the near-duplicate benchmark: of each seed one page, and the same page with one thing changed.

Receipts, forms, tables, letters, slides, screenshots, bar and line charts and QR-like grids in sizes from 480 to 1,600
pixels, with letters from nine pixels up. Two pages of one seed differ in one thing alone; a caption that names it would
be wrong for the other.
"""

from collections.abc import Callable
from functools import partial
from random import Random

from PIL import Image, ImageDraw, ImageFont

_VOCABULARY = """
total amount invoice service monthly payment order item coffee bagel juice tea water tax date number name address street
city state office plan basic premium discount delivery unit price quantity due paid card cash change report sales north
south east west summer winter project status open closed review team budget forecast
"""
WORDS = tuple(_VOCABULARY.split())

Draw = ImageDraw.ImageDraw
Colour = tuple[int, int, int]


def page(seed: int, changed: bool) -> tuple[str, Image.Image]:
    """Return what sort of page the seed draws, and the page (RGB), with one thing changed or not."""
    rng, other = Random(seed), Random(f"{seed} changed") if changed else None
    kind = rng.choice(tuple(KINDS))
    width = rng.choice((480, 600, 800, 1000, 1240, 1600))
    height = round(width * rng.choice((0.5625, 0.75, 1.0, 1.3, 1.414)))
    ground = rng.choice(((255, 255, 255), (250, 248, 240), (235, 240, 245), (30, 30, 36)))
    ink = (240, 240, 240) if sum(ground) < 300 else rng.choice(((0, 0, 0), (40, 40, 50), (90, 90, 95)))
    picture = Image.new("RGB", (width, height), ground)
    KINDS[kind](ImageDraw.Draw(picture), picture.size, ink, rng, other)
    return kind, picture


def _words(rng: Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def _other_digit(text: str, rng: Random) -> str:
    at = rng.choice([number for number, letter in enumerate(text) if letter.isdigit()])
    return text[:at] + rng.choice([digit for digit in "0123456789" if digit != text[at]]) + text[at + 1 :]


def _other_word(text: str, rng: Random) -> str:
    words = text.split()
    at = rng.randrange(len(words))
    alike = [word for word in WORDS if len(word) == len(words[at]) and word != words[at]]
    words[at] = rng.choice(alike or [word for word in WORDS if word != words[at]])
    return " ".join(words)


def _rows(draw: Draw, size: tuple[int, int], ink: Colour, rng: Random, other: Random | None, *, ruled: bool) -> None:
    width, height = size
    letters = max(9, round(width / rng.choice((30, 40, 60, 80, 100))))
    font, step = ImageFont.load_default(letters), round(letters * rng.choice((1.2, 1.5, 2)))
    rows: list[tuple[int, str, str]] = []  # y, words, amount
    for y in range(2 * letters, height - 2 * letters, step):
        amount = f"{rng.randrange(1, 2000)}.{rng.randrange(100):02}" if rng.random() < 0.7 else ""
        rows.append((y, _words(rng, rng.randrange(1, 5)), amount))
    if other is not None:
        at = other.randrange(len(rows))
        y, text, amount = rows[at]
        rows[at] = (y, text, _other_digit(amount, other)) if amount else (y, _other_word(text, other), amount)
    for y, text, amount in rows:
        draw.text((width * 0.06, y), text, ink, font)
        draw.text((width * 0.94, y), amount, ink, font, anchor="ra")
        if ruled:
            draw.line((width * 0.05, y + step - 2, width * 0.95, y + step - 2), (150, 150, 150))


def _slide(draw: Draw, size: tuple[int, int], ink: Colour, rng: Random, other: Random | None) -> None:
    width, height = size
    title, lines = _words(rng, 3), [_words(rng, rng.randrange(3, 6)) for _ in range(rng.randrange(2, 5))]
    if other is not None:
        at = other.randrange(len(lines))
        lines[at] = _other_word(lines[at], other)
    draw.rectangle((0, 0, width, height * 0.04), tuple(rng.randrange(256) for _ in range(3)))
    draw.text((width * 0.06, height * 0.08), title, ink, ImageFont.load_default(round(width / 16)))
    for number, line in enumerate(lines):
        draw.text((width * 0.08, height * (0.3 + 0.13 * number)), line, ink, ImageFont.load_default(round(width / 28)))


def _screenshot(draw: Draw, size: tuple[int, int], ink: Colour, rng: Random, other: Random | None) -> None:
    width, height = size
    font, box = ImageFont.load_default(max(10, width // 70)), max(8, width // 80)
    lines = [(rng.random() < 0.5, _words(rng, 8)) for _ in range(14)]
    if other is not None:
        at = other.randrange(14)
        ticked, text = lines[at]
        lines[at] = (not ticked, text) if other.random() < 0.5 else (ticked, _other_word(text, other))
    draw.rectangle((0, 0, width, height * 0.06), (60, 90, 160))
    draw.text((width * 0.02, height * 0.015), _words(rng, 3), "white", font)
    for number, (ticked, text) in enumerate(lines):
        x, y = width * 0.06, height * (0.1 + 0.06 * number)
        draw.rectangle((x, y, x + box, y + box), outline=ink)
        if ticked:
            draw.line((x + 2, y + box / 2, x + box / 2, y + box - 2, x + box - 1, y + 1), ink, 2)
        draw.text((x + 2 * box, y), text, ink, font)


def _chart(draw: Draw, size: tuple[int, int], ink: Colour, rng: Random, other: Random | None, *, lines: bool) -> None:
    width, height = size
    count = rng.randrange(4, 14)
    values = [rng.uniform(0.1, 0.9) for _ in range(count)]
    colours = [tuple(rng.randrange(40, 220) for _ in range(3)) for _ in range(count)]
    if other is not None:
        at = other.randrange(count)
        change = other.choice((-1, 1)) * other.uniform(0.08, 0.2)
        values[at] += change if 0.03 < values[at] + change < 0.97 else -change
    xs = [width * (0.1 + 0.85 * number / count) for number in range(count)]
    ys = [height * (0.9 - 0.8 * value) for value in values]
    if lines:
        draw.line(list(zip(xs, ys, strict=True)), colours[0], max(2, width // 200))
    for x, y, colour in zip(xs, ys, colours, strict=True):
        if not lines:
            draw.rectangle((x, y, x + width * 0.6 / count, height * 0.9), colour)
    draw.line((width * 0.09, height * 0.08, width * 0.09, height * 0.9, width * 0.96, height * 0.9), ink)


def _grid(draw: Draw, size: tuple[int, int], ink: Colour, rng: Random, other: Random | None) -> None:
    count = rng.choice((25, 33, 41))
    cell = min(size) // (count + 8)
    dark = [rng.random() < 0.5 for _ in range(count * count)]
    if other is not None:
        for at in other.sample(range(count * count), other.choice((4, 12, 40))):
            dark[at] = not dark[at]
    draw.rectangle((0, 0, *size), "white")
    for at, filled in enumerate(dark):
        if filled:
            x, y = (4 + at % count) * cell, (4 + at // count) * cell
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), "black")


KINDS: dict[str, Callable[..., None]] = {
    "receipt": partial(_rows, ruled=False),
    "letter": partial(_rows, ruled=False),
    "form": partial(_rows, ruled=True),
    "slide": _slide,
    "screenshot": _screenshot,
    "bar chart": partial(_chart, lines=False),
    "line chart": partial(_chart, lines=True),
    "grid": _grid,
}
