"""What MLflow loads to serve a winner: raw examples in, labels and probabilities out.

Registered models name this module as their ``loader_module``: it must stay where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from autoxfer.errors import InputError
from autoxfer.prediction import SEPARATOR, Predictor, load

if TYPE_CHECKING:
    import pandas as pd

    from autoxfer.dataset import Schema

LABEL, PREDICTION, PROBABILITY = "label", "prediction", "probability_"


@final
class Served:
    """Answers as MLflow's pyfunc models do: a frame with one row per example."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Name each example's class, or labels, and give every one's probability, or give its number or numbers.

        No parameter is known. Raises MlflowException, which a server answers with status 400.
        """
        import pandas as pd  # noqa: PLC0415
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            outputs = self.predictor.outputs(_examples(model_input), "request")
        except InputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        schema = self.predictor.schema
        frame = pd.DataFrame(outputs, columns=number_columns(schema))
        if schema.task == "multilabel":
            frame.insert(0, LABEL, [SEPARATOR.join(labels) for labels in self.predictor.labels(outputs)])
        elif schema.task == "classification":
            frame.insert(0, LABEL, [schema.classes[best] for best in outputs.argmax(axis=1)])
        return frame


def number_columns(schema: Schema) -> list[str]:
    """Name the columns of probabilities, or of predictions."""
    if schema.task == "regression":
        return [f"{PREDICTION}_{name}" for name in schema.targets] or [PREDICTION]
    return [f"{PROBABILITY}{name}" for name in schema.classes]


def _examples(model_input: Any) -> Any:
    """Undo what MLflow makes of a request: {name: array}, and arrays of Python objects."""
    if isinstance(model_input, Mapping) and len(model_input) == 1:
        model_input = next(iter(model_input.values()))
    is_array_of_objects = getattr(getattr(model_input, "dtype", None), "kind", "") == "O"
    return model_input.tolist() if is_array_of_objects else model_input


def _load_pyfunc(data_path: str) -> Served:
    """Load the winner's folder. MLflow calls this by name."""
    return Served(load(data_path))
