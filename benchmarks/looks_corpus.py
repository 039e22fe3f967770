"""Pictures that the classifier of looks is fitted on beside the media folder: of Debian's packages, and rendered.

    python benchmarks/looks_corpus.py --out DIR [--seed N]

Fills DIR/<labels>/<source>/ (several labels are joined by "+"). Real ones come from documentation, stamps and clip art
in Debian packages, fetched with apt-get and never kept in the project. Rendered ones fill the kinds of which those hold
few: screens of code, receipts on tables, pages in Chinese, Japanese and Korean. Needs apt-get, dpkg, pdftoppm, and the
packages of benchmarks/peers/looks.txt. Nothing that is drawn here counts in any figure of benchmarks/classifier.py.
"""

import argparse
import io
import math
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

# package, glob below its root, labels, how many, smallest side in pixels
PACKAGES = (
    ("gnome-user-docs", "**/gnome-help/figures/*shell*.png", "screenshot", 30, 120),
    ("gnumeric-doc", "**/figures/*dialog*.png", "screenshot", 30, 120),
    ("gnumeric-doc", "**/figures/menu-*.png", "screenshot", 15, 120),
    ("gnumeric-doc", "**/figures/analysistools*.png", "screenshot", 25, 120),
    ("kdevelop-data", "**/en/kdevelop/*.png", "screenshot+code", 40, 200),
    ("geany-common", "**/html/images/*.png", "screenshot", 20, 200),
    ("kicad-doc-en", "**/images/en/*dialog*.png", "screenshot", 15, 200),
    ("kicad-doc-en", "**/images/*properties*.png", "screenshot", 15, 200),
    ("qtcreator-doc", "**/doc/qtcreator/images/qtcreator-*.png", "screenshot+code", 60, 200),
    ("debian-handbook", "**/en-US/images/inst-*.png", "screenshot", 20, 200),
    ("inkscape-tutorials", "**/tutorials/*.png", "screenshot", 5, 120),
    ("python-pandas-doc", "**/_images/*.png", "chart", 110, 150),
    ("openclipart-png", "**/openclipart/png/[a-r]*/**/*.png", "drawing", 260, 150),
    ("tuxpaint-stamps-default", "**/stamps/**/cartoon/*.png", "drawing", 30, 120),
    ("tuxpaint-stamps-default", "**/stamps/animals/**/*.png", "product", 110, 120),
    ("tuxpaint-stamps-default", "**/stamps/plants/**/*.png", "product", 40, 120),
    ("tuxpaint-stamps-default", "**/stamps/food/**/*.png", "product", 40, 120),
    ("tuxpaint-stamps-default", "**/stamps/household/**/*.png", "product", 40, 120),
    ("tuxpaint-stamps-default", "**/stamps/hobbies/**/*.png", "product", 20, 120),
    ("tuxpaint-stamps-default", "**/stamps/sports/*.png", "product", 15, 120),
    ("tuxpaint-stamps-default", "**/stamps/vehicles/**/*.png", "product", 30, 120),
)
# package, glob, source's name, every how many pages, script of the text
PAGES = (
    ("debian-reference-zh-cn", "**/*.pdf*", "zh", 9),
    ("maint-guide-zh-cn", "**/*.pdf*", "zh", 3),
    ("debian-edu-doc-zh-cn", "**/*.pdf*", "zh", 6),
    ("gnuplot-doc", "**/gnuplot.pdf", "latin", 12),
)
TEXTURES = ("lomiri-wallpapers-20.04", "plasma-workspace-wallpapers")
FONTS = (
    "fonts-hack", "fonts-firacode", "fonts-inconsolata", "fonts-lato", "fonts-liberation", "fonts-dejavu-core",
    "fonts-wqy-zenhei", "fonts-arphic-uming", "fonts-noto-cjk",
)  # fmt: skip
CODE_SUFFIXES = (".py", ".js", ".c", ".h", ".html", ".css", ".sh", ".json", ".toml", ".pl", ".xml")
Rng = random.Random


