#!/usr/bin/env python3
"""Writes the golden renders of the charts anew, for a change that is meant."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "e2e"), str(ROOT / "scripts")]

import charts  # noqa: E402

for chart, name, files in [
    (charts.DISTRIBUTED, "defaults", []),
    (charts.DISTRIBUTED, "seed", [charts.DISTRIBUTED / "testdata" / "values" / "seed.yaml"]),
    (charts.SINGLE, "defaults", []),
]:
    file = chart / "testdata" / "golden" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(charts.rendered(chart, *files))
