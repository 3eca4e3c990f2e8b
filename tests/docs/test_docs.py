"""Documentation: length, links, commands, configuration snippets, names of rules, files and recipes."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import flows.cli.base
import flows.cli.main  # defines the commands
import flows.cli.pipelines
from data_pipelines.errors import UserError
from flows.config.reference import reference_markdown
from flows.pipelines.catalog import PIPELINES, load_config
from flows.running.execution import run_pipeline

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
GUIDES = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "infra" / "README.md", *GUIDES]
PACKAGES = ("data_pipelines", "unet_models", "flows")
TOP_FOLDERS = (*PACKAGES, "infra", "docs", "tests")

MAX_README_WORDS = 900
"""Words outside code fences: what stands between white space and holds a letter or a digit, link targets included."""
MAX_PICTURE_BYTES = 300_000
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def page_id(path: Path) -> str:
    """Name a page in test ids."""
    return str(path.relative_to(ROOT))


def text_outside_fences(path: Path) -> str:
    """Return a page's text without its code fences."""
    return FENCE.sub("", path.read_text())


def fences(path: Path, language: str) -> list[str]:
    """Return the code fences of a language."""
    return [code for _, found, code in FENCE.findall(path.read_text()) if found == language]


def spans(path: Path) -> list[str]:
    """Return the inline code of a page."""
    return SPAN.findall(text_outside_fences(path))


def table_rows(path: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    _, found, below = path.read_text().partition(f"\n{heading}\n")
    assert found, f"{page_id(path)} has no heading {heading}"
    lines = below.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


# --- length, pictures ------------------------------------------------------------------------------------------------


def test_readme_is_short() -> None:
    words = [word for word in text_outside_fences(ROOT / "README.md").split() if re.search(r"\w", word)]
    assert len(words) <= MAX_README_WORDS


def test_pictures_are_small() -> None:
    pictures = [path for path in (ROOT / "docs" / "images").rglob("*") if path.is_file()]
    assert {path.name: path.stat().st_size for path in pictures if path.stat().st_size >= MAX_PICTURE_BYTES} == {}


# --- links -----------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text_outside_fences(path), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken_links(path: Path) -> Iterator[str]:
    """Yield the relative links of a page that lead nowhere."""
    for target in LINK.findall(text_outside_fences(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        if not linked.exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in anchors(linked):
            yield f"{target}: no such heading"


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_resolve(path: Path) -> None:
    assert list(broken_links(path)) == []


def test_every_guide_is_linked_from_the_readme() -> None:
    linked = {target.partition("#")[0] for target in LINK.findall(text_outside_fences(ROOT / "README.md"))}
    assert {page_id(path) for path in GUIDES} <= linked


# --- commands --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """A line of a code fence that calls the command line."""

    page: str
    words: tuple[str, ...]
    """Words after ``unetflow``."""

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)[:60]}"


def shell_lines(path: Path) -> Iterator[str]:
    """Yield the lines of fences without a language; those that end in a backslash are joined."""
    for code in fences(path, ""):
        yield from re.sub(r"\\\n\s*", " ", code).splitlines()


def commands(path: Path) -> Iterator[Command]:
    """Yield the lines that begin with ``unetflow`` or ``.venv/bin/unetflow``."""
    for line in shell_lines(path):
        if match := re.match(r"\s*(?:\.venv/bin/)?unetflow (.*)", line):
            words = shlex.split(match[1], comments=True)
            end = next((i for i, word in enumerate(words) if word in (">", "|", "&&")), len(words))
            yield Command(page_id(path), tuple(words[:end]))


COMMANDS = [command for path in PAGES for command in commands(path)]


@pytest.fixture(scope="module")
def parser() -> Any:
    """The command line's own parser: a group of commands."""
    flows.cli.pipelines.add_stage_commands()
    return typer.main.get_command(flows.cli.base.app)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_commands_parse(command: Command, parser: Any) -> None:
    name, *arguments = command.words
    assert name in parser.commands
    try:
        parser.commands[name].make_context(name, arguments)
    except typer.TyperException as error:
        pytest.fail(f"unetflow {name}: {error}")


def test_readme_and_guides_hold_commands() -> None:
    pages = Counter(command.page for command in COMMANDS)
    assert pages["README.md"] >= 5
    assert pages["docs/getting-started.md"] >= 5


@pytest.mark.parametrize("command", [c for c in COMMANDS if "--set" in c.words], ids=str)
def test_overrides_name_fields(command: Command) -> None:
    config = next((word for word in command.words if word.endswith(".yaml")), "")
    path = ROOT / config if (ROOT / config).is_file() else ROOT / "flows" / "configs" / "demo_segmentation.yaml"
    words = command.words
    load_config(path, [words[i + 1] for i, word in enumerate(words) if word == "--set"])


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_inline_commands_exist(path: Path, parser: Any) -> None:
    wrong = []
    for span in spans(path):
        match = re.match(r"(?:[A-Z_]+=\S+ )?unetflow ([a-z_-]+)(.*)", span)
        if match is None:
            continue
        command = parser.commands.get(match[1])
        known = {option for parameter in command.params for option in parameter.opts} if command else set()
        if command is None or not set(re.findall(r" (--[a-z-]+)", match[2])) <= known:
            wrong.append(span)
    assert wrong == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for path in PAGES
        for text in [*spans(path), *shell_lines(path)]
        for target in re.findall(r"^make ([a-z][\w-]*)", text)
    }
    assert {"demo", "check", "test", "stack"} <= named
    assert named - targets == set()


