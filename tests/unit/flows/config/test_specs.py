"""Settings that every pipeline has: workers as a number or a range, and thresholds of metrics."""

from __future__ import annotations

import string

import pytest
import yaml
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from flows.config.specs import ComputeSpec, NotifySpec, RegistrySpec


def test_workers_as_a_number_or_a_range() -> None:
    assert (ComputeSpec(num_workers=3).min_workers, ComputeSpec(num_workers=3).max_workers) == (3, 3)
    elastic = ComputeSpec.model_validate(yaml.safe_load("num_workers: [1, 4]"))
    assert (elastic.min_workers, elastic.max_workers, elastic.num_cpus) == (1, 4, 4)
    assert elastic.required_resources == {"CPU": 1, "GPU": 0}
    assert ComputeSpec(num_workers=2, threads_per_worker=3, use_gpu=True).required_resources == {"CPU": 6, "GPU": 2}
    with pytest.raises(ValidationError, match="must be ascending"):
        ComputeSpec(num_workers=(4, 1))
    with pytest.raises(ValidationError):
        ComputeSpec(num_workers=0)


@pytest.mark.parametrize("field", ["min_metrics", "max_metrics"])
def test_thresholds_are_of_metrics_that_can_be_compared(field: str) -> None:
    spec = RegistrySpec.model_validate({field: {"dice": 0.5, "dice/liver": 0.4, "kid": 0.1}})
    assert getattr(spec, field)["dice/liver"] == 0.4
    for name, message in (("sparkle", "unknown metric sparkle"), ("learning_rate", "has no direction")):
        with pytest.raises(ValidationError, match=message):
            RegistrySpec.model_validate({field: {name: 1.0}})


def test_the_compared_metric_is_one_that_can_be_compared() -> None:
    assert RegistrySpec().compare_metric == ""
    assert RegistrySpec(compare_metric="volume_error_percent").compare_metric == "volume_error_percent"
    for name, message in (("sparkle", "unknown metric sparkle"), ("samples_per_second", "has no direction")):
        with pytest.raises(ValidationError, match=message):
            RegistrySpec(compare_metric=name)


@pytest.mark.parametrize("given", ["https://hooks.example.org/services/T0/B0/X", "$SLACK_WEBHOOK", "a b"])
def test_a_webhook_is_named_by_its_variable(given: str) -> None:
    assert NotifySpec(webhook="SLACK_WEBHOOK").webhook == "SLACK_WEBHOOK"
    with pytest.raises(ValidationError, match="names the environment variable that holds the URL"):
        NotifySpec(webhook=given)


def test_a_model_name_that_mlflow_refuses_is_refused_before_anything_is_trained() -> None:
    from mlflow.utils.validation import _validate_logged_model_name, _validate_model_name

    for name in (f"a{character}b" for character in string.printable):
        try:
            RegistrySpec(name=name)
        except ValidationError:
            with pytest.raises(MlflowException):
                _validate_logged_model_name(name)
        else:
            _validate_model_name(name)
            _validate_logged_model_name(name)
