"""One image file in, one small square of RGB pixels out, or the reason why not."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

DECODER_VERSION = 1  # raise it whenever a pixel can change: caches of images are keyed by it

# A picture this large is more likely an attack or a mistake than a photograph, and decoding it
# takes over 250 MB. Pillow only warns at about this size, and refuses at twice of it.
MAX_PIXELS = 90_000_000

# Only formats that hold pictures as pixels: for others Pillow may start another program.
Image.init()
WANTED = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "TGA", "AVIF")
FORMATS = tuple(name for name in WANTED if name in Image.OPEN)


class UndecodableImage(Exception):
    """An image file that can't be used; the message is the reason, without the file's name."""


def decode(path: str | Path, size: int) -> np.ndarray:
    """Decode the image at `path` to uint8 [size, size, 3].

    The short side is resized to `size`, with antialiasing, and the middle is cut out. Squashing
    the whole picture instead would keep its edges, but change shapes by how the camera was held.
    The first frame of an animation is taken.

    Raises UndecodableImage, with the reason, for anything that isn't a whole, readable image.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # what matters comes as an exception
            return _decode(Path(path), size)
    except UndecodableImage:
        raise
    except Exception as error:
        # On broken files Pillow's readers raise nearly anything, from SyntaxError to KeyError.
        raise UndecodableImage(_reason(error)) from error


def short_side(path: str | Path) -> int:
    """Return the length of the image's short side in pixels, read from the header alone."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            return min(image.size)
    except Exception as error:
        raise UndecodableImage(_reason(error)) from error


def _decode(path: Path, size: int) -> np.ndarray:
    if path.stat().st_size == 0:
        raise UndecodableImage("the file is empty")
    with Image.open(path, formats=FORMATS) as image:
        # JPEG files can be decoded at a half, a quarter or an eighth of their size, which is much
        # faster; twice the wanted size leaves the antialiasing to the resize below.
        whole = f"{image.width} x {image.height}"
        image.draft(None, (2 * size, 2 * size))
        if image.width * image.height > MAX_PIXELS:
            raise UndecodableImage(f"{whole} pixels are too many")
        image.load()
        square = ImageOps.fit(_rgb(_upright(image)), (size, size), Image.Resampling.BICUBIC)
    return np.array(square)


def _upright(image: Image.Image) -> Image.Image:
    """Turn the picture as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image  # damaged EXIF data is no reason to lose the picture


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    elif image.mode == "F":
        raise UndecodableImage("its pixels are floating-point numbers of unknown range")
    if image.has_transparency_data:
        # White, because that is the page on which cut-out pictures are nearly always seen; plain
        # conversion would instead uncover whatever colour lies hidden below the transparency.
        page = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(page, image.convert("RGBA"))
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion would clip everything above 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UndecodableImage("its pixels are 32-bit numbers of unknown range")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, Image.DecompressionBombError):
        return "it has too many pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
