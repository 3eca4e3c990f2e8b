"""One error for whatever a decoder raises on a bad file: ``DataError``, with file, rule and remedy."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_pipelines.errors import DataError, UserError, broken_rule

_COPY_AGAIN = "copy the file again from its source, or leave the case out"


def unreadable(rule: str, path: Path, message: str, remedy: str = _COPY_AGAIN) -> DataError:
    """Build the error of one file that cannot be read, to be raised."""
    return broken_rule(rule, path, message, remedy)


def is_file_or_broken_link(path: Path) -> bool:
    """Tell whether a listing should hold this entry: a file, or a link to nothing, whose reader then names it.

    Data sets whose files are links (DataLad, git-annex) may be fetched in part.
    """
    return path.is_file() or (path.is_symlink() and not path.exists())


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn whatever the libraries raise on a bad file into one ``DataError`` that names the file."""
    try:
        yield
    except UserError:
        raise
    except EOFError as error:
        if "end-of-stream" in str(error):  # gzip's
            raise unreadable("truncated-gzip", path, "the compressed data ends before its end marker") from None
        raise unreadable("truncated-file", path, f"the file ends too early: {error}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise unreadable("corrupt-gzip", path, f"the compressed data is damaged: {error}") from None
    except FileNotFoundError:
        raise unreadable("file-missing", path, "no such file or folder", "restore it, or leave the case out") from None
    except PermissionError:
        raise unreadable("no-permission", path, "may not be read", "give the account that runs this access") from None
    except MemoryError:
        raise unreadable("too-large", path, "does not fit into memory", "cut it, or use a larger machine") from None
    except ImportError as error:
        message = f"its format needs a package that is not installed: {error}"
        raise unreadable("missing-decoder", path, message, f"install the package {error.name or ''}".rstrip()) from None
    except Exception as error:  # on damaged bytes the decoders raise anything, down to struct.error
        reason = f"{type(error).__name__}: {error}"
        raise unreadable("unreadable", path, f"cannot be read: {reason:.300}") from error
