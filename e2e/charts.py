"""Renders the Helm charts, and reads what comes out."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import tools
import yaml

CHARTS = tools.ROOT / "charts"
DISTRIBUTED, SINGLE = CHARTS / "vivace-distributed", CHARTS / "vivace"
# Helm, built by itself, takes the cluster for a very old one.
KUBERNETES = "1.33.0"
WORKLOADS = ("Deployment", "StatefulSet")


class Refused(Exception):
    """Helm would not render; the text is what it says."""


def cases():
    """The values files of both charts: [(chart, file)], and each chart's defaults (file None)."""
    for chart in (DISTRIBUTED, SINGLE):
        yield chart, None
        for file in sorted((chart / "testdata" / "values").glob("*.yaml")):
            yield chart, file


def case_name(case):
    chart, file = case
    return f"{chart.name}:{file.stem if file else 'defaults'}"


def helm(*arguments, stdin=""):
    command = [tools.go_tool("helm"), *arguments]
    answer = subprocess.run([str(a) for a in command], input=stdin, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise Refused(answer.stderr)
    return answer.stdout


@functools.cache
def rendered(chart, *files, release="tempo", namespace="observability", values="{}"):
    """The manifests as text. `values` is YAML laid over the files."""
    arguments = ["template", release, chart, "--namespace", namespace, "--kube-version", KUBERNETES]
    for file in files:
        arguments += ["--values", file] if file else []
    return helm(*arguments, "--values", "-", stdin=values)


def render(chart, *files, **options):
    """The manifests as a list of objects."""
    return [one for one in yaml.safe_load_all(rendered(chart, *files, **options)) if one]


def notes(chart, folder, values="{}", *files):
    """What Helm says after an install."""
    copy = Path(folder) / chart.name
    shutil.copytree(chart, copy, dirs_exist_ok=True)
    # `helm template` shows no notes: a manifest shows them.
    (copy / "templates" / "notes.yaml").write_text(f'notes: {{{{ include "{chart.name}/templates/NOTES.txt" . | toJson }}}}\n')
    return next(one["notes"] for one in render(copy, *files, values=values) if "notes" in one)


def find(objects, kind, name):
    found = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects {kind}/{name}; there are {sorted(label(one) for one in objects)}"
    return found[0]


def label(one):
    return f"{one['kind']}/{one['metadata']['name']}"


def pods(objects):
    """[(owner, pod template)] of all workloads."""
    return [(one, one["spec"]["template"]) for one in objects if one["kind"] in WORKLOADS]


def container(objects, kind, name, index=0):
    return find(objects, kind, name)["spec"]["template"]["spec"]["containers"][index]


def config(objects):
    """The text of tempo.yaml."""
    for one in objects:
        text = (one.get("data") or {}).get("tempo.yaml")
        if text and one["kind"] == "ConfigMap":
            return text
        if text:
            import base64

            return base64.b64decode(text).decode()
    return None


def selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def without_environment():
    """The environment without what would change how Helm renders."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "KUBE"))}
