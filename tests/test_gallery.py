"""What reading many images promises: the sound ones, in order; the others counted; the same pixels on disk."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from autoxfer import gallery
from autoxfer.errors import InputError
from autoxfer.gallery import read_images
from autoxfer.mapped import mapping


def images(n=40, shape=(6, 8), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "png")
    return out.getvalue()


def read(contents):
    return read_images(contents, [f"image {row}" for row in range(len(contents))])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, and so little memory that every set goes there."""
    monkeypatch.setenv("AUTOXFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUTOXFER_MEMORY_GB", "1e-7")
    return tmp_path / "cache" / "pixels"


def test_images_are_read_in_order():
    assert np.array_equal(read([png(each) for each in images()]).pixels, images())


@pytest.mark.parametrize("stored", ["in memory", "on disk", "on disk again"])
def test_broken_images_are_left_out_and_the_first_is_named(stored, request):
    if stored != "in memory":
        request.getfixturevalue("cache")
    contents = [png(each) for each in images()]
    contents[3] = contents[3][:60]  # its header is sound
    contents[7], contents[11] = b"prose", b""
    for _ in range(2 if stored == "on disk again" else 1):
        found = read(contents)
    kept = [row for row in range(40) if row not in (3, 7, 11)]
    assert found.rows.tolist() == kept
    assert np.array_equal(found.pixels, images()[kept])
    assert found.warnings[0].startswith("3 of 40 images cannot be read and are left out, the first image 3: OSError:")


def test_more_than_a_tenth_of_broken_images_is_refused():
    contents = [png(each) for each in images()]
    for row in (2, 5, 6, 7, 8):
        contents[row] = contents[row][:60]
    with pytest.raises(InputError, match=r"5 of 40 that cannot, the first: OSError") as caught:
        read(contents)
    assert caught.value.where == "image 2"


def test_what_is_changed_is_counted():
    deep = Image.fromarray(images(1)[0].astype(np.uint16) * 256)
    out = io.BytesIO()
    deep.save(out, "png")
    glass = io.BytesIO()
    Image.new("RGBA", (8, 6)).save(glass, "png")
    found = read([png(images(1)[0]), out.getvalue(), glass.getvalue()])
    assert found.warnings == (
        "1 images have 16 bits for a pixel, of which the upper 8 are kept",
        "1 images have an alpha channel, which is dropped",
    )
    assert np.array_equal(found.pixels[1, :, :, 0], images(1)[0])


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3)])
def test_on_disk_the_pixels_are_the_same_bit_for_bit(cache, monkeypatch, shape):
    contents = [png(each) for each in images(shape=shape)]
    on_disk = read(contents)
    assert mapping(on_disk.pixels) is not None
    assert len(list(cache.glob("*.safetensors"))) == 2  # the pixels, and which are sound
    monkeypatch.setenv("AUTOXFER_MEMORY_GB", "1")
    in_memory = read(contents)
    assert mapping(in_memory.pixels) is None
    assert np.array_equal(on_disk.pixels, in_memory.pixels)
    assert on_disk.warnings == in_memory.warnings


def test_what_lies_on_disk_is_not_decoded_again_unless_an_image_changed(cache, tmp_path, monkeypatch):
    paths = [tmp_path / f"{row}.png" for row in range(20)]
    for path, each in zip(paths, images(20), strict=True):
        path.write_bytes(png(each))
    read(paths)
    decoded = []
    plain = gallery.decode
    monkeypatch.setattr(gallery, "decode", lambda *words, **more: decoded.append(words) or plain(*words, **more))
    assert np.array_equal(read(paths).pixels, images(20))
    assert decoded == []
    status = paths[4].stat()
    other = png(images(1, seed=1)[0])
    paths[4].write_bytes(other)
    os.utime(paths[4], ns=(status.st_atime_ns, status.st_mtime_ns))  # as if nothing had happened
    assert np.array_equal(read(paths).pixels[4], images(1, seed=1)[0])
    assert len(decoded) == 20


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 99], ids=["empty", "short", "noise"])
def test_a_damaged_file_of_pixels_is_written_again(cache, damage):
    contents = [png(each) for each in images()]
    read(contents)
    for path in cache.glob("*.safetensors"):
        path.write_bytes(damage)
    assert np.array_equal(read(contents).pixels, images())


def test_without_a_cache_the_pixels_lie_in_a_file_that_nobody_sees(cache, monkeypatch):
    monkeypatch.setenv("AUTOXFER_CACHE", "off")
    found = read([png(each) for each in images()])
    assert mapping(found.pixels) is not None
    assert np.array_equal(found.pixels, images())
    assert not cache.exists()


def test_a_disk_without_room_is_told_and_memory_is_taken(cache, monkeypatch):
    monkeypatch.setattr(gallery.Store, "write", lambda *words: None)
    found = read([png(each) for each in images()])
    assert np.array_equal(found.pixels, images())
    assert "the disk has no room" in found.warnings[-1]


def test_a_bound_that_is_no_number_is_refused(cache, monkeypatch):
    monkeypatch.setenv("AUTOXFER_MEMORY_GB", "much")
    with pytest.raises(InputError, match="'much'"):
        read([png(each) for each in images()])
