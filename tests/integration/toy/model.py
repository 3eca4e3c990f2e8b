"""The registered line: MLflow runs this file."""

import json
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow.models import set_model


class Line(mlflow.pyfunc.PythonModel):
    """Multiplies by the fitted slope."""

    def load_context(self, context):
        self.slope = json.loads((Path(context.artifacts["bundle"]) / "line.json").read_text())

    def predict(self, context, model_input, params=None):
        return np.asarray(model_input)[:, 0] * self.slope


set_model(Line())
