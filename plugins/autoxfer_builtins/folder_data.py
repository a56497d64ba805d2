"""A folder of images, one folder per class; above them, if the user has split, train/ and test/ (val/, guard/)."""

from __future__ import annotations

import warnings as python_warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from autoxfer import Dataset, DatasetReader, DataSpec, InputError, Schema, hookimpl
from autoxfer_builtins.reading import PARTS, locate, no_groups

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
GREY = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La")
ORIENTATION = 0x0112  # the EXIF tag; values of 5 and above exchange width and height
LARGEST = 224  # pixels of a side; larger images are reduced


@dataclass(frozen=True)
class _Found:
    path: Path
    part: str  # "" where the user has not split
    label: str


@final
class FolderReader(DatasetReader):
    """Reads PNG, JPEG, WebP and BMP files; a class is a folder."""

    name: ClassVar[str] = "folder"

    def reads(self, spec: DataSpec) -> bool:
        """Whether it is a folder, or a name that could only be one."""
        path = spec.directory / Path(spec.location).expanduser()
        return path.is_dir() or (not path.exists() and ":" not in spec.location and not path.suffix)

    def read(self, spec: DataSpec) -> Dataset:
        """Read every image. Raises InputError: no classes, no images, an image that cannot be read."""
        folder = locate(spec)
        if spec.target not in (None, "label", "class") or spec.task == "regression":
            raise InputError("the folders' names as classes", f"target {spec.target!r}, {spec.task}", "task.target")
        no_groups(spec, "folders of images")
        warnings: list[str] = []
        found = _find(folder, warnings)
        headers = [_header(one.path) for one in found]
        grey = all(mode in GREY for mode, _ in headers)
        images = np.stack([_read(one.path, grey, size) for one, size in _sized(found, headers, warnings)])
        alpha = sum(mode in ("RGBA", "LA", "PA", "RGBa", "La") for mode, _ in headers)
        if alpha:
            warnings.append(f"{alpha:,} images have an alpha channel, which is dropped")
        classes = tuple(sorted({one.label for one in found}))
        code = {name: index for index, name in enumerate(classes)}
        labels = np.array([code[one.label] for one in found], dtype=np.int64)
        parts = {
            part: np.flatnonzero([one.part == part for one in found]) for part in {one.part for one in found} - {""}
        }
        schema = Schema("image", "classification", images.shape[1:], "uint8", classes, target=spec.target or "label")
        return Dataset(folder.resolve().name, schema, images, labels, parts, tuple(warnings))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _find(folder: Path, warnings: list[str]) -> list[_Found]:
    """List the images in a fixed order. Raises InputError where there is no class or no image."""
    inside = _folders(folder)
    if not inside:
        raise InputError("a folder per class, with images in them", f"no folders in {folder.name}", "task.data")
    split = "train" in {path.name for path in inside} and bool(_folders(folder / "train"))
    found: list[_Found] = []
    skipped = 0
    for above in [path for path in inside if path.name in PARTS] if split else [folder]:
        for label in _folders(above):
            files = sorted(path for path in label.rglob("*") if path.is_file() and not path.name.startswith("."))
            images = [path for path in files if path.suffix.lower() in SUFFIXES]
            skipped += len(files) - len(images)
            found += [_Found(path, above.name if split else "", label.name) for path in images]
            if not images:
                warnings.append(f"folder {label.relative_to(folder)} holds no images")
    strangers = [path.name for path in inside if split and path.name not in PARTS]
    if strangers:
        warnings.append(f"beside {', '.join(PARTS)}, other folders are left out: {', '.join(strangers)}")
    if skipped:
        warnings.append(f"{skipped:,} files are no images ({', '.join(SUFFIXES)}) and are left out")
    if not found:
        raise InputError(f"images ({', '.join(SUFFIXES)}) in a folder per class", "none", "task.data")
    return found


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    """Read an image's mode and its (width, height) when held upright."""
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                turned = image.getexif().get(ORIENTATION, 1) >= 5
                mode = image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _corrupt(path, error) from None
    if mode not in GREY + COLOUR:
        raise InputError("images of 8 bits per channel", f"mode {mode!r}", str(path))
    return mode, (height, width) if turned else (width, height)


def _sized(
    found: list[_Found], headers: list[tuple[str, tuple[int, int]]], warnings: list[str]
) -> list[tuple[_Found, tuple[int, int]]]:
    """Give every image its size: its own where all are alike and small, a common square otherwise."""
    sizes = [size for _, size in headers]
    size = sizes[0]
    if len(set(sizes)) > 1 or max(size) > LARGEST:
        side = min(LARGEST, int(np.median([min(one) for one in sizes])))
        size = (side, side)
        told = f"{len(set(sizes))} sizes" if len(set(sizes)) > 1 else f"{sizes[0][0]}x{sizes[0][1]} pixels"
        warnings.append(f"images of {told} are resized and cut to {side}x{side}")
    return [(one, size) for one in found]


def _read(path: Path, grey: bool, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode one image upright: (height, width) grey or (height, width, 3)."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if not grey and upright.mode in ("P", "PA"):
                upright = upright.convert("RGBA")  # a palette may hold transparency, which RGB alone cannot read
            plain = upright.convert("L" if grey else "RGB")
            return np.asarray(plain if plain.size == size else ImageOps.fit(plain, size, Image.Resampling.BILINEAR))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _corrupt(path, error) from None


def _corrupt(path: Path, error: Exception) -> InputError:
    return InputError("an image that can be read", f"{type(error).__name__}: {str(error).splitlines()[0]}", str(path))


@hookimpl
def autoxfer_datasets() -> list[type[DatasetReader]]:
    """Offer folders of images."""
    return [FolderReader]
