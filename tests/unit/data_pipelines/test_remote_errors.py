"""Errors of other processes keep their type, their words and their problems."""

from __future__ import annotations

import pytest

from data_pipelines.errors import (
    NOT_RETRYABLE,
    ConfigError,
    DataError,
    InputError,
    Problem,
    RegistryError,
    ServerError,
    TrainingDiverged,
    UserError,
    WeightsError,
)
from data_pipelines.remote_errors import pack_error, unpack_error


@pytest.mark.parametrize(
    "error",
    [kind("what is wrong: ä") for kind in (ConfigError, InputError, RegistryError, ServerError, WeightsError)]
    + [TrainingDiverged("nan"), DataError([Problem("rule", "a.nii", "m", "r", "a"), Problem("rule", "b", "m", "r")])],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_back_as_it_was(error: Exception) -> None:
    found = unpack_error(pack_error(error))
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_every_kind_that_is_not_retried_comes_back_as_one() -> None:
    class NewerError(UserError):
        pass

    assert isinstance(unpack_error(pack_error(NewerError("later"))), NOT_RETRYABLE)
