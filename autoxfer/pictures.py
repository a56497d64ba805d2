"""One image file, of any usual kind -> pixels 0..255: held upright, 8 bits a channel, grey or in colour.

What is read to be learned from and what is read to be predicted goes through the same function.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
NAMED = 0.9  # share of a column's values that end as images do, from which all are taken for images
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag; its values that exchange width and height
WHOLE = {"La": "LA", "RGBa": "RGBA", "P": "RGBA", "PA": "RGBA"}  # what cannot become grey or RGB in one step

Content = Path | bytes  # a file, or what stands in one


def path_columns(table: Mapping[str, Sequence[Any]]) -> list[str]:
    """Name the columns that hold the names of image files, at least nine of ten."""
    found = []
    for name, values in table.items():
        named = [isinstance(value, str) and value.strip().lower().endswith(SUFFIXES) for value in values]
        if named and sum(named) >= NAMED * len(named):
            found.append(name)
    return found


class UnreadableError(Exception):
    """An image that cannot be read; the message says why."""


@dataclass(frozen=True)
class Header:
    """What an image says of itself before it is decoded."""

    mode: str  # as Pillow calls it
    size: tuple[int, int]  # (width, height) when held upright

    @property
    def grey(self) -> bool:
        """Whether it has no colours."""
        return self.mode in GREY


def read_header(content: Content) -> Header:
    """Read an image's mode and size. Raises UnreadableError."""
    with _opened(content) as image:
        width, height = image.size
        turned = image.getexif().get(ORIENTATION) in TURNED
        return Header(image.mode, (height, width) if turned else (width, height))


def decode(content: Content, size: tuple[int, int], *, grey: bool) -> NDArray[np.uint8]:
    """Decode one image upright, cut to ``size`` (width, height): (height, width) grey or (height, width, 3).

    Transparency is dropped; of 16 bits the upper 8 are kept. Raises UnreadableError.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 - only where images are read

    with _opened(content) as image:
        plain = _plain(ImageOps.exif_transpose(image), "L" if grey else "RGB")
        if plain.size != size:
            plain = ImageOps.fit(plain, size, Image.Resampling.BILINEAR)
        return np.asarray(plain)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep Pillow's remarks off the terminal; around all threads that decode, not inside one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _opened(content: Content) -> Iterator[Any]:
    """Open an image; whatever goes wrong with it, here or inside, is one kind of error."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):
                raise UnreadableError(f"{image.width}x{image.height} pixels, as bombs have")
            yield image
    except (UnreadableError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableError("no kind of image that is known") from None
    except Exception as error:  # a broken file breaks its decoder anywhere
        told = str(error).splitlines()[0] if str(error) else "no reason given"
        raise UnreadableError(f"{type(error).__name__}: {told}") from error


def _plain(image: Any, mode: str) -> Any:
    """Convert to grey or RGB of 8 bits. Raises UnreadableError for numbers that are no brightness."""
    from PIL import Image  # noqa: PLC0415

    if image.mode == "F":
        raise UnreadableError("fractions for pixels")
    if image.mode in DEEP:
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise UnreadableError(f"pixels {deep.min()}..{deep.max()}, which are more than 16 bits")
        image = Image.fromarray((deep >> 8).astype(np.uint8))
    if image.mode in WHOLE and image.mode != mode:  # a palette may hold transparency, which RGB alone cannot read
        image = image.convert(WHOLE[image.mode])
    return image if image.mode == mode else image.convert(mode)
