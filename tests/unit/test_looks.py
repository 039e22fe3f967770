"""What a picture looks like is told from its pixels, the same for its copies, quickly and without surprises."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from captions import media
from captions.picture_class import CATEGORIES, Looks, classify
from captions.picture_class.forest import Forest, packaged

MEDIA = Path(__file__).parents[1] / "media"


def looks_of(data: bytes) -> Looks:
    picture = media.inspect(data).picture
    assert picture is not None
    return classify(picture)


def drawn(picture: Image.Image, name: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["beacon-street-sunset.jpg", "chelsea.jpg", "coffee.jpg", "teddy-bear.jpg"])
def test_photographs_look_like_photographs_without_writing(name: str) -> None:
    looks = looks_of((MEDIA / "photos" / name).read_bytes())

    assert looks.category in ("photo", "busy")
    assert looks.text_share < 0.05


@pytest.mark.parametrize("name", ["contoso_invoice_2.png", "fw9_1.png", "contoso-receipt.jpg", "receipt.jpg"])
def test_invoices_forms_and_receipts_look_like_documents_with_writing(name: str) -> None:
    looks = looks_of((MEDIA / "documents" / name).read_bytes())

    assert looks.category == "document"
    assert looks.text_share > 0.02


@pytest.mark.parametrize("folder", ["photos", "documents"])
def test_a_smaller_and_recompressed_copy_looks_the_same(folder: str) -> None:
    for path in sorted((MEDIA / folder).iterdir()):
        picture = media.inspect(path.read_bytes()).picture
        assert picture is not None
        small = picture.working.resize((picture.working.width * 2 // 3, picture.working.height * 2 // 3))

        assert looks_of(drawn(small, "JPEG", quality=70)).category == classify(picture).category, path.name


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (33, 2), (640, 480)])
@pytest.mark.parametrize("colour", ["white", "black", "#c04020"])
def test_a_plain_picture_of_any_shape_says_little(size: tuple[int, int], colour: str) -> None:
    looks = looks_of(drawn(Image.new("RGB", size, colour)))

    assert looks.category in ("little", "drawing", "photo")
    assert looks.text_share == 0
    assert looks.cjk is None


def page_of(line: Callable[[ImageDraw.ImageDraw, int, int], None]) -> bytes:
    page = Image.new("RGB", (700, 900), "white")
    draw = ImageDraw.Draw(page)
    for y in range(60, 840, 40):
        line(draw, 50, y)
    return drawn(page)


def square_characters(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """Characters as Chinese has them: each fills a square with strokes above one another."""
    for column in range(26):
        left = x + 24 * column
        for row in range(0, 21, 5):
            draw.line((left, y + row, left + 19 - (column * row) % 7, y + row), fill="black", width=2)
        draw.line((left + 3 + 5 * (column % 3), y, left + 3 + 5 * (column % 3), y + 20), fill="black", width=2)


def letters(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.text((x, y), "the total of this month is due on receipt", font=ImageFont.load_default(24), fill="black")


def test_characters_that_fill_squares_are_told_from_letters() -> None:
    chinese, english = looks_of(page_of(square_characters)), looks_of(page_of(letters))

    assert chinese.cjk is not None
    assert english.cjk is not None
    assert chinese.cjk > 0.5 > english.cjk
    assert min(chinese.text_share, english.text_share) > 0.05


def test_english_forms_and_invoices_are_not_taken_for_chinese() -> None:
    for name in ("fw9_1.png", "fw9_2.png", "receipt.jpg"):
        cjk = looks_of((MEDIA / "documents" / name).read_bytes()).cjk

        assert cjk is None or cjk < 0.5, name


def test_every_answer_is_one_of_the_categories_with_a_likelihood() -> None:
    noise = np.random.default_rng(3)
    for _ in range(10):
        size = (int(noise.integers(8, 400)), int(noise.integers(8, 400)))
        picture = Image.fromarray(noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        ImageDraw.Draw(picture).rectangle((0, 0, size[0] // 2, size[1] // 3), fill="navy")
        looks = looks_of(drawn(picture))

        assert looks.category in CATEGORIES
        assert 0 < looks.confidence <= 1
        assert Looks.model_validate_json(looks.model_dump_json()) == looks


def test_the_same_picture_is_always_told_the_same() -> None:
    data = (MEDIA / "photos" / "coffee.jpg").read_bytes()

    assert looks_of(data) == looks_of(data)


def test_likelihoods_sum_to_one_for_any_measurement() -> None:
    forest = packaged()
    for value in (-1e9, 0.0, 1e9):
        assert forest.likelihoods(dict.fromkeys(forest.features, value)).sum() == pytest.approx(1)


def test_a_model_of_other_categories_is_refused() -> None:
    with pytest.raises(ValueError, match="apart"):
        Forest.of({"categories": ["cat", "dog"], "trees": []})


def test_what_only_passes_looks_on_loads_neither_numpy_nor_pillow() -> None:
    script = "import sys, captions.picture_class; print(sorted({'numpy', 'PIL'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