# --- configuration ---------------------------------------------------------------------------------------------------


def test_configuration_reference_is_fresh() -> None:
    fresh = reference_markdown([(name, pipeline.config) for name, pipeline in PIPELINES.items()])
    assert (ROOT / "docs" / "configuration.md").read_text() == fresh, (
        "unetflow config --reference > docs/configuration.md"
    )


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes``, group by group; one of another ``backbone`` has fields of its own."""
    merged = dict(base)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict) and "backbone" not in value
        merged[name] = merge(base[name], value) if both else value
    return merged


SNIPPETS = [(path, number, code) for path in PAGES for number, code in enumerate(fences(path, "yaml"))]


@pytest.mark.parametrize(("path", "number", "code"), SNIPPETS, ids=[f"{page_id(p)}-{n}" for p, n, _ in SNIPPETS])
def test_yaml_snippets_are_valid_configurations(path: Path, number: int, code: str) -> None:
    values = yaml.safe_load(code)
    name = values.get("pipeline", "segmentation")
    base = yaml.safe_load((ROOT / "flows" / "configs" / f"demo_{name}.yaml").read_text())
    PIPELINES[name].config.model_validate(merge(base, values))


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_json_and_python_snippets_parse(path: Path) -> None:
    for code in fences(path, "json"):
        json.loads(code)
    for code in fences(path, "python"):
        ast.parse(code)


# --- names in the code -----------------------------------------------------------------------------------------------


def rules_in_code() -> set[str]:
    """Return the literal rule names that the packages report."""
    found = set()
    for path in sorted(path for package in ("data_pipelines", "flows") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            is_report = isinstance(node, ast.Call) and getattr(node.func, "id", "") in _REPORTS
            if is_report and node.args and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return found


_REPORTS = ("broken_rule", "unreadable", "Problem", "notice", "Stored")


def test_every_rule_is_documented() -> None:
    rules = (ROOT / "docs" / "data.md").read_text().partition("\n## Rules\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `([a-z0-9-]+)` \|", rules, re.MULTILINE)
    assert [rule for rule, count in Counter(documented).items() if count > 1] == []
    assert set(documented) == rules_in_code()


def test_every_environment_variable_is_documented() -> None:
    files = [path for name in (*PACKAGES, "infra") for path in (ROOT / name).rglob("*.*") if path.suffix in _SOURCES]
    used = {name for path in files for name in re.findall(r"\bUNETFLOW_[A-Z_]+\b", path.read_text())}
    rows = table_rows(ROOT / "docs" / "troubleshooting.md", "## Environment variables")
    documented = {name for row in rows for name in SPAN.findall(row[0]) if name.startswith("UNETFLOW_")}
    assert documented == used


_SOURCES = (".py", ".yaml", ".sh")


def is_path(span: str) -> bool:
    """Tell whether inline code names a file or folder of the repository; ``infra/.env`` is never committed."""
    return (
        not span.endswith("/.env")
        and bool(re.fullmatch(r"\.?[\w.-]+(/[\w.-]+)*/?", span))
        and span.split("/")[0] in (*TOP_FOLDERS, ".ci")
    )


def is_module(span: str) -> bool:
    """Tell whether inline code names a module of the packages, or something in one."""
    return bool(re.fullmatch(rf"({'|'.join(PACKAGES)})(\.\w+)+", span))


def exists_in_package(dotted: str) -> bool:
    """Tell whether a dotted name is a module, or a name in one."""
    module, _, name = dotted.rpartition(".")
    try:
        if importlib.util.find_spec(dotted) is not None:
            return True
    except ModuleNotFoundError:
        pass
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return False
    return (
        spec is not None and spec.origin is not None and bool(re.search(rf"\b{name}\b", Path(spec.origin).read_text()))
    )


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != "CHANGELOG.md"], ids=page_id)
def test_files_and_modules_exist(path: Path) -> None:
    named = [span for span in spans(path) if "NAME" not in span]
    missing = [span for span in named if "/" in span and is_path(span) and not (ROOT / span).exists()]
    missing += [span for span in named if is_module(span) and not exists_in_package(span)]
    assert missing == []


def test_where_things_are() -> None:
    rows = table_rows(ROOT / "docs" / "architecture.md", "## Where things are")
    assert len(rows) > 20
    for _, file, name in rows:
        source = (ROOT / file.strip("`")).read_text()
        definition = rf"^ *(def|class) {name.strip('`')}\b|^{name.strip('`')}\b.*="
        assert re.search(definition, source, re.MULTILINE), f"{file} does not define {name}"


# --- contributing ----------------------------------------------------------------------------------------------------


def listed_folders() -> set[str]:
    """Return the folders of the tree in CONTRIBUTING.md."""
    tree = next(code for code in fences(ROOT / "CONTRIBUTING.md", "") if code.startswith("data_pipelines/"))
    parents: list[str] = []
    folders = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        assert name.endswith("/"), line
        parents = [*parents[:depth], name.rstrip("/")]
        folders.add("/".join(parents))
    return folders


def test_the_tree_of_folders_is_complete() -> None:
    listed = listed_folders()
    assert [folder for folder in listed if not (ROOT / folder).is_dir()] == []
    packages = {page_id(path.parent) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert packages - listed == set()


def listed_files(package: Path) -> set[str]:
    """Return the names that a package's docstring lists: the first words of its lines in two columns."""
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    lists = [part for part in docstring.split("\n\n") if re.search(r"^\S+ {2,}\S", part, re.MULTILINE)]
    lines = [line for part in lists for line in part.splitlines() if not line.startswith(" ")]
    return {line.split()[0].rstrip("/").removesuffix(".py") for line in lines}


