"""Registered versions: all of them are listed, roll-backs lose nothing, a registry may be begun anew."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from data_pipelines.errors import RegistryError
from flows.registry import tracking
from flows.registry.models import PREVIOUS, REGISTER_TAG, _all_pages, list_versions, set_champion
from flows.registry.register import RegistrationFigures, _is_registered, refresh_figures
from tests.support.records import finished

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Storage whose database holds no model yet: making one takes MLflow seconds."""
    folder = str(tmp_path_factory.mktemp("storage"))
    with mock.patch.dict(os.environ):  # MLflow makes the server a variable
        tracking.connect(folder)
    return folder


@pytest.fixture
def client(storage: str) -> Iterator[MlflowClient]:
    with mock.patch.dict(os.environ):
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        yield tracking.connect(storage)


def create(client: MlflowClient, name: str, *keys: str) -> None:
    """Create versions 1, 2, ... of a model, with the keys of their registrations; none has files."""
    client.create_registered_model(name)
    for key in keys:
        client.create_model_version(name, "/nowhere/model", tags={REGISTER_TAG: key})


def registration(name: str) -> Any:
    """Return the record of a registration that made version 1 champion."""
    figures = RegistrationFigures(
        model_name=name,
        model_version=1,
        model_uri=f"models:/{name}@champion",
        alias="champion",
        reason="thresholds met",
        run_id="r",
        tracking_uri="",
        pages={},
    )
    return finished("register", figures)


def test_a_registration_whose_number_another_model_has_is_not_done(client: MlflowClient, storage: str) -> None:
    create(client, "anew", "key of register")
    assert _is_registered(registration("anew"), storage)
    client.delete_registered_model("anew")
    assert not _is_registered(registration("anew"), storage)
    create(client, "anew", "of another run")
    assert not _is_registered(registration("anew"), storage)


def test_a_registry_that_refuses_says_nothing_of_a_version(
    client: MlflowClient, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    def refuse(*_: object) -> None:
        raise MlflowException("wrong password", error_code=PERMISSION_DENIED)

    create(client, "refused", "key of register")
    monkeypatch.setattr(type(client), "get_model_version", refuse)
    with pytest.raises(MlflowException, match="wrong password"):
        _is_registered(registration("refused"), storage)


def test_an_alias_that_moved_is_not_what_a_run_that_was_done_ends_with(client: MlflowClient, storage: str) -> None:
    create(client, "moved", "a", "b")
    figures = registration("moved").figures
    client.set_registered_model_alias("moved", "champion", "1")
    assert refresh_figures(figures, storage) == figures
    client.set_registered_model_alias("moved", "champion", "2")
    now = refresh_figures(figures, storage)
    assert (now.model_uri, now.alias) == ("models:/moved/1", "")
    assert now.reason == "champion at registration, which is version 2 now: thresholds met"


def test_a_version_that_cannot_be_loaded_does_not_become_champion(client: MlflowClient, storage: str) -> None:
    create(client, "broken", "a", "b")
    client.set_registered_model_alias("broken", "champion", "1")
    with pytest.raises(RegistryError):
        set_champion(storage, "broken", "2")
    assert client.get_registered_model("broken").aliases == {"champion": 1}


def test_a_roll_back_that_was_ended_half_way_is_not_taken_for_another_champion(
    client: MlflowClient, storage: str
) -> None:
    create(client, "half", "a", "b")
    for alias in ("champion", PREVIOUS):
        client.set_registered_model_alias("half", alias, "2")
    with pytest.raises(RegistryError, match="version 2 is champion and previous champion: name a version"):
        set_champion(storage, "half")


def test_quotation_marks_in_the_names_of_others(client: MlflowClient, storage: str) -> None:
    create(client, "Bob's model", "a")
    assert [version.name for version in list_versions(storage, "Bob's model")] == ["Bob's model"]
    assert "Bob's model" in {version.name for version in list_versions(storage)}


def test_a_card_is_as_long_as_the_database_takes() -> None:
    assert tracking.shortened("card", "cut") == "card"
    assert len(tracking.shortened("x" * 6000, "cut")) == 5000
    assert tracking.shortened("x" * 6000, "cut").endswith("xcut")


class Page(list[Any]):
    """A page of a search, with the token of the next one."""

    def __init__(self, entries: Sequence[int], token: str | None) -> None:
        super().__init__(entries)
        self.token = token


def test_every_page_is_read() -> None:
    entries = list(range(2500))

    def search(max_results: int, page_token: str | None) -> Page:
        start = int(page_token or 0)
        end = start + max_results
        return Page(entries[start:end], str(end) if end < len(entries) else None)

    assert _all_pages(search) == entries
