"""What reading one image promises: upright, 8 bits, grey or colour, and one kind of error."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from autoxfer.pictures import UnreadableError, decode, path_columns, quietly, read_header

RAMP = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)


def saved(image, kind="png", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(content, size=(12, 10), *, grey=True):
    return decode(content, size, grey=grey)


def test_a_file_and_its_bytes_give_the_same_pixels(tmp_path):
    content = saved(Image.fromarray(RAMP))
    (tmp_path / "a.png").write_bytes(content)
    assert np.array_equal(pixels(content), RAMP)
    assert np.array_equal(pixels(tmp_path / "a.png"), RAMP)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_of_sixteen_bits_the_upper_eight_are_kept(kind):
    deep = RAMP.astype(np.uint16) * 256 + 255
    content = saved(Image.fromarray(deep), kind)
    assert read_header(content).grey
    assert np.array_equal(pixels(content), RAMP)
    assert np.array_equal(pixels(content, grey=False), np.stack([RAMP] * 3, axis=2))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (saved(Image.fromarray(RAMP.astype(np.float32)), "tiff"), "fractions"),
        (saved(Image.fromarray(RAMP.astype(np.int32) - 5), "tiff"), "more than 16 bits"),
        (saved(Image.fromarray(RAMP.astype(np.int32) * 9999), "tiff"), "more than 16 bits"),
        (saved(Image.fromarray(RAMP))[:50], "OSError|SyntaxError|Error: "),
        (b"", "no kind of image"),
        (b"prose", "no kind of image"),
        (saved(Image.new("1", (20_000, 10_000))), "omb"),
    ],
    ids=["fractions", "below zero", "beyond 16 bits", "cut", "empty", "prose", "bomb"],
)
def test_what_cannot_be_read_is_one_kind_of_error_with_its_reason(content, told):
    with pytest.raises(UnreadableError, match=told), quietly():
        pixels(content)


def test_a_missing_file_is_that_kind_of_error_too(tmp_path):
    with pytest.raises(UnreadableError, match="FileNotFoundError"):
        read_header(tmp_path / "none.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16"])
def test_every_usual_mode_becomes_grey_and_colour(mode):
    kind = {"CMYK": "jpeg", "YCbCr": "jpeg", "PA": "tiff", "I": "tiff"}.get(mode, "png")
    if mode in ("I", "I;16"):
        image = Image.fromarray(np.full((10, 12), 65535, np.uint16 if mode == "I;16" else np.int32))
    else:
        image = Image.new("RGB", (12, 10), (255, 255, 255)).convert(mode)
    content = saved(image, kind)
    assert pixels(content).min() >= 254
    assert pixels(content, grey=False).shape == (10, 12, 3)
    assert pixels(content, grey=False).min() >= 254


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_held_upright(orientation):
    """The naive twin: turn the upright picture the other way before it is saved."""
    undone = {
        1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud,
        5: np.transpose, 6: lambda x: np.rot90(x, 1), 7: lambda x: np.rot90(x, 2).T, 8: lambda x: np.rot90(x, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(np.ascontiguousarray(undone[orientation](RAMP))), exif=exif)
    assert read_header(content).size == (12, 10)
    assert np.array_equal(pixels(content), RAMP)


def test_an_orientation_that_is_nonsense_is_none():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert read_header(saved(Image.fromarray(RAMP), exif=exif)).size == (12, 10)
    assert np.array_equal(pixels(saved(Image.fromarray(RAMP), exif=exif)), RAMP)


def test_of_an_animation_the_first_picture_is_read():
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    content = saved(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(pixels(content), RAMP)


def test_pillow_says_nothing():
    palette = Image.fromarray(RAMP).convert("P")
    content = saved(palette, transparency=b"\x00\x01")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quietly():
            pixels(content, grey=False)


def test_columns_of_paths_are_known_by_their_endings():
    table = {"file": ["a.PNG", "b/c.jpg ", None] + ["d.tif"] * 27, "name": ["x.png", "y"] * 15, "n": [1] * 30}
    assert path_columns(table) == ["file"]
