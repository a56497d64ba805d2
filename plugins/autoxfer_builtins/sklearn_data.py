"""The data sets that scikit-learn carries with it: ``sklearn:digits`` and its like."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from autoxfer import Column, Dataset, DatasetReader, DataSpec, InputError, Schema, hookimpl
from autoxfer_builtins.reading import (
    LABELS,
    index,
    nearest,
    no_groups,
    not_several,
    numbers,
    one_target,
    unknown_target,
)

Content = tuple[Literal["image", "table"], Literal["uint8", "float32"], NDArray[Any], tuple[Column, ...]]

SCHEME = "sklearn:"
LOADERS: dict[str, dict[str, Any]] = {  # name -> arguments of its loader
    "digits": {},
    "iris": {},
    "wine": {},
    "breast_cancer": {},
    "diabetes": {"scaled": False},
    "linnerud": {},
}
NUMBERS = ("diabetes", "linnerud")  # whose targets are


@final
class SklearnReader(DatasetReader):
    """Reads ``sklearn:NAME``: the digits as 8x8 images, the others as tables of numbers."""

    name: ClassVar[str] = "sklearn"

    def reads(self, spec: DataSpec) -> bool:
        """Whether the name starts with ``sklearn:``."""
        return spec.location.startswith(SCHEME)

    def read(self, spec: DataSpec) -> Dataset:
        """Load it. Raises InputError: a name that is not offered, a target that it does not have."""
        name = spec.location.removeprefix(SCHEME)
        if name not in LOADERS:
            found = f"{name!r}{nearest(name, LOADERS)}"
            raise InputError(f"{SCHEME} and one of {', '.join(LOADERS)}", found, "task.data")
        target = one_target(spec)
        if target is not None and target not in LABELS:
            raise unknown_target(target, ["label"])
        not_several(spec, "scikit-learn's data sets")
        no_groups(spec, "scikit-learn's data sets")
        from sklearn import datasets  # noqa: PLC0415  (heavy, and needed by this reader alone)

        bunch = getattr(datasets, f"load_{name}")(**LOADERS[name])
        task = spec.task or ("regression" if name in NUMBERS else "classification")
        names = tuple(str(one) for one in bunch.get("target_names", ()))
        if task == "classification" and bunch.target.ndim == 2:
            raise InputError("regression, as every example has several numbers", task, "task.kind")
        y, classes = (numbers(bunch.target, name), ()) if task == "regression" else index(bunch.target, names, name)
        modality, dtype, examples, columns = _digits(bunch) if name == "digits" else _table(bunch)
        targets = names if y.ndim == 2 else ()
        schema = Schema(modality, task, examples.shape[1:], dtype, classes, columns, target or "label", targets=targets)
        return Dataset(name, schema, examples, y)


def _digits(bunch: Any) -> Content:
    """Turn the digits' 17 grey levels, 0..16, into pixels 0..255."""
    return "image", "uint8", np.rint(bunch.images * (255 / 16)).astype(np.uint8), ()


def _table(bunch: Any) -> Content:
    columns = tuple(Column(str(name), "numeric") for name in bunch.feature_names)
    return "table", "float32", bunch.data.astype(np.float32), columns


@hookimpl
def autoxfer_datasets() -> list[type[DatasetReader]]:
    """Offer scikit-learn's own data sets."""
    return [SklearnReader]
