"""Object stores on this machine: servers of the protocols of S3 and Google Cloud Storage, for s3fs and gcsfs."""

import contextlib
import os
from unittest import mock

import pytest

from tests.support.command import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
"""That the server asks for and does not check."""


@contextlib.contextmanager
def s3():
    """An empty store for `s3://bucket`; skips where `moto[server]` or `s3fs` is not installed."""
    pytest.importorskip("s3fs")
    servers = pytest.importorskip("moto.server")
    server = servers.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with mock.patch.dict(os.environ, KEYS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}):
        yield "s3://bucket"
    server.stop()


@contextlib.contextmanager
def gs():
    """As `s3` for `gs://bucket`; skips where `gcp-storage-emulator` or `gcsfs` is not installed."""
    pytest.importorskip("gcsfs")
    servers = pytest.importorskip("gcp_storage_emulator.server")
    port = free_port()
    server = servers.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    with mock.patch.dict(os.environ, {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}):
        yield "gs://bucket"
    server.stop()