PYTHON_FOLDERS = sorted({path.parent for name in (*PACKAGES, "infra") for path in (ROOT / name).rglob("__init__.py")})


PLUGINS = ("blocks", "decoders")
"""Folders in which a new member is a file, and no other is touched."""


@pytest.mark.parametrize("package", PYTHON_FOLDERS, ids=page_id)
def test_packages_list_their_files(package: Path) -> None:
    listed = listed_files(package)
    present = {path.stem for path in package.glob("*.py")}
    present |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert package.name in PLUGINS or {name for name in present if not name.startswith("_")} <= listed
    assert listed - present == set()


RECIPES = table_rows(ROOT / "CONTRIBUTING.md", "## Recipes")


@pytest.mark.parametrize("row", RECIPES, ids=[row[0].split("]")[0].strip("[") for row in RECIPES])
def test_recipe_counts_and_files(row: list[str]) -> None:
    for cell, is_new in zip(row[1:], (True, False), strict=True):
        files = SPAN.findall(cell)
        assert int(re.match(r"\d+", cell)[0]) == len(files)  # type: ignore[index]
        for file in files:
            place = ROOT / file
            assert place.parent.is_dir() if is_new else place.is_file(), file
            assert not (is_new and place.exists()), f"{file} exists: a recipe's new file is named NAME"


def test_the_pipeline_outside_the_package_runs(tmp_path: Path) -> None:
    (code,) = (code for code in fences(ROOT / "CONTRIBUTING.md", "python") if "PIPELINES[" in code)
    module = tmp_path / "my_lines.py"
    module.write_text(code)
    spec = importlib.util.spec_from_file_location("my_lines", module)
    assert spec is not None
    assert spec.loader is not None
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        config = tmp_path / "lines.yaml"
        config.write_text(f"{{pipeline: lines, file: {ROOT / 'README.md'}, storage: {tmp_path / 'storage'}}}")
        summary = run_pipeline(load_config(config))
        assert [stage.name for stage in summary.stages] == ["count", "report"]
        (report,) = (tmp_path / "storage" / "report").rglob("report.txt")
        assert report.read_text() == f"{len((ROOT / 'README.md').read_text().splitlines())} lines\n"
        assert all(stage.cached for stage in run_pipeline(load_config(config)).stages)
        with pytest.raises(UserError):
            load_config(config, ["no_such_field=1"])
    finally:
        PIPELINES.pop("lines", None)
