"""A folder of images, one folder per class; above them, if the user has split, train/ and test/ (val/, guard/)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from autoxfer import Dataset, DatasetReader, DataSpec, InputError, Schema, hookimpl
from autoxfer.gallery import read_images
from autoxfer.pictures import SUFFIXES
from autoxfer_builtins.reading import PARTS, locate, no_groups, one_target, saved


@dataclass(frozen=True)
class _Found:
    path: Path
    part: str  # "" where the user has not split
    label: str


@final
class FolderReader(DatasetReader):
    """Reads PNG, JPEG, TIFF and other image files; a class is a folder."""

    name: ClassVar[str] = "folder"

    def reads(self, spec: DataSpec) -> bool:
        """Whether it is a folder, or a name that could only be one."""
        path = spec.directory / Path(spec.location).expanduser()
        return (path.is_dir() and not saved(path)) or (
            not path.exists() and ":" not in spec.location and not path.suffix
        )

    def read(self, spec: DataSpec) -> Dataset:
        """Read every image. Raises InputError: no classes, no images, many that cannot be read."""
        folder = locate(spec)
        target = one_target(spec)
        if target not in (None, "label", "class") or spec.task not in (None, "classification"):
            raise InputError("the folders' names as classes", f"target {target!r}, {spec.task}", "task.target")
        no_groups(spec, "folders of images")
        warnings: list[str] = []
        found = _find(folder, warnings)
        gallery = read_images([one.path for one in found], [str(one.path) for one in found])
        found = [found[row] for row in gallery.rows]
        classes = tuple(sorted({one.label for one in found}))
        code = {name: index for index, name in enumerate(classes)}
        labels = np.array([code[one.label] for one in found], dtype=np.int64)
        parts = {
            part: np.flatnonzero([one.part == part for one in found]) for part in {one.part for one in found} - {""}
        }
        schema = Schema("image", "classification", gallery.pixels.shape[1:], "uint8", classes, target=target or "label")
        told = (*warnings, *gallery.warnings)
        return Dataset(folder.resolve().name, schema, gallery.pixels, labels, parts, told, origins=gallery.origins)


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


@hookimpl
def autoxfer_datasets() -> list[type[DatasetReader]]:
    """Offer folders of images."""
    return [FolderReader]
