"""Rules that every production module keeps, read from its text; and what importing a predictor must not import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.installation import PACKAGES
from tests.support.project import CHECKOUT

MODULES = [path for package in PACKAGES for path in sorted((CHECKOUT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def calls(path: Path) -> Iterator[ast.Call]:
    tree = ast.parse(path.read_text(), str(path))
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_there_are_modules() -> None:
    assert len(MODULES) > 150


def test_no_module_forks_on_the_type_of_a_configuration() -> None:
    """What differs between pipelines is in their folders, not in an ``if``."""

    def forks(call: ast.Call) -> bool:
        if not (isinstance(call.func, ast.Name) and call.func.id in ("isinstance", "issubclass")):
            return False
        tested, kind = (ast.unparse(argument) for argument in call.args)
        return kind.endswith("Config") or (tested == "config" and kind != "dict")  # of JSON by other libraries

    found = [f"{name_of(path)}:{call.lineno}" for path in MODULES for call in calls(path) if forks(call)]
    assert found == []


@pytest.mark.parametrize("word", ["unittest", "import mock", "pytest", "from tests", "import tests"])
def test_no_module_imports_what_tests_are_made_of(word: str) -> None:
    assert [name_of(path) for path in MODULES if word in path.read_text()] == []


def test_no_module_drives_a_generator_from_outside() -> None:
    """``generator.send`` and ``throw`` hide who calls whom."""
    found = [
        f"{name_of(path)}:{call.lineno}"
        for path in MODULES
        for call in calls(path)
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("send", "throw")
    ]
    assert found == []


def test_nothing_is_printed_but_by_the_command_line() -> None:
    found = [
        f"{name_of(path)}:{call.lineno}"
        for path in MODULES
        for call in calls(path)
        if isinstance(call.func, ast.Name) and call.func.id == "print"
    ]
    assert found == []


def imported_by(module: str) -> list[str]:
    """Import a module in a process of its own; return the names of all modules that this brought in."""
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names: list[str] = json.loads(done.stdout)
    return names


@pytest.mark.parametrize(
    "module", ["flows.pipelines.segmentation.segmenter", "flows.pipelines.diffusion.text_to_image"]
)
def test_prediction_imports_neither_training_nor_orchestration(module: str) -> None:
    names = imported_by(module)
    assert module in names
    unwanted = ("unet_models.training", "flows.training", "flows.running", "flows.cluster", "ray", "prefect", "mlflow")
    assert [name for name in names if name.startswith(tuple(f"{each}." for each in unwanted)) or name in unwanted] == []


def test_the_command_line_starts_without_heavy_libraries() -> None:
    """``unetflow --help`` and a wrong field answer at once."""
    names = set(imported_by("flows.cli"))
    assert {"flows.cli.main", "flows.pipelines.catalog"} <= names
    heavy = {"torch", "ray", "mlflow", "prefect", "diffusers", "transformers", "webdataset", "pandas"}
    assert names & (heavy | {"asyncio", "flows.cluster"}) == set()
