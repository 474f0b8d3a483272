from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from course_lib.images.decode import UndecodableImage, decode, short_side

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def smooth(width: int, height: int) -> Image.Image:
    """A picture without sharp edges, on which ways to resize differ little."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def png(width: int, height: int, depth: int, kind: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG file by hand: `rows` are the unfiltered rows, `extra` chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sixteen_bit_grey(*values: int) -> bytes:
    row = b"\0" + struct.pack(f">{len(values)}H", *values)
    return png(len(values), len(values), 16, 0, row * len(values))


def palette_with_a_hole() -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    return saved(image, "PNG", transparency=0)


def animation() -> bytes:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def uniform(mode: str, colour: object, kind: str = "PNG", **options: object) -> bytes:
    return saved(Image.new(mode, (4, 4), colour), kind, **options)


# What is written → the colour of the first pixel, by hand, and how far a lossy format may be off.
ODD_IMAGES: dict[str, tuple[bytes, tuple[int, int, int], int]] = {
    "grey": (uniform("L", 77), (77, 77, 77), 0),
    "black and white": (uniform("1", 1), WHITE, 0),
    "palette": (uniform("RGB", RED, "GIF"), RED, 0),
    "palette, transparent": (palette_with_a_hole(), WHITE, 0),
    "transparent red": (uniform("RGBA", (255, 0, 0, 0)), WHITE, 0),
    "half transparent black": (uniform("RGBA", (0, 0, 0, 51)), (204, 204, 204), 0),
    "grey with alpha": (uniform("LA", (0, 102)), (153, 153, 153), 0),
    "one colour transparent": (uniform("RGB", RED, transparency=RED), WHITE, 0),
    "CMYK": (uniform("CMYK", (255, 0, 0, 0), "JPEG"), (0, 255, 255), 3),
    "CMYK, TIFF": (uniform("CMYK", (0, 0, 255, 0), "TIFF"), (255, 255, 0), 0),
    "YCbCr": (uniform("RGB", BLUE, "JPEG"), BLUE, 3),
    "animated": (animation(), RED, 0),
    "one pixel": (saved(Image.new("RGB", (1, 1), RED), "PNG"), RED, 0),
    "one row": (saved(Image.new("RGB", (500, 1), BLUE), "BMP"), BLUE, 0),
    "16 bits, black": (sixteen_bit_grey(0), (0, 0, 0), 0),
    "16 bits, just below 1": (sixteen_bit_grey(128), (0, 0, 0), 0),
    "16 bits, 1": (sixteen_bit_grey(129), (1, 1, 1), 0),
    "16 bits, middle": (sixteen_bit_grey(32768), (128, 128, 128), 0),
    "16 bits, white": (sixteen_bit_grey(65535), WHITE, 0),
    "16 bits, TIFF": (uniform("I;16", 32768, "TIFF"), (128, 128, 128), 0),
    "16 bits, big-endian TIFF": (uniform("I;16B", 32768, "TIFF"), (128, 128, 128), 0),
    "16 bits, PGM": (b"P5 1 1 65535 " + struct.pack(">H", 32768), (128, 128, 128), 0),
    "16 bits, colour": (
        png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 65535, 32896, 0)),
        (255, 128, 0),
        0,
    ),
    "WebP": (uniform("RGB", RED, "WEBP", lossless=True), RED, 0),
}


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_odd_images(tmp_path: Path, name: str) -> None:
    written, colour, off = ODD_IMAGES[name]
    path = tmp_path / "image.jpg"  # the wrong ending for most: the content counts
    path.write_bytes(written)
    pixels = decode(path, 4)
    assert pixels.shape == (4, 4, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels[0, 0].astype(int) - colour).max() <= off


def test_every_16_bit_value_keeps_its_place(tmp_path: Path) -> None:
    path = tmp_path / "ramp.png"
    values = [0, 257, 25700, 65535]
    path.write_bytes(sixteen_bit_grey(*values))
    assert decode(path, 4)[2, :, 1].tolist() == [0, 1, 100, 255]


# Orientation → where the stored top left (red) and top right (blue) corners are seen.
ORIENTATIONS = {
    1: ((0, 0), (0, -1)),
    2: ((0, -1), (0, 0)),
    3: ((-1, -1), (-1, 0)),
    4: ((-1, 0), (-1, -1)),
    5: ((0, 0), (-1, 0)),
    6: ((0, -1), (-1, -1)),
    7: ((-1, -1), (0, -1)),
    8: ((-1, 0), (0, 0)),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    image = Image.new("RGB", (16, 16))
    image.paste(RED, (0, 0, 4, 4))
    image.paste(BLUE, (12, 0, 16, 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    pixels = decode(tmp_path / "turned.png", 16)
    red, blue = ORIENTATIONS[orientation]
    assert tuple(pixels[red]) == RED
    assert tuple(pixels[blue]) == BLUE
    assert (pixels.reshape(-1, 3) == RED).all(axis=1).sum() == 16


DAMAGED_EXIF = {
    "ends early": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    # Tag 0x0129 holds two integers; here it is text, which Pillow reads but can't write again.
    "text for integers": (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x02"
        b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
        b"\x01\x29\0\x02\0\0\0\x06\0\0\0\x26"
        b"\0\0\0\0maker\0"
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DAMAGED_EXIF)
def test_damaged_exif_does_not_lose_the_picture(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (16, 16), RED).save(tmp_path / "a.jpg", exif=DAMAGED_EXIF[name])
    assert np.abs(decode(tmp_path / "a.jpg", 16)[8, 8].astype(int) - RED).max() <= 3


@pytest.mark.parametrize(("width", "height"), [(200, 120), (120, 200), (64, 64), (30, 50)])
def test_same_cut_as_torchvision(tmp_path: Path, width: int, height: int) -> None:
    image = smooth(width, height)
    image.save(tmp_path / "a.png")
    oracle = v2.Compose([v2.Resize(48, v2.InterpolationMode.BICUBIC), v2.CenterCrop(48)])(image)
    apart = np.abs(decode(tmp_path / "a.png", 48).astype(int) - np.asarray(oracle).astype(int))
    # torchvision rounds the long side and the cut to whole pixels: under half a pixel apart.
    assert apart.mean() < 3
    # ... while squashing is another picture altogether.
    squashed = np.asarray(image.resize((48, 48))).astype(int)
    if width != height:
        assert np.abs(decode(tmp_path / "a.png", 48) - squashed).mean() > 8


def test_large_jpeg_decoded_at_a_fraction_is_the_same_picture(tmp_path: Path) -> None:
    detailed = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    image = Image.fromarray(detailed).resize((600, 450), Image.Resampling.NEAREST)
    image.save(tmp_path / "a.jpg", quality=95, subsampling=0)
    image.save(tmp_path / "a.bmp")
    fraction = decode(tmp_path / "a.jpg", 64).astype(int)
    assert np.abs(fraction - decode(tmp_path / "a.bmp", 64)).mean() < 2


def truncated(kind: str) -> bytes:
    whole = saved(smooth(64, 64), kind)
    return whole[: len(whole) // 2]


def bomb(side: int) -> bytes:
    return png(side, side, 8, 0, b"\0")


UNDECODABLE: dict[str, tuple[bytes, str]] = {
    "zero bytes": (b"", "empty"),
    "text": (b"not an image", "not an image"),
    "random bytes": (np.random.default_rng(1).bytes(500), "not an image"),
    "PostScript, which Pillow would hand to another program": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "not an image",
    ),
    "JPEG cut short": (truncated("JPEG"), "truncated"),
    "PNG cut short": (truncated("PNG"), ""),
    "BMP cut short": (truncated("BMP"), "truncated"),
    "GIF cut short": (truncated("GIF"), ""),
    "WebP cut short": (truncated("WEBP"), ""),
    "TIFF cut short": (truncated("TIFF"), ""),
    "header only": (saved(smooth(64, 64), "PNG")[:40], ""),
    "floating point": (uniform("F", 0.5, "TIFF"), "floating-point"),
    "32 bits": (uniform("I", 1_000_000, "TIFF"), "32-bit"),
    "a bomb that Pillow only warns of": (bomb(9_500), "9500 x 9500"),
    "a bomb that Pillow refuses": (bomb(20_000), "too many pixels"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", UNDECODABLE)
def test_undecodable(tmp_path: Path, name: str) -> None:
    written, reason = UNDECODABLE[name]
    path = tmp_path / "image.png"
    path.write_bytes(written)
    with pytest.raises(UndecodableImage) as caught:
        decode(path, 16)
    assert reason in str(caught.value)
    assert str(caught.value)
    assert "image.png" not in str(caught.value)  # the caller names the file


@pytest.mark.filterwarnings("error")
def test_the_size_of_a_very_large_photograph_is_read_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bomb(12_000))
    assert short_side(tmp_path / "a.png") == 12_000


@pytest.mark.parametrize("function", [lambda path: decode(path, 8), short_side])
def test_missing_file_and_folder(tmp_path: Path, function: Callable[[Path], object]) -> None:
    with pytest.raises(UndecodableImage, match="No such file"):
        function(tmp_path / "gone.jpg")
    with pytest.raises(UndecodableImage):
        function(tmp_path)


WHOLE = {kind: saved(smooth(24, 24), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF")}


@given(
    kind=st.sampled_from(sorted(WHOLE)),
    damage=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_files_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, kind: str, damage: list[tuple[int, int]]
) -> None:
    content = bytearray(WHOLE[kind])
    for position, value in damage:
        content[position % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        pixels = decode(path, 8)
    except UndecodableImage as error:
        assert str(error)
    else:
        assert pixels.shape == (8, 8, 3)


def test_short_side(tmp_path: Path) -> None:
    smooth(70, 50).save(tmp_path / "a.png")
    assert short_side(tmp_path / "a.png") == 50


def test_a_large_jpeg_is_decoded_smaller(tmp_path, monkeypatch):
    Image.new("RGB", (400, 400), "red").save(tmp_path / "large.jpg")
    monkeypatch.setattr("course_lib.images.decode.MAX_PIXELS", 400 * 400 - 1)
    assert decode(tmp_path / "large.jpg", 16).shape == (16, 16, 3)
