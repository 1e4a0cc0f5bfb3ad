"""`make demo` runs through."""

import subprocess
import sys

import harness


def test_the_demo_runs_through():
    arguments = [sys.executable, harness.ROOT / "demo" / "run.py", "--once", "--profile", "dev"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "note_create" in done.stdout and "there is no note 404" in done.stdout, done.stdout
