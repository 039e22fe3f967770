"""Captions inside copies of pictures: as exiftool reads them, with every pixel and everything else as it was."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageSequence, PngImagePlugin

from captions.media.descriptions import own_description
from captions.records.record import Provenance, Record, Result
from captions.write_back.embedding import NotEmbeddableError, embed
from captions.write_back.sidecars import as_xmp

RESULT = Result(text='An osprey & its "mate"', language="en", task="caption", tags=("bird", "sky & sea"))
RECORD = Record(
    asset="media/a", bucket="media", key="a", sequencer="01", state="captioned", source="model", kind="image",
    provenance=Provenance(model="GLM-4.6V"), result=RESULT,
)  # fmt: skip
XMP = as_xmp(RECORD, RESULT)
RIGHTS = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:p="http://ns.adobe.com/photoshop/1.0/"'
    ' p:Credit="Ada"><dc:rights><rdf:Alt><rdf:li xml:lang="x-default">(c) Ada</rdf:li></rdf:Alt></dc:rights>{}'
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)
TITLED = RIGHTS.format('<dc:description><rdf:Alt><rdf:li xml:lang="x-default">Mine</rdf:li></rdf:Alt></dc:description>')


def picture(form: str, mode: str = "RGB", **options: Any) -> bytes:
    with Image.radial_gradient("L") as grey:
        made = Image.merge("RGB", (grey, grey.rotate(90), grey.rotate(45))).resize((97, 61)).convert(mode)
    out = io.BytesIO()
    made.save(out, form, **options)
    return out.getvalue()


def exif(description: str = "") -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = 6
    if description:
        made[0x010E] = description
    return made


def png_words() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Description", "mine")
    return info


IIM = b"\x1c\x02\x78\0\4mine\x1c\x02\x19\0\4bird"
"""Caption and keyword."""
RESOURCES = b"8BIM\4\4\0\0" + len(IIM).to_bytes(4) + IIM
PAGE = Image.new("RGB", (97, 61), (10, 90, 200))


def big_endian_tiff(*more: tuple[int, int, bytes]) -> bytes:
    """A grey picture of 4 by 2 pixels, with further entries: tag, type and value."""
    entries = {tag: (4, 1, struct.pack(">I", value)) for tag, value in
               {256: 4, 257: 2, 278: 2, 279: 8, 273: 8}.items()}  # fmt: skip
    entries |= {tag: (3, 1, struct.pack(">HH", value, 0)) for tag, value in {258: 8, 259: 1, 262: 1, 277: 1}.items()}
    body = b"MM\0*" + struct.pack(">I", 0) + bytes(range(0, 240, 30))
    for tag, kind, value in more:
        entries[tag] = kind, len(value), struct.pack(">I", len(body))
        body += value + b"\0" * (len(value) % 2)
    directory = b"".join(struct.pack(">HHI", tag, *entries[tag][:2]) + entries[tag][2] for tag in sorted(entries))
    return body[:4] + struct.pack(">I", len(body)) + body[8:] + struct.pack(">H", len(entries)) + directory + bytes(4)


FILES: dict[str, Callable[[], bytes]] = {
    "plain.jpg": lambda: picture("JPEG"),
    "progressive-exif.jpg": lambda: picture("JPEG", progressive=True, exif=exif(), icc_profile=b"x" * 70_000),
    "rights.jpg": lambda: picture("JPEG", xmp=RIGHTS.format("").encode()),
    "plain.png": lambda: picture("PNG"),
    "palette-exif.png": lambda: picture("PNG", "P", exif=exif()),
    "lossy.webp": lambda: picture("WEBP"),
    "alpha-lossless.webp": lambda: picture("WEBP", "RGBA", lossless=True),
    "plain.tif": lambda: picture("TIFF", exif=exif(), icc_profile=b"x" * 7_000),
    "pages-lzw.tif": lambda: picture("TIFF", compression="tiff_lzw", save_all=True, append_images=[PAGE]),
    "rights.tif": lambda: picture("TIFF", dpi=(72, 72), tiffinfo={700: RIGHTS.format("").encode()}),
    "big-endian.tif": lambda: big_endian_tiff(),
    "plain.gif": lambda: b"GIF87a" + picture("GIF", "P")[6:],
    "moving.gif": lambda: picture("GIF", "P", save_all=True, append_images=[PAGE], loop=0, duration=40),
    "extended.webp": lambda: picture("WEBP", exif=exif(), xmp=RIGHTS.format("").encode()),
}


class ExifTool:
    """ExifTool as one process: starting it for each of the hundred files takes nine tenths of the time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["exiftool", "-stay_open", "True", "-@", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> str:
        """What it says; fails where it could not do all it was asked for."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Quiet, it does not say of itself that it is ready for more.
        command = ("-q", *arguments, "-echo3", "ended with ${status}", "-execute")
        print(*command, sep="\n", file=self._process.stdin, flush=True)
        lines: list[str] = []
        while not (line := self._process.stdout.readline()).startswith("ended with "):
            assert line, f"ExifTool is gone: {lines}"
            lines.append(line)
        assert line == "ended with 0\n", lines
        return "".join(lines)

    def close(self) -> None:
        self._process.communicate("-stay_open\nFalse\n", timeout=60)


@functools.cache
def running() -> ExifTool:
    if shutil.which("exiftool") is None:
        missing = pytest.fail if "CI" in os.environ else pytest.skip
        missing("exiftool is not installed (Debian: libimage-exiftool-perl)")
    return ExifTool()


@pytest.fixture(scope="module", autouse=True)
def _no_exiftool_is_left() -> Iterator[None]:
    yield
    if running.cache_info().currsize:
        running().close()
        running.cache_clear()


def read(data: bytes, path: Path) -> dict[str, Any]:
    path.write_bytes(data)
    (values,) = json.loads(running().run("-j", "-G1", "-validate", "-warning", "-a", "-all", str(path)))
    return dict(values)


def frames(data: bytes) -> tuple[Any, ...]:
    with Image.open(io.BytesIO(data)) as image:
        about = image.format, image.mode, image.size, image.info.get("icc_profile")
        exif = {tag: value for tag, value in image.getexif().items() if tag != 700}
        pages = [(page.info.get("duration"), page.tobytes()) for page in ImageSequence.Iterator(image)]
        return *about, *pages, exif


@pytest.mark.parametrize("name", FILES)
def test_exiftool_reads_the_caption_and_pixels_and_all_else_stay(name: str, tmp_path: Path) -> None:
    original = FILES[name]()
    copy = embed(original, XMP, "skip")
    assert frames(copy) == frames(original)
    written = read(copy, tmp_path / name)
    assert written["XMP-dc:Description"] == RESULT.text
    assert written["XMP-iptcCore:AltTextAccessibility"] == RESULT.text
    assert written["XMP-iptcCore:ExtDescrAccessibility"] == RESULT.text
    assert written["XMP-dc:Subject"] == ["bird", "sky & sea"]
    assert written["XMP-photoshop:CaptionWriter"] == "GLM-4.6V"
    assert not any("DigitalSourceType" in each for each in written)
    if b"Ada" in original:
        assert (written["XMP-dc:Rights"], written["XMP-photoshop:Credit"]) == ("(c) Ada", "Ada")
    before = read(original, tmp_path / f"before-{name}")
    assert written.get("ExifTool:Warning") in (None, before.get("ExifTool:Warning"))
    again = read(embed(copy, XMP, "replace"), tmp_path / name)
    assert {key: again[key] for key in again if "XMP" in key} == {key: written[key] for key in written if "XMP" in key}


@pytest.mark.parametrize(
    "original",
    [
        picture("JPEG", xmp=TITLED.encode()), picture("JPEG", exif=exif("mine")), picture("PNG", pnginfo=png_words()),
        picture("WEBP", xmp=TITLED.encode()), picture("WEBP", exif=exif("mine")), picture("PNG", exif=exif("mine")),
        picture("TIFF", description="mine"), picture("TIFF", tiffinfo={700: TITLED.encode()}),
        big_endian_tiff((33723, 7, IIM)), big_endian_tiff((34377, 1, RESOURCES)), picture("GIF", comment=b"mine"),
    ],
    ids=["jpeg-xmp", "jpeg-exif", "png-text", "webp-xmp", "webp-exif", "png-exif", "tiff-description", "tiff-xmp",
         "tiff-iim", "tiff-photoshop", "gif-comment"],
)  # fmt: skip
def test_words_of_the_files_own_stay_unless_they_are_to_be_replaced(original: bytes, tmp_path: Path) -> None:
    with pytest.raises(NotEmbeddableError, match="of its own"):
        embed(original, XMP, "skip")
    copy = embed(original, XMP, "replace")
    written = read(copy, tmp_path / "a")
    assert written["XMP-dc:Description"] == RESULT.text
    assert "mine" not in {str(value).casefold() for value in written.values()}
    assert frames(copy)[:-1] == frames(original)[:-1]  # all but EXIF


def test_a_raw_file_that_begins_like_a_tiff_gets_no_copy() -> None:
    for tag, kind, value in ((50706, 1, b"\1\4\0\0\0\0"), (330, 4, struct.pack(">II", 8, 8))):
        with pytest.raises(NotEmbeddableError, match="raw"):
            embed(big_endian_tiff((tag, kind, value)), XMP, "replace")


def test_nothing_that_stood_in_a_tiff_moves() -> None:
    original = picture("TIFF", save_all=True, append_images=[PAGE])
    copy = embed(original, XMP, "skip")
    assert (copy[:4], copy[8 : len(original)]) == (original[:4], original[8:])


@pytest.mark.parametrize(
    "description", ["ImageJ=1.53t\nslices=20\n", '<?xml version="1.0"?><OME/>', '{"shape": [20, 97]}']
)
def test_what_programs_say_of_a_stack_of_pictures_is_not_replaced(description: str) -> None:
    data = picture("TIFF", description=description)
    with pytest.raises(NotEmbeddableError, match="belong together"):
        embed(data, XMP, "replace")
    assert description.encode() in embed(data, XMP, "keep-as-context")


def test_a_tiff_that_names_a_tag_twice_gets_no_copy() -> None:
    # libtiff takes the first of two and Pillow the last: with either left out, somebody sees other pixels.
    twice = big_endian_tiff().replace(struct.pack(">HHI", 277, 3, 1), struct.pack(">HHI", 278, 3, 1))
    with pytest.raises(NotEmbeddableError, match="names a tag twice"):
        embed(twice, XMP, "replace")


@pytest.mark.deep
def test_words_in_millions_of_blocks_are_taken_out_at_once() -> None:
    """Put together as bytes, each block copies all before it: files of 40 MB took an hour, which the time-out ends."""
    gif = picture("GIF")
    assert b"\1a\1a" not in embed(gif[:-1] + b"\x21\xfe" + b"\1a" * 6_000_000 + b"\0;", XMP, "replace")
    datasets = IIM + b"\x1c\x02\x19\0\0" * 1_000_000
    written = embed(big_endian_tiff((33723, 7, datasets)), XMP, "replace")
    assert written.count(b"\x1c\x02\x78") == 1  # where it stood, which no directory names any more


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", ["II", "MM"])
def test_what_is_replaced_contradicts_ours_nowhere_in_the_file(form: str, order: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form.lower()}"
    path.write_bytes(picture(form, xmp=TITLED.encode()) if form != "PNG" else picture(form, pnginfo=png_words()))
    words = [f"-{tag}=Mine, {'long ' * 9}indeed" for tag in ("ImageDescription", "UserComment")]
    iim = ["-IPTC:Caption-Abstract=Mine", "-IPTC:Keywords=old", "-IPTC:City=Oslo"] if form == "JPEG" else []
    older = ["-Make=Ricoh", "-ExposureTime=1/60", f"-ExifByteOrder={order}", *words, *iim]
    exiftool(path, *older)
    original = path.read_bytes()
    before = read(original, path)
    assert before["IFD0:ImageDescription"] == before["ExifIFD:UserComment"]
    copy = embed(original, XMP, "replace")
    assert frames(copy)[:-1] == frames(original)[:-1]  # all but EXIF
    after = read(copy, path)
    assert {name: text for name, text in after.items() if "Mine" in str(text) or text == "mine"} == {}
    assert after["XMP-dc:Description"] == RESULT.text
    kept = ("IFD0:Make", "ExifIFD:ExposureTime", *(("IPTC:Keywords", "IPTC:City") if iim else ()))
    assert [after[name] for name in kept] == [before[name] for name in kept]
    assert own_description(copy) == RESULT.text
    new = warnings(path)
    path.write_bytes(original)
    assert new <= warnings(path)


def test_a_comment_that_says_something_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(picture("JPEG"))
    exiftool(path, "-ImageDescription=Mine", "-UserComment=Steps: 20, Sampler: Euler")
    after = read(embed(path.read_bytes(), XMP, "replace"), path)
    assert ("IFD0:ImageDescription" in after, after["ExifIFD:UserComment"]) == (False, "Steps: 20, Sampler: Euler")
    bare = picture("JPEG", exif=words_alone())
    assert "IFD0:ImageDescription" not in read(embed(bare, XMP, "replace"), path)


def words_alone() -> Image.Exif:
    made = Image.Exif()
    made[0x010E] = "mine"
    return made


def exiftool(path: Path, *options: str) -> str:
    return running().run("-overwrite_original", *options, str(path))


def warnings(path: Path) -> set[str]:
    lines = exiftool(path, "-validate", "-a", "-s3", "-warning").splitlines()
    return {line for line in lines if not line.endswith((" Warnings", "1 Warning"))}


def in_app1(data: bytes, *contents: bytes) -> bytes:
    """A JPEG with further APP1 segments."""
    return data[:2] + b"".join(b"\xff\xe1" + (len(each) + 2).to_bytes(2) + each for each in contents) + data[2:]


def test_xmp_of_odd_kinds_gets_no_copy_and_never_raises_anything_else() -> None:
    head = b"http://ns.adobe.com/xap/1.0/\0"
    packet = RIGHTS.format("").encode()
    deep = RIGHTS.format("<dc:coverage>" + "<dc:a>" * 3_000 + "</dc:a>" * 3_000 + "</dc:coverage>").encode()
    for data, why in (
        (in_app1(picture("JPEG"), head + packet, head + packet), "several"),
        (in_app1(picture("JPEG"), head + packet, b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40), "several parts"),
        (picture("JPEG", xmp=deep), "nested"),
        *(
            (picture("JPEG", xmp=f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + packet), "cannot be read")
            for encoding in ("shift_jis", "utf-7", "none-such")
        ),
    ):
        with pytest.raises(NotEmbeddableError, match=why):
            embed(data, XMP, "replace")


def test_older_words_that_cannot_be_taken_out_have_no_copy_beside_them() -> None:
    caption = b"\x1c\x02\x78\x00\x04mine"
    for iim in (b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\x40\0" + caption, b"Photoshop 2.5\0" + caption):
        data = picture("JPEG")
        segment = b"\xff\xed" + (len(iim) + 2).to_bytes(2) + iim
        with pytest.raises(NotEmbeddableError, match="IPTC-IIM"):
            embed(data[:2] + segment + data[2:], XMP, "replace")


def test_what_cannot_be_written_into_says_why() -> None:
    whole = picture("JPEG", xmp=b"<x:xmpmeta")
    for data, why in (
        (picture("BMP"), "only JPEG, PNG, WebP, TIFF and GIF"),
        (picture("TIFF")[:40], "told apart"),
        (picture("GIF")[:40], "told apart"),
        (whole, "XMP cannot be read"),
        (picture("PNG")[:40], "told apart"),
        (picture("JPEG")[:30], "told apart"),
        (picture("WEBP")[:50], "told apart"),
        (picture("JPEG", xmp=b'<!DOCTYPE a [<!ENTITY b "c">]><a/>'), "not read"),
        (
            picture("JPEG", xmp=TITLED.replace("<x:", '<!DOCTYPE a [<!ENTITY b "c">]><x:', 1).encode("utf-16")),
            "not read",
        ),
    ):
        with pytest.raises(NotEmbeddableError, match=why):
            embed(data, XMP, "replace")
    long = as_xmp(RECORD, RESULT.model_copy(update={"text": "a" * 70_000}))
    with pytest.raises(NotEmbeddableError, match="more than"):
        embed(picture("PNG"), long, "replace")


@pytest.mark.parametrize(
    ("form", "part", "place"),
    [("JPEG", b"\xff\xe5\0\2", 2), ("PNG", b"\0\0\0\0tEXt\0\0\0\0", 33), ("WEBP", b"ABCD\0\0\0\0", 12),
     ("GIF", b"\x21\xf9\0", -1)],
)  # fmt: skip
def test_a_file_of_very_many_parts_gets_no_copy(form: str, part: bytes, place: int) -> None:
    data = picture(form)
    many = data[:place] + part * 100_001 + data[place:]
    if form == "WEBP":
        many = many[:4] + struct.pack("<I", len(many) - 8) + many[8:]
    with pytest.raises(NotEmbeddableError, match="more than 100,000 parts"):
        embed(many, XMP, "replace")
    resources = RESOURCES + b"8BIM\4\5\0\0\0\0\0\0" * 100_001
    with pytest.raises(NotEmbeddableError, match="more than 100,000 parts"):
        embed(big_endian_tiff((34377, 1, resources)), XMP, "replace")


def test_pieces_of_a_file_never_raise_anything_else() -> None:
    for make in FILES.values():
        data = make()
        for end in range(0, min(len(data), 600), 7):
            try:
                embed(data[:end], XMP, "replace")
            except NotEmbeddableError:
                continue
    described = picture("JPEG", exif=exif("mine"))
    for at in range(2, 120):  # directories that lead anywhere
        for value in (0, 0xFF):
            try:
                embed(described[:at] + bytes([value]) + described[at + 1 :], XMP, "replace")
            except NotEmbeddableError:
                continue


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_words_of_the_files_own_stay_beside_ours_where_they_are_context(form: str, tmp_path: Path) -> None:
    options: dict[str, Any] = (
        {"pnginfo": packet_in_png(TITLED)} if form == "PNG" else {"xmp": TITLED.encode()}
    )  # Pillow writes no XMP into PNG by itself
    written = read(embed(picture(form, **options), XMP, "keep-as-context"), tmp_path / "a")
    assert written["XMP-dc:Description"] == "Mine"
    assert written["XMP-iptcCore:AltTextAccessibility"] == RESULT.text
    assert written["XMP-dc:Subject"] == ["bird", "sky & sea"]
    assert "XMP-photoshop:CaptionWriter" not in written
    older = read(embed(picture("JPEG", exif=exif("mine")), XMP, "keep-as-context"), tmp_path / "b")
    assert "XMP-dc:Description" not in older
    assert older["IFD0:ImageDescription"] == "mine"
    assert older["XMP-iptcCore:AltTextAccessibility"] == RESULT.text
    bare = read(embed(picture(form), XMP, "keep-as-context"), tmp_path / "c")
    assert bare["XMP-dc:Description"] == RESULT.text
    assert bare["XMP-photoshop:CaptionWriter"] == "GLM-4.6V"


def packet_in_png(packet: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet)
    return info


ALT_TEXT = "{http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/}AltTextAccessibility"
ALT = f"""<x xmlns:i="{ALT_TEXT[1:].partition("}")[0]}"><i:AltTextAccessibility> Two </i:AltTextAccessibility></x>"""


@pytest.mark.parametrize(
    ("data", "description"),
    [
        (picture("JPEG", xmp=TITLED.encode(), exif=exif("older")), "Mine"),
        (picture("PNG", pnginfo=packet_in_png(TITLED)), "Mine"),
        (picture("WEBP", xmp=TITLED.encode()), "Mine"),
        (picture("JPEG", xmp=ALT.encode()), "Two"),
        (picture("JPEG", xmp=RIGHTS.format("").encode(), exif=exif("mine")), "mine"),
        (picture("WEBP", exif=exif("mine")), "mine"),
        (picture("PNG", pnginfo=png_words()), "mine"),
        (picture("JPEG"), ""),
        (picture("JPEG", xmp=b"<x:xmpmeta"), ""),
        (picture("JPEG", xmp=b'<!DOCTYPE a [<!ENTITY b "c">]><a/>'), ""),
        (picture("JPEG", xmp=TITLED.encode("utf-16")), ""),
        (picture("GIF"), ""),
        (b"", ""),
    ],
)
def test_a_files_own_description_is_read_from_where_it_stands(data: bytes, description: str) -> None:
    assert own_description(data) == description


def test_what_is_broken_or_cut_short_has_no_description_or_the_one_it_had() -> None:
    for data in (picture("JPEG", xmp=TITLED.encode(), exif=exif("older")), picture("WEBP", exif=exif("Mine"))):
        for end in range(0, min(len(data), 1_500), 7):
            assert own_description(data[:end]) in ("", "Mine", "older")
