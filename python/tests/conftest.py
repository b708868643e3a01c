"""Tests of a cluster get the addresses of its meta nodes in TIDEWATER_META; `cluster-tests` starts one."""

import os

import pytest

import tidewater


@pytest.fixture(scope="session")
def db():
    meta = os.environ.get("TIDEWATER_META")
    if not meta:
        pytest.skip("TIDEWATER_META is not set")
    with tidewater.connect(meta, deadline=30) as client:
        yield client
