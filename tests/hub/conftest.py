"""A Hub on loopback for each test, and its client: see `hub_server.py` and `hub_client.py`."""

from __future__ import annotations

import pytest
from hub_client import Client, populate
from hub_server import serve


@pytest.fixture
def hub():
    with serve() as hub:
        yield populate(hub)


@pytest.fixture
def client(hub, tmp_path):
    return Client(hub, tmp_path / "home")
