#!/usr/bin/env python3
"""Compares the query API with recorded answers, where the recording kit is found.

The kit is no part of this repository. It is looked for in $VIVACE_GOLDEN_API, then in ../shared/golden/api.
Both phases are asked: data in memory, and the same data after a restart that leaves it in the backend only.

    scripts/conformance.py [options of the kit's run.py, such as --only 'search/*']
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import tools

ROOT = Path(__file__).resolve().parent.parent


def kit():
    for candidate in [os.environ.get("VIVACE_GOLDEN_API"), ROOT.parent / "shared" / "golden" / "api"]:
        if candidate and (Path(candidate) / "run.py").exists():
            return Path(candidate)
    print("The conformance kit is not here (set VIVACE_GOLDEN_API to its folder); nothing was compared.")
    sys.exit(0)


def environment(folder):
    place = tools.CACHE / "venv-conformance"
    if not (place / "installed").exists():
        venv.create(place, with_pip=True)
        pip = [place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", folder / "requirements.txt"]
        subprocess.run(pip, check=True)
        (place / "installed").touch()
    return place / "bin" / "python"


def main():
    folder = kit()
    python = environment(folder)
    built = ["cargo", "build", "--release", "-p", "vivace"]
    subprocess.run(built, cwd=ROOT, check=True)
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--no-deps"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    binary = Path(json.loads(metadata.stdout)["target_directory"]) / "release" / "vivace"
    results = 0
    with tempfile.TemporaryDirectory() as data:
        state = Path(data) / "state.json"
        for phase in ("live", "flushed"):
            print(f"\n=== {phase}", flush=True)
            serve = [python, folder / "serve.py", "--binary", binary, "--config", folder / "servers" / "tempo-2.10.yaml"]
            server = subprocess.Popen([*serve, "--data", data, "--phase", phase], stdout=subprocess.PIPE, text=True)
            try:
                line = server.stdout.readline()
                if not line:
                    sys.exit(f"the server did not start; see the log in {data}")
                at = json.loads(line)
                run = [python, folder / "run.py", "--target", at["target"], "--otlp", at["otlp"], "--grpc", at["grpc"]]
                # This case is recorded for data in memory only.
                skip = ["--skip", "search/recent-without-range"] if phase == "flushed" else []
                results |= subprocess.run([*run, "--state", state, *skip, *sys.argv[1:]], check=False).returncode
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(timeout=60)
    return results


if __name__ == "__main__":
    sys.exit(main())
