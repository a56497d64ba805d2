"""The winner as a model of MLflow's own: raw examples in, probabilities out, no autoxfer needed to serve it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from autoxfer.errors import TrackingError
from autoxfer.winnerfiles import PROGRAM, load_program, read_description


def save_model(winner: Path, path: Path, logged: Any, run_id: str) -> None:
    """Save the winner's folder as an MLflow model at ``path``; ``logged`` is the LoggedModel that it will belong to.

    MLflow writes its files around a stand-in, then the program of the run folder takes the stand-in's place: what is
    registered is byte for byte what was checked when it was exported.
    """
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from mlflow import pytorch  # noqa: PLC0415
    from mlflow.models import Model  # noqa: PLC0415

    description = read_description(winner)
    program = load_program(winner, description)
    example = program.example_inputs[0][0]
    model = Model(
        artifact_path=logged.artifact_location, run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id
    )
    pytorch.save_model(
        torch.nn.Flatten(),
        path,
        mlflow_model=model,
        signature=_signature(description),
        input_example=example.numpy(),
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
        metadata={"classes": description["schema"]["classes"], "winner": description["winner"]},
        serialization_format="pt2",
    )
    shutil.copyfile(winner / PROGRAM, path / "data" / PROGRAM)
    # The program holds its weights on the CPU; MLflow would ask for a GPU wherever it sees one, and fail.
    model.flavors["python_function"]["config"] = {"device": "cpu"}
    model.model_size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    model.save(str(path / "MLmodel"))
    _compare(path, program, example)


def _signature(description: dict[str, Any]) -> Any:
    import numpy as np  # noqa: PLC0415
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import Schema, TensorSpec  # noqa: PLC0415

    def schema(part: str) -> Any:
        return Schema([TensorSpec(np.dtype(description[part]["dtype"]), tuple(description[part]["shape"]))])

    return ModelSignature(schema("input"), schema("output"))


def _compare(path: Path, program: Any, example: Any) -> None:
    """Load what was saved as a user will, and make sure that it answers as the program does."""
    import torch  # noqa: PLC0415
    from mlflow import pyfunc  # noqa: PLC0415

    served, module = pyfunc.load_model(str(path)), program.module()
    for batch in (example, example[:1]):
        with torch.no_grad():
            expected = module(batch)
        if not torch.equal(torch.as_tensor(served.predict(batch.numpy())), expected):
            raise TrackingError("the model that MLflow saved does not answer as the winner does")
