"""Images: pinned, small, not root, and with what the project says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

from tests.support.infra import INFRA, SECRET, compose, documents, shipped_values, values_of
from tests.support.project import CHECKOUT


def images() -> list[str]:
    charts = [f"{i['repository']}:{i.get('tag', i.get('prefectTag'))}" for i in values_of("image", shipped_values())]
    built = [image.replace("${DEVICE:-cpu}", "cpu") for image in values_of("image", compose()["services"])]
    return [*built, *values_of("image", documents()), *charts]


def test_every_image_is_pinned_by_tag() -> None:
    assert len(images()) > 15
    for image in images():
        name, _, tag = image.rpartition(":")
        assert name, image
        assert re.search(r"\d+\.\d+", tag), image
        assert "latest" not in tag, image


def test_our_image_carries_our_version() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    tags = {image.removeprefix("unetflow:") for image in images() if image.startswith("unetflow:")}
    assert tags == {f"{project['version']}-cpu", f"{project['version']}-cuda"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, comments and line breaks removed."""
    lines = [line for line in (INFRA / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_the_dockerfile_is_small_pinned_and_not_root() -> None:
    found = instructions()
    arguments = dict(rest.split("=", 1) for word, rest in found if word == "ARG")
    (base,) = (rest for word, rest in found if word == "FROM")
    assert base == "python:${PYTHON_VERSION}-slim-bookworm"
    assert re.fullmatch(r"3\.11\.\d+", arguments["PYTHON_VERSION"]), "Ray wants nodes and clients alike to the patch"
    assert arguments["DEVICE"] == "cpu"
    assert not [name for name in arguments if SECRET.search(name)]
    users = [rest for word, rest in found if word == "USER"]
    assert users == ["1000:1000"], "by number: Kubernetes cannot tell whether a name is root"
    assert not [rest for word, rest in found if word == "ADD" or "sudo" in rest]
    for command in (rest for word, rest in found if word == "RUN"):
        for install in re.findall(r"pip install[^;&]*", command):
            assert "--constraint constraints.txt" in install or "--no-deps" in install, install
        if "apt-get install" in command:
            assert "--no-install-recommends" in command
            assert "rm -rf /var/lib/apt/lists/*" in command


def test_what_the_image_copies_exists_and_passes_the_ignore_file() -> None:
    allowed = {
        line[1:] for line in (INFRA / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert "*" in (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {source for word, rest in instructions() if word == "COPY" for source in sources(rest)}
    assert copied == allowed
    assert all((CHECKOUT / source).exists() for source in copied)


def sources(arguments: str) -> list[str]:
    return [word for word in arguments.split() if not word.startswith("--")][:-1]


def test_the_image_installs_what_the_project_says() -> None:
    (command,) = (rest for word, rest in instructions() if word == "RUN" and "requirements.txt" in rest)
    script = re.search(r'python -c "(.*?)" > requirements.txt', command)[1]
    result = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert result.stdout.split("\n")[:-1] == project["dependencies"] + project["optional-dependencies"]["servers"]
