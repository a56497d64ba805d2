"""The winner as a model of MLflow's own, which opens in two ways.

As ``python_function`` it takes raw examples of any kind and answers with labels and probabilities; the serving
environment needs autoxfer. As ``pytorch`` it is the bare program from stored batches to probabilities, for torch alone.
Neither holds a pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autoxfer.dataset import Schema
from autoxfer.encoding import decode
from autoxfer.errors import TrackingError
from autoxfer.tracking.serving import LABEL, number_columns
from autoxfer.winnerfiles import load_program, read_description, read_schema

LOADER = "autoxfer.tracking.serving"
REQUIRED = ("autoxfer", "torch", "numpy", "pandas")  # to serve; MLflow adds itself


def save_model(winner: Path, path: Path, logged: Any, run_id: str) -> None:
    """Save the winner's folder as an MLflow model at ``path``; ``logged`` is the LoggedModel that it will belong to.

    What is registered is byte for byte what was checked when it was exported.
    """
    from mlflow import pyfunc  # noqa: PLC0415
    from mlflow.models import Model  # noqa: PLC0415

    description = read_description(winner)
    schema = read_schema(description["schema"])
    example = _example(winner, schema, description)
    model = Model(
        artifact_path=logged.artifact_location, run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id
    )
    pyfunc.save_model(
        path,
        loader_module=LOADER,
        data_path=str(winner),
        mlflow_model=model,
        signature=_signature(schema),
        input_example=example,
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _required(schema)],
        metadata={
            "classes": list(schema.classes),
            "targets": list(schema.targets),
            "columns": {column.name: column.kind for column in schema.columns},
            "winner": description["winner"],
        },
    )
    _add_torch(model, description)
    model.model_size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    model.save(str(path / "MLmodel"))
    _compare(winner, path, example)


def _required(schema: Schema) -> tuple[str, ...]:
    reads_tokens = any(tokenizer.kind == "tokenizers" for tokenizer in schema.tokenizers)
    return (*REQUIRED, "tokenizers") if reads_tokens else REQUIRED


def _example(winner: Path, schema: Schema, description: dict[str, Any]) -> Any:
    """Give two examples as users have them: an array, or a frame where columns have names."""
    import pandas as pd  # noqa: PLC0415

    raw = decode(schema, load_program(winner, description).example_inputs[0][0].numpy())
    return pd.DataFrame(raw) if isinstance(raw, Mapping) else raw


def _signature(schema: Schema) -> Any:
    """Describe requests and answers; what stands in a request is checked by autoxfer, which says what it expected.

    MLflow would cast fractions to whole pixels without a word. Of columns that say double or string it would refuse
    whole numbers and categories in a frame, and gaps that are written "" or "?". So they say any, which costs the
    server's reader of text/csv: it knows no other columns than MLflow's own types. Their kinds stand in the metadata.
    """
    import numpy as np  # noqa: PLC0415
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, TensorSpec  # noqa: PLC0415
    from mlflow.types.schema import AnyType, Schema as Columns  # noqa: PLC0415

    if schema.table_columns or len(schema.text_columns) > 1:
        unchecked = AnyType()  # type: ignore[no-untyped-call]
        inputs = Columns([ColSpec(unchecked, column.name) for column in schema.columns])
    else:  # objects in one dimension: the only tensor that MLflow passes on as it came
        name = schema.columns[0].name if schema.columns else schema.modality
        inputs = Columns([TensorSpec(np.dtype("O"), (-1,), name)])
    columns = [ColSpec("double", name) for name in number_columns(schema)]
    label = [] if schema.task == "regression" else [ColSpec("string", LABEL)]
    return ModelSignature(inputs, Columns([*label, *columns]))


def _add_torch(model: Any, description: dict[str, Any]) -> None:
    """Let ``mlflow.pytorch.load_model`` find the program, where MLflow refuses everything that could run code too."""
    data = model.flavors["python_function"]["data"]
    model.add_flavor("pytorch", model_data=data, pytorch_version=description["torch_version"], code=None)


def _compare(winner: Path, path: Path, example: Any) -> None:
    """Load what was saved as a user will, and make sure that it answers as the winner does."""
    import numpy as np  # noqa: PLC0415
    from mlflow import pyfunc  # noqa: PLC0415

    from autoxfer.prediction import load  # noqa: PLC0415 - it imports torch

    served, predictor = pyfunc.load_model(str(path)), load(winner)
    for batch in (example, example[:1]):
        answer = served.predict(batch).select_dtypes("number").to_numpy()
        if not np.array_equal(answer, predictor.outputs(batch)):
            raise TrackingError("the model that MLflow saved does not answer as the winner does")
