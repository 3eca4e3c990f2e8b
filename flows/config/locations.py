"""Default folders for storage and state."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from data_pipelines.digests import digest_of
from data_pipelines.errors import ConfigError
from data_pipelines.storage import home_folder

TRACKING_URI = re.compile(r"[a-z][a-z0-9+.-]*://|databricks$")


def state_folder() -> Path:
    """Return this user's state folder: below ``XDG_STATE_HOME``, by default ``~/.local/state``."""
    return Path(os.environ.get("XDG_STATE_HOME") or home_folder() / ".local" / "state") / "unetflow"


def writable_folder(folder: Path, variables: str) -> Path:
    """Return the folder, made where it is missing. Raises ConfigError, naming ``variables``, where it is read-only."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        is_writable = False
    if not is_writable:
        raise ConfigError(f"{folder} cannot be written to: set {variables} to a folder that can")
    return folder


@contextmanager
def process_lock(kind: str, name: str) -> Iterator[None]:
    """Let one process of this user and machine at a time into the block; locks are named by kind and name."""
    path = state_folder() / kind / f"{digest_of(name)[:16]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def private_folder(folder: Path) -> Path:
    """Return the folder, mode 0700, made where it is missing: what lies below it is this user's alone.

    Raises ConfigError where somebody else could put something in it: it belongs to another user, is a link, is writable
    by others, or lies in a folder in which everybody may rename it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if found := _intrusion(folder):
            raise ConfigError(
                f"{folder} must be this user's alone, and {found}: remove it, or set UNETFLOW_CACHE to a folder of "
                "your own whose path is short"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made ({error.strerror}): set UNETFLOW_CACHE or XDG_CACHE_HOME to a folder of your own "
            "that can be written to"
        ) from None
    return folder


def _intrusion(folder: Path) -> str:
    """Return how somebody else can get into the folder; empty where nobody can."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return "is a link" if stat.S_ISLNK(status.st_mode) else "is no folder"
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}"
    if status.st_mode & 0o022:
        return f"others may write to it (mode {stat.S_IMODE(status.st_mode):o})"
    for parent in folder.resolve().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"everybody may rename what is in {parent} (mode {stat.S_IMODE(mode):o})"
    return ""


def named_tracking_uri() -> str:
    """Return ``MLFLOW_TRACKING_URI``; empty where it is not set.

    Raises ConfigError where it is neither a server's address nor a database's, which MLflow finds out when it
    registers, and where it holds a password, which records and reports would show.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if _has_password(uri):
        raise ConfigError(
            f"MLFLOW_TRACKING_URI={urlsplit(uri).scheme}://…@{urlsplit(uri).hostname} holds a password, and is "
            "recorded and shown: take it out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a "
            "server, PGUSER and PGPASSWORD for PostgreSQL"
        )
    if uri and (not TRACKING_URI.match(uri) or uri.startswith("file:")):
        raise ConfigError(
            f"MLFLOW_TRACKING_URI={uri} is neither a server nor a database: write http://HOST:PORT of a server, or "
            "sqlite:////FOLDER/mlflow.db"
        )
    return uri


def _has_password(uri: str) -> bool:
    try:
        return urlsplit(uri).password is not None
    except ValueError:  # no address at all
        return False


def storage_root(configured: str = "") -> str:
    """Return the absolute URI of the storage: as configured, else ``UNETFLOW_STORAGE``, else the state folder.

    Raises ConfigError where it holds keys, which records and reports would show, or characters with a meaning in URIs.
    """
    uri = configured or os.environ.get("UNETFLOW_STORAGE") or str(state_folder())
    if "://" in uri and "@" in urlsplit(uri).netloc:
        raise ConfigError(
            f"the storage {urlsplit(uri).scheme}://…@{urlsplit(uri).hostname} holds keys, and is recorded and shown: "
            "take them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if found := set(uri) & set("?#"):
        raise ConfigError(
            f"the storage {uri} holds {' and '.join(map(repr, sorted(found)))}, where a URI's path ends: name another "
            "folder; the address of an object store goes into AWS_ENDPOINT_URL"
        )
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())
