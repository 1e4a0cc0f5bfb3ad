"""The log's volume is full while the bucket is healthy: a real, small file system."""

import random
import subprocess

import pytest

import spans
from harness import eventually, http


@pytest.fixture
def small_volume(tmp_path):
    """Eight MiB for the log."""
    folder = tmp_path / "wal"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def send(one):
    """A trace of about 150 KB that hardly compresses; its id, or the status with which it was refused."""
    # Longer values would be cut to `distributor.max_attribute_bytes`.
    noise = {f"noise {number}": random.randbytes(1000).hex() for number in range(25)}
    message, (trace_id,) = spans.request(attributes=noise)
    answer = http(one.otlp_http_url, data=message.SerializeToString(), content_type="application/x-protobuf")
    return (trace_id, None) if answer.status == 200 else (None, answer.status)


def send_until_refused(one):
    taken = []
    for _ in range(500):
        trace_id, status = send(one)
        if status:
            assert status in (429, 503), f"refused with {status}, which clients do not send again"
            return taken
        taken.append(trace_id)
    raise AssertionError("the volume is not full")


def fill(folder):
    with open(folder / "filler", "wb", buffering=0) as filler:
        for size in (65536, 4096, 1):
            try:
                while filler.write(bytes(size)):
                    pass
            except OSError:
                pass


def everything_is_there(one, ids):
    for trace_id in ids:
        assert len(one.query.trace(trace_id)) == 3, trace_id


def test_a_full_log_volume_heals_with_a_flush_also_after_a_kill(all_in_one, small_volume):
    one = all_in_one.start()
    taken = send_until_refused(one)
    assert len(taken) > 10
    fill(small_volume)
    everything_is_there(one, taken)

    one.program.kill()
    one.start()
    everything_is_there(one, taken)
    assert send(one)[1] in (429, 503)

    assert http(f"{one.program.url}/flush").status == 204
    eventually("spans are taken again", lambda: send(one)[0])
    everything_is_there(one, taken)
    assert one.program.metric("tempo_ingester_blocks_flushed_total") >= 1
    assert one.program.stop() == 0
