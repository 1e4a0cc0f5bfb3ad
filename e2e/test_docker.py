"""What of docker/ can be checked without Docker: that files fit together, and that each program takes its configuration."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

import harness
import tools

DOCKER = harness.ROOT / "docker"
COMPOSE = sorted(DOCKER.glob("*/compose.yaml"))
PROGRAMS = ["vivace", *(f"vivace-{service}" for service in harness.SERVICES), "vivace-cli"]
RUN_BY_NAME = {"vivace": ["all"], **{f"vivace-{service}": [service] for service in harness.SERVICES}}


def parse(path):
    return yaml.safe_load(path.read_text())


def targets():
    """The Dockerfile's targets with the program each starts."""
    found = {}
    for part in re.split(r"^FROM ", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]:
        name = re.match(r"\S+ AS (\S+)", part)[1]
        started = re.search(r'^ENTRYPOINT \["/usr/bin/([^"]+)"\]', part, re.MULTILINE)
        copied = re.search(r"^COPY --from=build /rootfs/(\S+) /$", part, re.MULTILINE)
        if started:
            assert copied[1] == started[1], name
            assert part.index("COPY --from") < part.index("USER 10001:10001")
            found[name] = started[1]
    return found


def test_the_dockerfile_has_a_target_for_each_program():
    assert targets() == {program: program for program in PROGRAMS}


def test_the_build_image_has_the_compiler_of_the_workspace():
    channel = re.search(r'^channel = "(.+)"$', (harness.ROOT / "rust-toolchain.toml").read_text(), re.MULTILINE)[1]
    dockerfile = (DOCKER / "Dockerfile").read_text()
    assert f"ARG BUILD_IMAGE=docker.io/library/rust:{channel}-" in dockerfile
    # A frontend named in a syntax line is fetched from a registry before anything is built.
    assert "# syntax=" not in dockerfile


def test_the_context_is_a_whole_workspace(tmp_path):
    """With the files that .dockerignore lets through, Cargo finds every package that the lock file has from here."""
    kept = [line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert "Cargo.toml" in kept and "scripts/rootfs" in kept
    for path in kept:
        source, copy = harness.ROOT / path, tmp_path / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("target", "corpus", "artifacts"))
        else:
            shutil.copy2(source, copy)
    host = re.search(r"^host: (\S+)$", subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout, re.MULTILINE)[1]
    described = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", host]
    done = subprocess.run(described, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    programs = {t["name"] for p in json.loads(done.stdout)["packages"] if not p["source"] for t in p["targets"] if "bin" in t["kind"]}
    assert set(PROGRAMS) <= programs


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_the_build_script_makes_every_target(builder, tmp_path):
    """A program in the builder's place writes down what it is asked for."""
    asked = tmp_path / "asked"
    (tmp_path / builder).write_text(f'#!/bin/sh\necho "$*" >>{asked}\n')
    (tmp_path / builder).chmod(0o755)
    asking = {"BUILDER": builder, "TAG": "v1", "VERSION": "1.2.3", "BUILD_IMAGE": "rust:x", "BUILD_FLAGS": "--pull --network host"}
    env = {**os.environ, **asking, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([DOCKER / "build"], check=True, capture_output=True, env=env)
    lines = asked.read_text().splitlines()
    assert [re.search(r"--target (\S+) -t (\S+)", line).groups() for line in lines] == [(p, f"{p}:v1") for p in PROGRAMS]
    for line in lines:
        assert line.startswith("build ") and line.endswith(" --pull --network host .")
        assert "--build-arg VERSION=1.2.3" in line and "--build-arg BUILD_IMAGE=rust:x" in line


@pytest.mark.parametrize("file", COMPOSE, ids=lambda f: f.parent.name)
def test_compose_files_name_what_exists(file):
    compose = parse(file)
    for name, service in compose["services"].items():
        build = service.get("build")
        if build:
            assert build["target"] in targets(), name
            assert (file.parent / build["context"] / build["dockerfile"]).exists(), name
            assert service["image"] == f"{build['target']}:dev"
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (file.parent / source).exists(), f"{name}: {source}"
            else:
                assert source in compose["volumes"], f"{name}: {source}"
        for other in service.get("depends_on", []):
            assert other in compose["services"], f"{name}: {other}"


@pytest.mark.parametrize("file", COMPOSE, ids=lambda f: f.parent.name)
def test_each_program_takes_its_configuration(file, tmp_path):
    services = parse(file)["services"].values()
    mine = [s for s in services if s.get("build")]
    assert mine
    for service in mine:
        arguments = [a.replace("/etc/vivace.yaml", str(tmp_path / "vivace.yaml")) for a in service["command"]]
        text = (file.parent / "vivace.yaml").read_text()
        (tmp_path / "vivace.yaml").write_text(text.replace("/etc/overrides.yaml", str(file.parent / "overrides.yaml")))
        program = harness.binaries() / service["build"]["target"]
        done = subprocess.run([program, *arguments, "-config.verify=true"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_configuration():
    promtool = tools.prometheus().with_name("promtool")
    done = subprocess.run([promtool, "check", "config", DOCKER / "distributed" / "prometheus.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_speaks_to_services_of_the_compose_file():
    folder = DOCKER / "distributed"
    services = set(parse(folder / "compose.yaml")["services"])
    configs = ["vivace.yaml", "collector.yaml", "prometheus.yaml", "grafana/datasources/observability.yaml"]
    for config in configs:
        addresses = re.findall(r"\b([a-z][a-z0-9-]*):\d{4,5}\b", (folder / config).read_text())
        assert addresses, config
        assert set(addresses) <= services, f"{config}: {set(addresses) - services}"


def test_data_sources_lead_to_each_other():
    sources = parse(DOCKER / "distributed" / "grafana" / "datasources" / "observability.yaml")["datasources"]
    uids = {source["uid"] for source in sources}
    tempo, prometheus, loki = (next(s["jsonData"] for s in sources if s["type"] == kind) for kind in ("tempo", "prometheus", "loki"))
    used = {tempo["tracesToLogsV2"]["datasourceUid"], tempo["tracesToMetrics"]["datasourceUid"], tempo["serviceMap"]["datasourceUid"]}
    used |= {e["datasourceUid"] for e in prometheus["exemplarTraceIdDestinations"]} | {f["datasourceUid"] for f in loki["derivedFields"]}
    assert used == uids
    in_text = next(field["matcherRegex"] for field in loki["derivedFields"] if field.get("matcherType") != "label")
    for line in ('{"traceID":"0af7651916cd43dd"}', "level=info trace_id=0af7651916cd43dd msg=done", "traceId: 0af7651916cd43dd"):
        assert re.search(in_text, line)[1] == "0af7651916cd43dd", line


def test_a_folder_has_all_that_its_program_needs(tmp_path):
    subprocess.run([harness.ROOT / "scripts" / "rootfs", tmp_path, harness.binaries(), "vivace-cli"], check=True, capture_output=True)
    root = tmp_path / "vivace-cli"
    program = root / "usr" / "bin" / "vivace-cli"
    needed = re.findall(r"(?:=> |^\s*)(/\S+) \(", subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout, re.MULTILINE)
    assert needed and all((root / library.lstrip("/")).exists() for library in needed)
    assert (root / "etc" / "ssl" / "certs" / "ca-certificates.crt").stat().st_size > 1000
    assert (root / "var" / "tempo").stat().st_mode & 0o777 == 0o777
    if os.geteuid() == 0:
        done = subprocess.run(["chroot", root, "/usr/bin/vivace-cli", "--version"], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stdout.startswith("vivace-cli "), done