def unpacked(package: str, cache: Path) -> Path:
    """Return the folder in which a Debian package is unpacked; fetched once. Raises CalledProcessError."""
    root = cache / package
    if not root.exists():
        packages = cache / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        if not list(packages.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", "-q", package], cwd=packages, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["dpkg", "-x", next(packages.glob(f"{package}_*.deb")), root], check=True)
    return root


def on_white(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        under = Image.new("RGB", over.size, "white")
        under.paste(over, mask=over.getchannel("A"))
        return under
    return picture.convert("RGB")


def real_pictures(cache: Path, rng: Rng) -> Iterator[tuple[str, str, Image.Image]]:
    """Yield (labels, source, picture) from the packages."""
    for package, paths, labels, most, side in PACKAGES:
        files = sorted(p for p in unpacked(package, cache).glob(paths) if p.is_file() and not p.is_symlink())
        rng.shuffle(files)
        taken = 0
        for file in files:
            try:
                with Image.open(file) as opened:
                    if min(opened.size) < side or max(opened.size) > 4000:
                        continue
                    picture = on_white(opened)
            except OSError:
                continue
            if picture.convert("L").resize((16, 16)).getextrema() == (255, 255):
                continue
            yield labels, package, picture
            taken += 1
            if taken == most:
                break
    for package, paths, script, step in PAGES:
        for pdf in sorted(unpacked(package, cache).glob(paths)):
            for page in pages(pdf, step, rng):
                yield "document", f"{package}-{script}", page


def pages(pdf: Path, step: int, rng: Rng) -> Iterator[Image.Image]:
    """Yield every `step`-th page, at the resolutions in which pages are scanned or shown."""
    data = subprocess.run(["zcat", "-f", pdf], stdout=subprocess.PIPE, check=True).stdout
    for number in range(4, 400, step):
        command = ["pdftoppm", "-f", str(number), "-l", str(number), "-r", str(rng.choice((60, 80, 100, 130))), "-png"]
        done = subprocess.run(
            [*command, "-"], input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
        if not done.stdout:
            return
        yield on_white(Image.open(io.BytesIO(done.stdout)))


class Fonts:
    """The fonts of the packages, by what they are for."""

    def __init__(self, cache: Path) -> None:
        files = [
            p
            for name in FONTS
            for p in sorted(unpacked(name, cache).rglob("*"))
            if p.suffix in (".ttf", ".ttc", ".otf")
        ]
        named = [(p.name.lower(), p) for p in files]
        self.mono = [
            p
            for name, p in named
            if any(m in name for m in ("hack", "firacode", "inconsolata", "mono"))
            and "cjk" not in name
            and "zenhei" not in name
        ]
        self.cjk = [p for name, p in named if any(m in name for m in ("cjk", "zenhei", "uming"))]
        self.plain = [p for name, p in named if p not in self.mono and p not in self.cjk
                      and not any(m in name for m in ("italic", "narrow", "hairline", "thin"))]  # fmt: skip

    @staticmethod
    def of(rng: Rng, files: list[Path], size: int) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(rng.choice(files), size)


# ------------------------------------------------------------------------------------------------ rendered


def words(rng: Rng, count: int) -> str:
    letters = "eeeettaaooiinnsshhrrddllucmwfgypbvk"
    return " ".join("".join(rng.choice(letters) for _ in range(rng.randint(1, 10))) for _ in range(count))


def cjk_line(rng: Rng, script: str, count: int) -> str:
    spans = {
        "zh": [(0x4E00, 0x7000)],
        "ja": [(0x3041, 0x3093), (0x3041, 0x3093), (0x4E00, 0x6C00), (0x30A1, 0x30F3)],
        "ko": [(0xAC00, 0xD7A3)],
    }[script]
    line = "".join(chr(rng.randint(*rng.choice(spans))) for _ in range(count))
    if rng.random() < 0.3:
        line = line[: count // 2] + f" {words(rng, 1)} " + line[count // 2 + 4 :]
    return line


def writing(rng: Rng, script: str, wide: int) -> Callable[[int], str]:
    """Return what writes so many words, or `wide` times as many characters of a script without spaces."""
    return lambda count: words(rng, count) if script == "latin" else cjk_line(rng, script, wide * count)


def code_screen(rng: Rng, fonts: Fonts, sources: list[Path]) -> Image.Image:
    from pygments import highlight
    from pygments.formatters import ImageFormatter
    from pygments.lexers import get_lexer_for_filename
    from pygments.styles import get_all_styles

    while True:
        file = rng.choice(sources)
        lines = file.read_text(errors="replace").expandtabs(4).splitlines()
        lines = [line[: rng.choice((60, 80, 100))] for line in lines if line.isascii()]
        count = rng.randint(6, 42)
        if len(lines) < count:
            continue
        start = rng.randrange(len(lines) - count + 1)
        part = "\n".join(lines[start : start + count])
        if sum(map(len, part.split())) > 90:
            break
    formatter = ImageFormatter(
        font_name=str(rng.choice(fonts.mono)), font_size=rng.choice((12, 14, 16, 18, 22)), line_pad=rng.randint(1, 8),
        style=rng.choice(sorted(get_all_styles())), line_numbers=rng.random() < 0.4, image_pad=rng.randint(4, 40),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = on_white(Image.open(io.BytesIO(highlight(part, get_lexer_for_filename(file.name), formatter))))
    ground = picture.getpixel((1, picture.height - 2))
    bar = rng.choice((0, 0, 24, 32))
    wide = picture.width + rng.choice((0, 0, rng.randint(20, 500)))
    window = Image.new("RGB", (wide, picture.height + bar), ground)
    window.paste(picture, (0, bar))
    draw = ImageDraw.Draw(window)
    if bar:
        for number, colour in enumerate(("#ff5f56", "#ffbd2e", "#27c93f")):
            draw.ellipse((10 + 18 * number, bar / 2 - 5, 20 + 18 * number, bar / 2 + 5), fill=colour)
    if rng.random() < 0.35:  # a card on a plain ground, with a shadow
        margin = rng.randint(15, 80)
        card = Image.new("RGB", (window.width + 2 * margin, window.height + 2 * margin),
                         rng.choice(("white", "#abb8c3", "#222244", "#6a5acd", "#eeeeee")))  # fmt: skip
        shadow = Image.new("L", card.size, 0)
        ImageDraw.Draw(shadow).rectangle(
            (margin, margin + 8, margin + window.width, margin + 8 + window.height), fill=140
        )
        card.paste("black", mask=shadow.filter(ImageFilter.GaussianBlur(margin / 4)))
        card.paste(window, (margin, margin))
        return card
    return window


def receipt(rng: Rng, fonts: Fonts, script: str = "latin") -> Image.Image:
    wide, high = rng.randint(280, 420), rng.randint(500, 1100)
    tone = rng.randint(225, 255)
    paper = Image.new("RGB", (wide, high), (tone, tone, tone - rng.randint(0, 12)))
    draw = ImageDraw.Draw(paper)
    size = rng.randint(14, 20)
    files = fonts.mono + fonts.plain if script == "latin" else fonts.cjk
    font, large = fonts.of(rng, files, size), fonts.of(rng, files, size + 10)
    text = writing(rng, script, 3)
    ink = (rng.randint(0, 90),) * 3
    y = rng.randint(12, 50)
    draw.text((wide / 4, y), text(2).upper()[:14], font=large, fill=ink)
    y += size + 30
    while y < high - 2 * size - rng.randint(0, 120):
        kind = rng.random()
        if kind < 0.1:
            draw.text((12, y), "-" * 60, font=font, fill=ink)
        elif kind < 0.75:
            draw.text((14, y), text(2)[:20], font=font, fill=ink)
            amount = f"{rng.uniform(0.5, 300):.2f}"
            draw.text((wide - 14 - draw.textlength(amount, font=font), y), amount, font=font, fill=ink)
        elif kind < 0.9:
            draw.text((wide / 3, y), text(3)[:18], font=font, fill=ink)
        y += size + rng.randint(3, 12)
    return paper


def photographed(rng: Rng, paper: Image.Image, table: Image.Image) -> Image.Image:
    """Lay the paper on a photographed surface, turned and in uneven light, as a phone would see it."""
    scene = table.resize((rng.randint(600, 900), rng.randint(700, 1100)))
    scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(1, 6)))
    factor = rng.uniform(0.75, 0.97) * min(scene.width / paper.width, scene.height / paper.height)
    small = paper.resize((int(paper.width * factor), int(paper.height * factor)), Image.Resampling.BICUBIC)
    turned = small.rotate(rng.uniform(-9, 9), expand=True, resample=Image.Resampling.BICUBIC)
    black = turned.convert("L").point(lambda v: 255 if v > 8 else 0).filter(ImageFilter.MaxFilter(9))
    scene.paste(turned, ((scene.width - turned.width) // 2, (scene.height - turned.height) // 2), black)
    light = np.linspace(rng.uniform(0.6, 1), rng.uniform(0.6, 1), scene.width)[None, :, None]
    light = light * np.linspace(rng.uniform(0.75, 1), rng.uniform(0.75, 1), scene.height)[:, None, None]
    noise = np.random.default_rng(rng.randrange(1 << 30)).normal(0, rng.uniform(0, 5), (scene.height, scene.width, 1))
    lit = np.asarray(scene, np.float32) * light + noise
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))


def page(rng: Rng, fonts: Fonts, script: str) -> Image.Image:
    wide = rng.randint(500, 1000)
    high = int(wide * rng.choice((1.414, 1.294, 0.75, 0.5625)))
    paper = Image.new("RGB", (wide, high), rng.choice(("white", "white", "#fafaf5", "#fffef0")))
    draw = ImageDraw.Draw(paper)
    size = rng.randint(11, 24)
    font = fonts.of(rng, fonts.plain if script == "latin" else fonts.cjk, size)
    title = fonts.of(rng, fonts.plain if script == "latin" else fonts.cjk, size + rng.randint(4, 16))
    left = rng.randint(20, wide // 8)
    y = rng.randint(20, 80)
    accent = rng.choice(("black", "#1f4e79", "#a00000", "black"))
    text = writing(rng, script, 4)
    draw.text((left, y), text(3), font=title, fill=accent)
    y += size + 40
    bottom = high - rng.randint(20, high // 3)
    while y < bottom:
        kind = rng.random()
        if kind < 0.12:
            draw.line((left, y, wide - left, y), fill="gray")
        elif kind < 0.25:
            for row in range(rng.randint(2, 6)):
                for column in range(4):
                    x = left + column * (wide - 2 * left) / 4
                    draw.rectangle((x, y, x + (wide - 2 * left) / 4, y + size + 8), outline="black")
                    draw.text((x + 4, y + 3), text(1)[:9], font=font, fill="black")
                y += size + 8
                if row > 3 and y > bottom:
                    break
        else:
            for _ in range(rng.randint(1, 6)):
                line = text(30)
                while draw.textlength(line, font=font) > wide - 2 * left:
                    line = line[:-1] if script != "latin" else line.rsplit(" ", 1)[0]
                if rng.random() < 0.2:
                    line = line[: len(line) // 2]
                draw.text((left, y), line, font=font, fill=(rng.randint(0, 80),) * 3)
                y += int(size * rng.choice((1.2, 1.3, 1.5)))
        y += rng.randint(4, 2 * size)
    return paper


def chart(rng: Rng) -> Image.Image:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    numbers = np.random.default_rng(rng.randrange(1 << 30))
    with plt.style.context(rng.choice([s for s in plt.style.available if not s.startswith("_")])):
        figure, axes = plt.subplots(figsize=(rng.uniform(4, 10), rng.uniform(3, 6)), dpi=rng.choice((60, 80, 100)))
        kind = rng.choice(("bar", "barh", "line", "pie", "scatter", "hist", "area", "box", "heat"))
        labels = [words(rng, 1) for _ in range(rng.randint(3, 9))]
        if kind == "bar":
            axes.bar(labels, numbers.uniform(1, 9, len(labels)))
        elif kind == "barh":
            axes.barh(labels, numbers.uniform(1, 9, len(labels)))
        elif kind == "line":
            for _ in range(rng.randint(1, 5)):
                axes.plot(numbers.normal(0, 1, rng.choice((8, 30, 200))).cumsum(), label=words(rng, 1))
            axes.legend()
        elif kind == "pie":
            axes.pie(numbers.uniform(1, 9, len(labels)), labels=labels, autopct="%1.0f%%")
        elif kind == "scatter":
            axes.scatter(numbers.normal(size=80), numbers.normal(size=80), c=numbers.uniform(size=80))
        elif kind == "hist":
            axes.hist(numbers.normal(size=500), bins=rng.randint(8, 40))
        elif kind == "area":
            axes.stackplot(range(20), numbers.uniform(1, 5, (3, 20)))
        elif kind == "box":
            axes.boxplot([numbers.normal(size=40) for _ in range(5)])
        else:
            axes.imshow(numbers.uniform(size=(6, 8)))
        axes.set_title(words(rng, 4))
        axes.set_xlabel(words(rng, 2))
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        plt.close(figure)
    return on_white(Image.open(io.BytesIO(stream.getvalue())))


def slide(rng: Rng, fonts: Fonts, script: str) -> Image.Image:
    wide = rng.randint(500, 1000)
    high = int(wide * rng.choice((0.5625, 0.625, 0.75)))
    ground, ink, accent = rng.choice((
        ("white", "black", "#a00000"), ("white", "#222222", "#1f4e79"), ("#fdf6e3", "#333333", "#006633"),
        ("#102040", "white", "#ffcc00"), ("#f4f4f4", "#202020", "#cc3300"),
    ))  # fmt: skip
    picture = Image.new("RGB", (wide, high), ground)
    draw = ImageDraw.Draw(picture)
    files = fonts.plain if script == "latin" else fonts.cjk
    font, title = fonts.of(rng, files, wide // 32), fonts.of(rng, files, wide // 22)
    text = writing(rng, script, 3)
    draw.text((wide * rng.choice((0.05, 0.3)), high * 0.05), text(3), font=title, fill=accent)
    if rng.random() < 0.4:
        draw.line((0, high * 0.15, wide, high * 0.15), fill=accent, width=2)
    y = high * rng.uniform(0.18, 0.3)
    while y < high * rng.uniform(0.6, 0.95):
        left = wide * rng.choice((0.06, 0.06, 0.1))
        draw.ellipse((left, y + wide / 80, left + wide / 90, y + wide / 42), fill=accent)
        draw.text((left + wide * 0.03, y), text(rng.randint(1, 8))[:46], font=font, fill=ink)
        y += wide / 32 * rng.choice((1.4, 1.8, 2.2))
    draw.text((wide * 0.8, high * 0.94), f"{rng.randint(1, 60)} / 60", font=fonts.of(rng, files, wide // 60), fill=ink)
    return picture


def product(rng: Rng, texture: Image.Image) -> Image.Image:
    """Cut a soft shape out of a photograph, shade it like a body, and stand it on plain ground."""
    wide, high = rng.randint(250, 700), rng.randint(250, 700)
    side = int(min(wide, high) * rng.uniform(0.5, 0.95))
    scale = rng.uniform(1.0, 3.0)
    left = rng.randrange(max(1, int(texture.width - side * scale)))
    top = rng.randrange(max(1, int(texture.height - side * scale)))
    part = texture.crop((left, top, left + int(side * scale), top + int(side * scale))).resize((side, side))
    numbers = np.random.default_rng(rng.randrange(1 << 30))
    angles = np.linspace(0, math.tau, 90, endpoint=False)
    radius = np.full(90, 0.72)
    for wave in range(1, 7):
        radius += numbers.normal(0, 0.16 / wave) * np.cos(wave * angles + numbers.uniform(0, math.tau))
    radius = np.clip(radius, 0.2, 1) * side / 2
    outline = [(side / 2 + r * math.cos(a), side / 2 + r * math.sin(a)) for a, r in zip(angles, radius, strict=True)]
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(1))
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    shade = 1.1 - rng.uniform(0.3, 1.1) * np.hypot(x + rng.uniform(0, 0.3), y + rng.uniform(0, 0.3))
    body = Image.fromarray(np.clip(np.asarray(part, np.float32) * shade[..., None], 0, 255).astype(np.uint8))
    ground = rng.choice(
        ((255, 255, 255), (255, 255, 255), (240, 240, 242), (20, 20, 22), tuple(rng.randint(120, 240) for _ in "rgb"))
    )
    picture = Image.new("RGB", (wide, high), ground)
    at = ((wide - side) // 2, (high - side) // 2)
    if rng.random() < 0.3:
        dark = Image.new("L", picture.size, 0)
        dark.paste(mask.point(lambda value: value // 3), (at[0], at[1] + side // 20))
        picture.paste((0, 0, 0), mask=dark.filter(ImageFilter.GaussianBlur(side / 25)))
    picture.paste(body, at, mask)
    return picture


def little(rng: Rng) -> Image.Image:
    """Blank, dark, a gradient, or one small plain mark."""
    wide, high = rng.randint(200, 900), rng.randint(200, 900)
    numbers = np.random.default_rng(rng.randrange(1 << 30))
    first, second = (numbers.integers(0, 256, 3) for _ in range(2))
    kind = rng.random()
    if kind < 0.35:
        angle = rng.uniform(0, math.tau)
        y, x = np.mgrid[0:high, 0:wide]
        along = (x * math.cos(angle) / wide + y * math.sin(angle) / high + 1) / 2.5
        if rng.random() < 0.4:
            along = np.hypot(x / wide - rng.random(), y / high - rng.random())
        mixed = first + np.clip(along, 0, 1)[..., None] * (second.astype(float) - first)
        return Image.fromarray(
            np.clip(mixed + numbers.normal(0, rng.choice((0, 1.5)), mixed.shape), 0, 255).astype(np.uint8)
        )
    plain = rng.choice(((255, 255, 255), (0, 0, 0), tuple(int(v) for v in first)))
    picture = Image.new("RGB", (wide, high), plain)
    if kind < 0.6:
        noise = numbers.normal(0, rng.uniform(0, 3), (high, wide, 3))
        return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    size = rng.randint(3, min(wide, high) // 9)
    left, top = rng.randint(0, wide - size), rng.randint(0, high - size)
    rng.choice((draw.ellipse, draw.rectangle))((left, top, left + size, top + size), fill=tuple(int(v) for v in second))
    return picture


def rendered(cache: Path, rng: Rng) -> Iterator[tuple[str, str, Image.Image]]:
    """Yield (labels, source, picture) drawn here."""
    fonts = Fonts(cache)
    for package in TEXTURES:
        unpacked(package, cache)
    library = Path(io.__file__).parent
    sources = [
        p for p in sorted(library.rglob("*")) if p.suffix in CODE_SUFFIXES and p.is_file() and p.stat().st_size > 800
    ]
    sources += [
        p
        for p in sorted(cache.rglob("*"))
        if p.suffix in CODE_SUFFIXES[1:] and p.is_file() and not p.is_symlink() and 800 < p.stat().st_size < 100_000
    ]
    tables = sorted(cache.glob("*wallpapers*/**/*.jpg"))
    for _ in range(170):
        yield "code", "rendered", code_screen(rng, fonts, sources)
    for number in range(130):
        script = rng.choice(("latin", "latin", "latin", "zh", "ja"))
        paper = receipt(rng, fonts, script)
        if number % 4:
            table = Image.open(rng.choice(tables)).convert("RGB") if tables and rng.random() < 0.5 else surface(rng)
            paper = photographed(rng, paper, table)
        yield "document", f"rendered-receipts-{script}", paper
    for number in range(160):
        script = ("latin", "latin", "zh", "ja", "ko")[number % 5]
        yield "document", f"rendered-pages-{script}", page(rng, fonts, script)
    for number in range(90):
        script = ("latin", "latin", "latin", "zh", "ja")[number % 5]
        yield "document", f"rendered-slides-{script}", slide(rng, fonts, script)
    for _ in range(150 if tables else 0):
        with Image.open(rng.choice(tables)) as texture:
            yield "product", "rendered", product(rng, texture.convert("RGB"))
    for _ in range(110):
        yield "chart", "rendered", chart(rng)
    for _ in range(110):
        yield "little", "rendered", little(rng)


def surface(rng: Rng) -> Image.Image:
    """Return a table or floor: a tone with soft mottling and grain along one side."""
    numbers = np.random.default_rng(rng.randrange(1 << 30))
    tone = numbers.integers(30, 200, 3)
    base = numbers.normal(0, 1, (8, 8, 1)) * 14 + tone
    soft = Image.fromarray(np.clip(base, 0, 255).astype(np.uint8)).resize((700, 900), Image.Resampling.BICUBIC)
    grain = numbers.normal(0, rng.uniform(1, 14), (900, 1, 1)) + numbers.normal(0, 4, (900, 700, 1))
    return Image.fromarray(np.clip(np.asarray(soft, np.float32) + grain, 0, 255).astype(np.uint8))


def write(out: Path, made: Callable[[], Iterator[tuple[str, str, Image.Image]]], rng: Rng) -> int:
    count = 0
    for labels, source, picture in made():
        folder = out / labels / source
        folder.mkdir(parents=True, exist_ok=True)
        if rng.random() < 0.4:
            picture.save(folder / f"{count:04}.jpg", quality=rng.choice((50, 75, 85, 92)))
        else:
            picture.save(folder / f"{count:04}.png")
        count += 1
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="where packages are unpacked (default: OUT/../looks-packages)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    cache = options.cache or options.out.parent / "looks-packages"
    for made in (real_pictures, rendered):
        rng = random.Random(options.seed)
        count = write(options.out, lambda made=made, rng=rng: made(cache, rng), rng)  # type: ignore[misc]
        print(f"{made.__name__}: {count} pictures", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
