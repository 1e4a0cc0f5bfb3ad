import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness  # noqa: E402


@pytest.fixture
def programs():
    """Programs to end with the test, whatever happens. Those added last end first."""
    added = []
    yield added
    for program in reversed(added):
        if program.running():
            program.kill()


@pytest.fixture
def all_in_one(tmp_path, programs):
    one = harness.AllInOne(tmp_path)
    programs.append(one.program)
    return one


@pytest.fixture
def minio(tmp_path, programs):
    server = harness.Minio(tmp_path)
    programs.append(server)
    return server.start_with(harness.Cluster.BUCKET)
