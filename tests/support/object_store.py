"""An object store on loopback, in this process, that can be made to refuse every request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any
from unittest import mock

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "unetflow-test"
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        """Print nothing."""


class ObjectStore:
    """``with ObjectStore() as store:`` serves S3 with an empty bucket; while ``is_refusing``, it answers 503.

    This process, and those that it starts, find it by their environment.
    """

    def __init__(self) -> None:
        self.is_refusing = False
        self.num_refused = 0
        self._answer = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._respond, threaded=True, request_handler=_Quiet)
        self._thread = Thread(target=self._server.serve_forever, name="object-store", daemon=True)

        self._environment = mock.patch.dict(
            os.environ,
            {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
            },
        )

    @property
    def client(self) -> Any:
        """A client of boto3."""
        import boto3

        return boto3.client("s3")

    def __enter__(self) -> ObjectStore:
        self._environment.start()
        self._thread.start()
        self.client.create_bucket(Bucket=BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._environment.stop()

    def _respond(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if not self.is_refusing:
            return self._answer(environ, start)
        self.num_refused += 1
        start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(SLOW_DOWN)))])
        return [SLOW_DOWN]
