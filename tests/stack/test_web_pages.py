"""What people see in a browser after a run: Prefect's and MLflow's own pages, in headless Chromium.

The pictures are kept in ``build/pages``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.stack.client import Client
from tests.support.browser import MISSING, open_browser
from tests.support.project import CHECKOUT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = CHECKOUT / "build" / "pages"
PATIENCE_MILLISECONDS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, and a folder for what it photographs."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with open_browser() as started:
        if started is None:
            pytest.skip(MISSING)
        yield started


@pytest.fixture(scope="module")
def finished(client: Client) -> str:
    """Id of a finished flow run of the model ``boxes``; beside it there is a deployment."""
    if not client.prefect("/deployments/filter", {}):
        client.run("run", str(client.config), without=("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"))
        client.deploy(interval=36_000)
    wanted = {"state": {"type": {"any_": ["COMPLETED"]}}, "name": {"any_": ["boxes"]}}
    runs = client.prefect("/flow_runs/filter", {"flow_runs": wanted})
    registered = [run for run in runs if client.prefect("/artifacts/filter", of_run(run["id"], "registered-model"))]
    return str(registered[0]["id"])


@pytest.fixture(scope="module")
def prefect(client: Client, browser: Browser, finished: str) -> Iterator[Page]:
    """A page that has logged in with the auth string."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000}, base_url=site(client))
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    page.goto("/v2/login")
    page.locator("input[type=password]").fill(client.variables["PREFECT_API_AUTH_STRING"])
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard**")
    yield page
    page.close()


@pytest.fixture(scope="module")
def mlflow(client: Client, browser: Browser, finished: str) -> Iterator[Page]:
    """A page that gives the name and password it is asked for."""
    login = {name: client.variables[f"MLFLOW_TRACKING_{name.upper()}"] for name in ("username", "password")}
    page = browser.new_page(viewport={"width": 1400, "height": 1800}, http_credentials=login)
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    yield page
    page.close()


def test_the_parameters_form_explains_every_field(client: Client, prefect: Page) -> None:
    deployment = client.prefect("/deployments/filter", {})[0]["id"]
    prefect.goto(f"/v2/deployments/deployment/{deployment}/run")
    for explanation in (
        "Configuration of the segmentation pipeline.",
        "Fold of the splits that is held out for validation",
        "Target voxel size in mm, one number per axis",
        "with the URL that takes a POST of",
    ):
        prefect.get_by_text(explanation).first.wait_for()
    prefect.screenshot(path=PICTURES / "prefect-parameters.png")
    data = client.prefect("/deployments/filter", {})[0]["parameter_openapi_schema"]["definitions"]["DataSpec"]
    assert data["properties"]["num_folds"]["minimum"] == 2, "the form knows limits"


def test_the_run_page_shows_table_image_and_links(client: Client, prefect: Page, finished: str) -> None:
    prefect.goto(f"/v2/runs/flow-run/{finished}?tab=Artifacts")
    for key in ("metrics", "overlay", "registered-model", "report"):
        prefect.get_by_text(key, exact=True).first.wait_for()
    prefect.screenshot(path=PICTURES / "prefect-run.png")
    artifact_page(client, prefect, finished, "metrics")
    prefect.get_by_role("cell", name="dice/front", exact=True).wait_for()
    artifact_page(client, prefect, finished, "overlay")
    image = prefect.locator("img[alt=overlay]")
    image.wait_for()
    assert image.evaluate("image => image.naturalWidth") > 100
    prefect.screenshot(path=PICTURES / "prefect-overlay.png")
    artifact_page(client, prefect, finished, "registered-model")
    link = prefect.get_by_role("link", name="models:/boxes@champion").get_attribute("href")
    assert link == f"{client.variables['MLFLOW_TRACKING_URI']}/#/models/boxes/versions/1"


def test_the_linked_report_opens(client: Client, prefect: Page, mlflow: Page, finished: str) -> None:
    artifact_page(client, prefect, finished, "report")
    link = prefect.get_by_role("link", name="Evaluation report").get_attribute("href")
    assert link is not None
    mlflow.goto(link)
    report = mlflow.frame_locator("iframe").first
    report.get_by_text("Worst", exact=False).first.wait_for()
    mlflow.screenshot(path=PICTURES / "mlflow-report.png")


def test_the_model_page_shows_card_metrics_alias_and_lineage(client: Client, mlflow: Page) -> None:
    mlflow.goto(f"{client.variables['MLFLOW_TRACKING_URI']}/#/models/boxes/versions/1")
    mlflow.get_by_text("A 3-D U-Net that segments front, back in MR images.").wait_for()
    for text in ("unetflow.code", "unetflow.train_digest", "unetflow.gate", "unetflow.metrics"):
        mlflow.get_by_text(text, exact=True).first.wait_for()
    mlflow.get_by_role("cell", name="surface_dice").first.wait_for()
    mlflow.get_by_text("champion").first.wait_for()
    mlflow.screenshot(path=PICTURES / "mlflow-model.png")


def site(client: Client) -> str:
    """Address of Prefect's pages."""
    return client.variables["PREFECT_API_URL"].removesuffix("/api")


def of_run(run_id: str, key: str) -> dict[str, object]:
    """Filter for a run's artifacts of a key."""
    return {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}}}


def artifact_page(client: Client, page: Page, run_id: str, key: str) -> None:
    """Open the page of a run's artifact."""
    (found,) = client.prefect("/artifacts/filter", of_run(run_id, key))
    page.goto(f"/v2/artifacts/artifact/{found['id']}")
