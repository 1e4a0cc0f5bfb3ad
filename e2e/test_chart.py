"""The Helm charts as far as they can be proven without a cluster: every values file renders to manifests that Kubernetes accepts,
that belong together, and whose configuration Vivace accepts."""

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import harness
import kubernetes_validate
import pytest
import tools
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

import charts
from charts import DISTRIBUTED, SINGLE, Refused

CASES = list(charts.cases())
VERSIONS = ["1.25", "1.29", "1.33", "1.37"]
# Kinds of others, which the schemas of Kubernetes do not have.
CUSTOM = {"HTTPRoute", "ServiceMonitor", "PrometheusRule", "ScaledObject"}
every_case = pytest.mark.parametrize("case", CASES, ids=charts.case_name)


def values_file(name, chart=DISTRIBUTED):
    return chart / "testdata" / "values" / f"{name}.yaml"


@pytest.mark.parametrize("chart", [DISTRIBUTED, SINGLE], ids=lambda chart: chart.name)
def test_lint(chart):
    files = [file for of, file in CASES if of == chart and file]
    for file in [None, *files]:
        charts.helm("lint", "--strict", "--kube-version", charts.KUBERNETES, chart, *(["--values", file] if file else []))


SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


@functools.cache
def definitions(version):
    """The parts that the schemas of a version of Kubernetes refer to. Read once: they are large."""
    return Resource.from_contents(json.loads((SCHEMAS / f"v{version}.0-local-strict" / "_definitions.json").read_text())) @ Registry()


@functools.cache
def validator(kind, api, version):
    """What accepts manifests of a kind; None where that version does not know the kind."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    file = SCHEMAS / f"v{version}.0-local-strict" / f"{kind.lower()}-{group}.json"
    return Draft202012Validator(json.loads(file.read_text()), registry=definitions(version)) if file.exists() else None


@functools.cache
def fault(manifest, version):
    """What a version of Kubernetes has against a manifest, given as JSON."""
    one = json.loads(manifest)
    accepts = validator(one["kind"], one["apiVersion"], version)
    if accepts is None:
        return None if one["kind"] in CUSTOM else f"{one['apiVersion']} {one['kind']} does not exist"
    return "\n".join(f"{'.'.join(map(str, error.path))}: {error.message}" for error in accepts.iter_errors(one)) or None


@every_case
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_every_manifest(case, version):
    for one in charts.render(*case):
        found = fault(json.dumps(one, sort_keys=True), version)
        assert found is None, f"{charts.label(one)}: {found}"


@every_case
def test_manifests_belong_together(case):
    objects = charts.render(*case)
    names = [charts.label(one) for one in objects]
    assert len(names) == len(set(names)), "an object is rendered twice"
    pods = charts.pods(objects)
    labels = [pod["metadata"]["labels"] for _, pod in pods]
    for owner, pod in pods:
        assert charts.selects(owner["spec"]["selector"]["matchLabels"], pod["metadata"]["labels"]), charts.label(owner)
        others = [
            charts.label(other)
            for other, _ in pods
            if other is not owner and charts.selects(owner["spec"]["selector"]["matchLabels"], _["metadata"]["labels"])
        ]
        assert not others, f"{charts.label(owner)} also selects the pods of {others}"
        check_pod(owner, pod)
    for one in objects:
        kind, spec = one["kind"], one.get("spec", {})
        if kind == "Service":
            ports = [(port["port"], port["protocol"]) for port in spec["ports"]]
            assert len(ports) == len(set(ports)) and len({port["name"] for port in spec["ports"]}) == len(ports), charts.label(one)
            chosen = [pod for _, pod in pods if charts.selects(spec["selector"], pod["metadata"]["labels"])]
            assert chosen, f"{charts.label(one)} selects no pod"
            if "gossip-ring" not in one["metadata"]["name"]:
                assert len(chosen) == 1 or "zone" in chosen[0]["metadata"]["labels"], (
                    f"{charts.label(one)} selects pods of several workloads"
                )
            for pod in chosen:
                check_ports(one, pod)
        if kind == "PodDisruptionBudget":
            assert any(charts.selects(spec["selector"]["matchLabels"], pod) for pod in labels), charts.label(one)
        if kind == "HorizontalPodAutoscaler":
            target = charts.find(objects, spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
            assert "replicas" not in target["spec"], f"{charts.label(target)} has replicas besides its autoscaler"
            assert spec["metrics"]
        if kind == "ServiceMonitor":
            check_monitor(one, objects)
        if kind == "Ingress":
            for rule in spec["rules"]:
                for path in rule["http"]["paths"]:
                    check_backend(path["backend"]["service"]["name"], path["backend"]["service"]["port"]["number"], objects)
        if kind == "HTTPRoute":
            for rule in spec["rules"]:
                for backend in rule["backendRefs"]:
                    check_backend(backend["name"], backend["port"], objects)


def check_pod(owner, pod):
    spec = pod["spec"]
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    volumes |= {claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", [])}
    for one in spec["containers"] + spec.get("initContainers", []):
        mounts = [mount["mountPath"] for mount in one.get("volumeMounts", [])]
        assert len(mounts) == len(set(mounts)), f"{charts.label(owner)}: two volumes at one place"
        missing = {mount["name"] for mount in one.get("volumeMounts", [])} - volumes
        assert not missing, f"{charts.label(owner)} mounts {missing}, which is no volume"
        if one["name"] in ("sidecar", "wait"):
            continue  # of the values
        security = {**spec["securityContext"], **one["securityContext"]}
        assert security["runAsNonRoot"] and not security["allowPrivilegeEscalation"] and security["readOnlyRootFilesystem"], one["name"]
        assert security["capabilities"] == {"drop": ["ALL"]}, one["name"]
    main = spec["containers"][0]
    if main["name"] not in ("nginx", "memcached", "minio"):
        assert main["readinessProbe"]["httpGet"]["path"] == "/ready"
        stop = re.search(r"graceful-shutdown-timeout=(\d+)s", " ".join(main["args"]))
        delay = re.search(r"shutdown-delay=(\d+)s", " ".join(main["args"]))
        needed = int(stop[1]) + (int(delay[1]) if delay else 0)
        assert needed < spec["terminationGracePeriodSeconds"], f"{charts.label(owner)} is killed before it has ended"


def check_ports(service, pod):
    known = {port.get("name"): port for one in pod["spec"]["containers"] for port in one.get("ports", [])}
    for port in service["spec"]["ports"]:
        target = port["targetPort"]
        if service["metadata"]["name"].endswith("memcached") and target == "http-metrics" and target not in known:
            continue  # The exporter's port stays in the Service without it, as in the reference.
        if isinstance(target, str):
            assert target in known, f"{charts.label(service)} leads to port {target}, which no container has"
            assert known[target]["protocol"] == port["protocol"]
        else:
            assert any(own["containerPort"] == target for one in pod["spec"]["containers"] for own in one["ports"]), charts.label(service)


def check_monitor(monitor, objects):
    selector = monitor["spec"]["selector"]
    chosen = [
        one
        for one in objects
        if one["kind"] == "Service"
        and charts.selects(selector["matchLabels"], one["metadata"]["labels"])
        and one["metadata"]["labels"].get("prometheus.io/service-monitor") != "false"
    ]
    for endpoint in monitor["spec"]["endpoints"]:
        scraped = [charts.label(one) for one in chosen if endpoint["port"] in {port["name"] for port in one["spec"]["ports"]}]
        assert len(scraped) == 1, f"{charts.label(monitor)} scrapes {scraped}: each pod once"


def check_backend(name, number, objects):
    service = charts.find(objects, "Service", name)
    assert number in {port["port"] for port in service["spec"]["ports"]}, f"{charts.label(service)} has no port {number}"


# What -config.verify advises beyond that the configuration is valid; it then ends with status 1.
ADVICE = ("local folders are not shared between processes", "are Tempo's older form; move")


@every_case
def test_vivace_accepts_the_configuration(case, tmp_path):
    chart, file = case
    objects = charts.render(*case)
    text = charts.config(objects)
    if text is None:
        assert file.stem == "external-config"
        return
    (tmp_path / "tempo.yaml").write_text(text)
    runtime = next(one["data"]["overrides.yaml"] for one in objects if "overrides.yaml" in (one.get("data") or {}))
    (tmp_path / "overrides.yaml").write_text(runtime)
    seen = set()
    for owner, pod in charts.pods(objects):
        for one in pod["spec"]["containers"]:
            if one["name"] not in [*harness.SERVICES, "tempo"]:
                continue
            seen.add(one["name"])
            arguments = [argument.replace("/conf/tempo.yaml", str(tmp_path / "tempo.yaml")) for argument in one["args"]]
            verified = subprocess.run(
                [harness.binaries() / "vivace", *arguments, "-config.verify=true"],
                capture_output=True,
                text=True,
                check=False,
                env={"S3_ACCESS": "a", "S3_SECRET": "b"},
            )
            said = verified.stdout + verified.stderr
            if file and file.stem == "tls":
                # Rendered all the same, for the day that Vivace speaks TLS.
                assert verified.returncode == 1 and "server.grpc_tls_config: is not supported yet" in said, said
                continue
            assert "did you mean" not in said, said
            remarks = [
                line
                for line in said.splitlines()
                if line and "without effect" not in line and not any(advice in line for advice in [*ADVICE, "a start would fail"])
            ]
            assert remarks in (["the configuration is valid"], ["the configuration has warnings"]), f"{charts.label(owner)}: {said}"
    assert seen >= ({"tempo"} if chart == SINGLE else {"distributor", "ingester", "querier", "query-frontend", "compactor"})
    checked = subprocess.run(
        [harness.binaries() / "vivace-cli", "config", "check-overrides", tmp_path / "overrides.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("chart", "name", "files"),
    [
        (DISTRIBUTED, "defaults", []),
        (DISTRIBUTED, "seed", [values_file("seed")]),
        (SINGLE, "defaults", []),
    ],
    ids=["vivace-distributed:defaults", "vivace-distributed:seed", "vivace:defaults"],
)
def test_golden(chart, name, files):
    """Run scripts/chart_golden.py after a change that is meant, and read the difference."""
    golden = chart / "testdata" / "golden" / f"{name}.yaml"
    assert charts.rendered(chart, *files) == golden.read_text(), "differs from the golden file; scripts/chart_golden.py writes it anew"


def test_what_is_derived_from_the_values_is_current():
    subprocess.run([sys.executable, tools.ROOT / "scripts" / "chart_values.py", "--check"], check=True)
    shared = "templates/_unknown-keys.tpl"
    assert (SINGLE / shared).read_text() == (DISTRIBUTED / shared).read_text(), f"{shared} differs between the charts"


def test_names_of_the_seed():
    objects = charts.render(DISTRIBUTED, values_file("seed"))
    expected = {
        *("Deployment/tempo-" + name for name in ("compactor", "distributor", "minio", "querier", "query-frontend")),
        *("StatefulSet/tempo-" + name for name in ("ingester", "memcached")),
        *(
            "Service/tempo-" + name
            for name in ("compactor", "distributor", "distributor-discovery", "gossip-ring", "ingester", "ingester-discovery")
        ),
        *(
            "Service/tempo-" + name
            for name in ("memcached", "minio", "minio-console", "querier", "query-frontend", "query-frontend-discovery")
        ),
        *("ConfigMap/tempo-config", "ConfigMap/tempo-runtime", "ServiceAccount/tempo", "PodDisruptionBudget/tempo-ingester"),
        *("Secret/tempo-minio", "PersistentVolumeClaim/tempo-minio", "Pod/tempo-test-round-trip"),
    }
    assert {charts.label(one) for one in objects} == expected
    assert all(one["metadata"]["namespace"] == "observability" for one in objects)
    assert charts.find(objects, "StatefulSet", "tempo-ingester")["spec"]["replicas"] == 3
    assert charts.find(objects, "PodDisruptionBudget", "tempo-ingester")["spec"]["maxUnavailable"] == 1
    for name in ("distributor", "ingester", "querier", "query-frontend", "compactor"):
        kind = "StatefulSet" if name == "ingester" else "Deployment"
        assert charts.container(objects, kind, f"tempo-{name}")["name"] == name
    secret = charts.find(objects, "Secret", "tempo-minio")["data"]
    assert secret == {"rootUser": "Z3JhZmFuYS10ZW1wbw==", "rootPassword": "c3VwZXJzZWNyZXQ="}
    init = charts.find(objects, "Deployment", "tempo-minio")["spec"]["template"]["spec"]["initContainers"][0]
    assert [mount["subPath"] for mount in init["volumeMounts"]] == ["tempo-traces"]


def ports(objects, service):
    return {port["name"]: port["port"] for port in charts.find(objects, "Service", service)["spec"]["ports"]}


def test_ports_of_the_seed():
    objects = charts.render(DISTRIBUTED, values_file("seed"))
    assert ports(objects, "tempo-query-frontend") == {"http-metrics": 3200, "http-3100": 3100, "grpc": 9095}
    assert ports(objects, "tempo-query-frontend-discovery") == {"http": 3200, "grpc": 9095, "grpclb": 9096}
    otlp = {"grpc-distributor-otlp": 4317, "distributor-otlp-http": 4318, "distributor-otlp-legacy": 55680}
    assert ports(objects, "tempo-distributor") == {"http-metrics": 3200, "http-3100": 3100, "grpc": 9095, **otlp}
    assert ports(objects, "tempo-distributor-discovery") == {"http-metrics": 3200, **otlp}
    assert ports(objects, "tempo-gossip-ring") == {"gossip-ring": 7946}
    assert ports(objects, "tempo-minio") == {"http": 9000}
    assert ports(objects, "tempo-memcached") == {"memcached-client": 11211, "http-metrics": 9150}
    discovery = charts.find(objects, "Service", "tempo-query-frontend-discovery")["spec"]
    assert discovery["clusterIP"] == "None" and discovery["publishNotReadyAddresses"]


def test_ports_follow_the_listener():
    """Of old values with 3100, of a new port in the values, and of one in the configuration itself."""
    for values, listens in [
        ("{server: {httpListenPort: 3100}}", 3100),
        ("{server: {httpListenPort: 8080}}", 8080),
        ("{tempo: {structuredConfig: {server: {http_listen_port: 8080}}}}", 8080),
    ]:
        objects = charts.render(DISTRIBUTED, values=values)
        named = {port["name"]: port["containerPort"] for port in charts.container(objects, "Deployment", "tempo-query-frontend")["ports"]}
        assert named["http-metrics"] == listens
        assert set(ports(objects, "tempo-query-frontend").values()) == {listens, 3200, 3100, 9095}
        assert yaml.safe_load(charts.config(objects))["server"]["http_listen_port"] == listens


@pytest.mark.parametrize(
    ("release", "values", "prefix"),
    [
        ("tempo", "{}", "tempo"),
        ("my", "{}", "my-tempo"),
        ("grafana-tempo", "{}", "grafana-tempo"),
        ("my", "{fullnameOverride: traces}", "traces"),
        ("my", "{nameOverride: spans}", "my-spans"),
    ],
)
def test_prefix_of_names(release, values, prefix):
    objects = charts.render(DISTRIBUTED, release=release, values=values)
    distributor = charts.find(objects, "Deployment", f"{prefix}-distributor")
    name = "spans" if "nameOverride: spans" in values else "tempo"
    assert distributor["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": "distributor",
    }
    parsed = yaml.safe_load(charts.config(objects))
    assert parsed["memberlist"]["join_members"] == [f"dns+{prefix}-gossip-ring:7946"]
    assert parsed["querier"]["frontend_worker"]["frontend_address"] == f"{prefix}-query-frontend-discovery:9095"
    assert charts.find(charts.render(SINGLE, release=release, values=values), "StatefulSet", prefix)


def test_what_kubernetes_cannot_change_is_the_references():
    """Selectors, serviceName, podManagementPolicy and volume claim templates: with these `helm upgrade` from Tempo's chart works."""
    objects = charts.render(
        DISTRIBUTED, values_file("scaled"), values="{metricsGenerator: {enabled: true, kind: StatefulSet, persistence: {enabled: true}}}"
    )

    def selector(component):
        return {"app.kubernetes.io/name": "tempo", "app.kubernetes.io/instance": "tempo", "app.kubernetes.io/component": component}

    for name in ("distributor", "querier", "query-frontend", "compactor"):
        assert charts.find(objects, "Deployment", f"tempo-{name}")["spec"]["selector"] == {"matchLabels": selector(name)}
    for name, service, claim in [
        ("ingester", "ingester", "data"),
        ("memcached", "memcached", None),
        ("metrics-generator", "metrics-generator", "wal"),
    ]:
        spec = charts.find(objects, "StatefulSet", f"tempo-{name}")["spec"]
        assert spec["selector"] == {"matchLabels": selector(name)}
        assert spec["serviceName"] == service
        assert spec.get("podManagementPolicy") == (None if name == "memcached" else "Parallel")
        assert [one["metadata"]["name"] for one in spec.get("volumeClaimTemplates", [])] == ([claim] if claim else [])
    (claim,) = charts.find(objects, "StatefulSet", "tempo-ingester")["spec"]["volumeClaimTemplates"]
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "20Gi"}}}
    minio = charts.find(charts.render(DISTRIBUTED, values_file("seed")), "Deployment", "tempo-minio")
    assert minio["spec"]["selector"] == {"matchLabels": {"app": "minio", "release": "tempo"}}
    single = charts.find(charts.render(SINGLE, values="{persistence: {enabled: true}}"), "StatefulSet", "tempo")["spec"]
    assert single["selector"] == {"matchLabels": {"app.kubernetes.io/name": "tempo", "app.kubernetes.io/instance": "tempo"}}
    assert [one["metadata"]["name"] for one in single["volumeClaimTemplates"]] == ["storage"]


def test_zones():
    objects = charts.render(DISTRIBUTED, values_file("zones"))
    for zone in ("zone-a", "zone-b", "zone-c"):
        one = charts.find(objects, "StatefulSet", f"tempo-ingester-{zone}")
        assert one["spec"]["replicas"] == 3, "seven over three zones"
        assert one["spec"]["updateStrategy"] == {"type": "OnDelete"}
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert (labels["name"], labels["rollout-group"], labels["zone"]) == (f"ingester-{zone}", "ingester", zone)
        assert f"-ingester.availability-zone={zone}" in one["spec"]["template"]["spec"]["containers"][0]["args"]
        assert charts.find(objects, "Service", f"tempo-ingester-{zone}")
    assert yaml.safe_load(charts.config(objects))["ingester"]["lifecycler"]["ring"]["zone_awareness_enabled"] is True
    assert (
        charts.find(objects, "StatefulSet", "tempo-ingester-zone-a")["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "a"
    )
    with pytest.raises(Refused, match="ingester.zoneAwareReplication.zones: expected at least 3 zones; got 1"):
        charts.render(DISTRIBUTED, values="{ingester: {zoneAwareReplication: {enabled: true, zones: [{name: a}]}}}")


def limits(values, chart=DISTRIBUTED):
    """(`overrides` of the configuration, the tenants' limits)"""
    objects = charts.render(chart, values=values)
    tenants = next(one["data"]["overrides.yaml"] for one in objects if "overrides.yaml" in (one.get("data") or {}))
    return yaml.safe_load(charts.config(objects))["overrides"], yaml.safe_load(tenants)["overrides"]


def test_both_generations_of_limits():
    path = {"per_tenant_override_config": "/runtime-config/overrides.yaml"}
    tenant = {"team-a": {"max_traces_per_user": 5}}
    newer = "{overrides: {defaults: {ingestion: {rate_limit_bytes: 7}}}, per_tenant_overrides: {team-a: {max_traces_per_user: 5}}}"
    assert limits(newer) == ({**path, "defaults": {"ingestion": {"rate_limit_bytes": 7}}}, tenant)
    older = "{global_overrides: {ingestion_rate_limit_bytes: 7}, overrides: {team-a: {max_traces_per_user: 5}}}"
    assert limits(older) == ({**path, "ingestion_rate_limit_bytes": 7}, tenant)
    assert limits("{overrides: {team-a: {max_traces_per_user: 5}}}") == (path, tenant)
    assert limits("{overrides: {ingestion_rate_limit_bytes: 7}}") == ({**path, "ingestion_rate_limit_bytes": 7}, {})
    assert limits("{overrides: {per_tenant_override_config: /other.yaml}}") == ({"per_tenant_override_config": "/other.yaml"}, {})
    assert limits("{}") == (path, {})
    single = {"per_tenant_override_config": "/conf/overrides.yaml"}
    assert limits("{tempo: {overrides: {team-a: {max_traces_per_user: 5}}}}", SINGLE) == (single, tenant)
    assert limits("{tempo: {overrides: {defaults: {read: {max_search_duration: 1h}}}}}", SINGLE) == (
        {**single, "defaults": {"read": {"max_search_duration": "1h"}}},
        {},
    )


def checksums(values):
    objects = charts.render(DISTRIBUTED, values_file("generator"), values=values)
    return {pod["spec"]["containers"][0]["name"]: pod for _, pod in charts.pods(objects)}


@pytest.mark.parametrize(
    ("values", "rolled"),
    [
        ("{per_tenant_overrides: {a: {ingestion: {rate_limit_bytes: 9}}}}", set()),
        ("{overrides: {defaults: {read: {max_search_duration: 1h}}}}", {"query-frontend", "querier"}),
        ("{overrides: {defaults: {ingestion: {rate_limit_bytes: 9}}}}", {"distributor", "ingester"}),
        ("{overrides: {defaults: {compaction: {block_retention: 9h}}}}", {"compactor"}),
        ("{compactor: {config: {compaction: {block_retention: 9h}}}}", {"compactor"}),
        ("{queryFrontend: {config: {max_retries: 9}}}", {"query-frontend"}),
        ("{ingester: {config: {max_block_duration: 9m}}}", {"ingester"}),
        ("{ingester: {config: {replication_factor: 2}}}", {"ingester", "distributor", "querier"}),
        ("{distributor: {replicas: 5}}", set()),
        ("{server: {logLevel: debug}}", {"distributor", "ingester", "querier", "query-frontend", "compactor", "metrics-generator"}),
    ],
)
def test_a_change_rolls_only_what_it_concerns(values, rolled):
    before, after = checksums("{}"), checksums(values)
    assert {name for name in before if before[name] != after[name]} == rolled


def test_probes():
    objects = charts.render(DISTRIBUTED, values_file("generator"))
    for _, pod in charts.pods(objects):
        main = pod["spec"]["containers"][0]
        if main["name"] == "memcached":
            continue
        assert main["livenessProbe"]["httpGet"]["path"] == "/status/version", "a pod that is not ready must not be killed"
        assert main["startupProbe"]["httpGet"]["path"] == "/status/version"
        assert main["startupProbe"]["periodSeconds"] * main["startupProbe"]["failureThreshold"] >= 1800, "a log is replayed in that time"


def test_surge_where_nodes_may_hold_two():
    objects = charts.render(DISTRIBUTED, values_file("replicas"))
    assert charts.find(objects, "Deployment", "tempo-distributor")["spec"]["strategy"] == {
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}
    }
    assert charts.find(objects, "Deployment", "tempo-query-frontend")["spec"]["strategy"] == {
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}
    }
    assert charts.find(objects, "Deployment", "tempo-querier")["spec"]["strategy"] == {"type": "Recreate"}


def test_disruption_budgets():
    budgets = {
        one["metadata"]["name"]: one["spec"]["maxUnavailable"]
        for one in charts.render(DISTRIBUTED, values_file("replicas"))
        if one["kind"] == "PodDisruptionBudget"
    }
    assert budgets == {"tempo-distributor": 1, "tempo-ingester": 1, "tempo-querier": 1, "tempo-query-frontend": "50%", "tempo-memcached": 1}


def image(values, name="distributor"):
    return charts.container(charts.render(DISTRIBUTED, values=values), "Deployment", f"tempo-{name}")["image"]


def test_images():
    version = yaml.safe_load((DISTRIBUTED / "Chart.yaml").read_text())["appVersion"]
    assert image("{}") == f"vivace:{version}"
    assert image("{tempo: {image: {registry: r.example.com, tag: 1.0.0}}}") == "r.example.com/vivace:1.0.0"
    assert (
        image("{global: {image: {registry: g.example.com}}, tempo: {image: {registry: r.example.com}}}")
        == f"g.example.com/vivace:{version}"
    )
    assert image("{distributor: {image: {repository: own, tag: '2'}}}") == "own:2"
    assert (
        image("{distributor: {image: {repository: r.example.com/own, tag: '2'}}, global: {image: {registry: g.example.com}}}")
        == "r.example.com/own:2"
    )
    reference = "{global: {image: {registry: docker.io}}, tempo: {image: {registry: r.example.com}}, minio: {enabled: true, image: {repository: quay.io/minio/minio, tag: '1'}}}"
    assert image(reference) == f"r.example.com/vivace:{version}", "docker.io is but the reference's default"
    assert image(reference, "minio") == "quay.io/minio/minio:1"
    assert image("{tempo: {image: {perComponent: true}}}", "query-frontend") == f"vivace-query-frontend:{version}"
    assert image("{tempo: {image: {tag: 'sha256:abc'}}}") == "vivace@sha256:abc"
    assert image("{tempo: {image: {repository: grafana/tempo, tag: 2.9.0}}}") == f"vivace:{version}", "Tempo's image is not Vivace"


def test_external_configuration():
    objects = charts.render(DISTRIBUTED, values_file("external-config"))
    assert charts.config(objects) is None
    pod = charts.find(objects, "Deployment", "tempo-querier")["spec"]["template"]
    assert pod["metadata"]["annotations"]["checksum/config"] == "7"
    assert pod["spec"]["volumes"][:2] == [
        {"name": "config", "secret": {"secretName": "own-config"}},
        {"name": "runtime-config", "configMap": {"name": "own-limits"}},
    ]


def test_inner_configuration_wins_and_is_a_template():
    parsed = yaml.safe_load(charts.config(charts.render(DISTRIBUTED, values_file("extras"))))
    assert parsed["query_frontend"]["search"]["max_duration"] == "72h" and parsed["query_frontend"]["max_retries"] == 2
    assert parsed["storage"]["trace"]["s3"] == {"bucket": "tempo-bucket", "endpoint": "s3.example.com"}


def test_effective_configuration_of_the_seed():
    parsed = yaml.safe_load(charts.config(charts.render(DISTRIBUTED, values_file("seed"))))
    assert parsed["distributor"]["receivers"] == {
        "otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}, "http": {"endpoint": "0.0.0.0:4318"}}}
    }
    assert parsed["ingester"]["lifecycler"]["ring"] == {"kvstore": {"store": "memberlist"}, "replication_factor": 3}
    assert parsed["ingester"]["flush_all_on_shutdown"] is True, "or scaling down would lose spans"
    assert parsed["memberlist"]["cluster_label"] == "tempo.observability"
    assert parsed["compactor"]["compaction"]["block_retention"] == "48h"
    trace = parsed["storage"]["trace"]
    assert (trace["backend"], trace["wal"]["path"], trace["blocklist_poll"]) == ("s3", "/var/tempo/wal", "5m"), "/tmp cannot be written"
    assert trace["s3"] == {
        "bucket": "tempo-traces",
        "endpoint": "tempo-minio:9000",
        "access_key": "grafana-tempo",
        "secret_key": "supersecret",
        "insecure": True,
        "tls_insecure_skip_verify": True,
    }
    assert parsed["cache"]["caches"][0]["memcached"]["host"] == "tempo-memcached"


@pytest.mark.parametrize(
    ("chart", "values", "words"),
    [
        (DISTRIBUTED, "{distributor: {replicas: many}}", "at '/distributor/replicas': got string, want"),
        (DISTRIBUTED, "{distributor: {extraArgs: -log.level=debug}}", "at '/distributor/extraArgs': got string, want"),
        (
            DISTRIBUTED,
            "{storage: {trace: {backend: S3}}}",
            "at '/storage/trace/backend': value must be one of 'local', 's3', 'gcs', 'azure'",
        ),
        (
            DISTRIBUTED,
            "{querier: {config: {search: {query_timeout: soon}}}}",
            "at '/querier/config/search/query_timeout': 'soon' does not match",
        ),
        (DISTRIBUTED, "{ingester: {persistence: {enabled: yes please}}}", "at '/ingester/persistence/enabled': got string, want"),
        (DISTRIBUTED, "{ingester: {config: {replication_factor: 0}}}", "at '/ingester/config/replication_factor': minimum: got 0, want 1"),
        (DISTRIBUTED, "{traces: {otlp: []}}", "at '/traces/otlp': got array, want"),
        (DISTRIBUTED, "{minio: {enabled: true, mode: distributed}}", 'minio.mode: expected "standalone"'),
        (DISTRIBUTED, "{enterprise: {enabled: true}}", "enterprise.enabled: expected false"),
        (
            DISTRIBUTED,
            "{querier: {autoscaling: {enabled: true, minReplicas: 5}}}",
            r"querier.autoscaling.maxReplicas: expected at least minReplicas \(5\); got 3",
        ),
        (DISTRIBUTED, "{gateway: {enabled: true, ingress: {enabled: true}}, ingress: {enabled: true}}", "ingress.enabled: expected false"),
        (DISTRIBUTED, "{gateway: {enabled: true, basicAuth: {enabled: true}}}", "gateway.basicAuth.username: is not set"),
        (DISTRIBUTED, "{config: '{a: [}'}", "config: is not YAML once its templates are filled in"),
        (SINGLE, "{replicas: one}", "at '/replicas': got string, want"),
        (SINGLE, "{tempo: {pullPolicy: sometimes}}", "at '/tempo/pullPolicy': value must be one of"),
        (SINGLE, "{config: '{a: [}'}", "config: is not YAML once its templates are filled in"),
    ],
)
def test_wrong_values_fail_with_their_path(chart, values, words):
    with pytest.raises(Refused, match=words):
        charts.render(chart, values=values)


@every_case
def test_no_key_of_the_reference_is_unknown(case, tmp_path):
    chart, file = case
    meant = file and file.stem == "unread-keys"
    assert ("nothing reads" in charts.notes(chart, tmp_path, "{}", *([file] if file else []))) == bool(meant)


def test_unknown_keys_are_listed_with_the_nearest(tmp_path):
    said = charts.notes(
        DISTRIBUTED,
        tmp_path,
        "{distributer: {replicas: 2}, ingester: {config: {replicationFactor: 3}, persistance: {enabled: true}}, zzz: 1, global: {own: 1}, distributor: {podLabels: {own: a}}}",
    )
    assert said[said.index("nothing reads:") :].splitlines()[1:] == [
        "  distributer (did you mean distributor?)",
        "  ingester.config.replicationFactor (did you mean ingester.config.replication_factor?)",
        "  ingester.persistance (did you mean ingester.persistence?)",
        "  zzz",
    ]
    said = charts.notes(SINGLE, tmp_path, "{tempo: {retentoin: 1h}}")
    assert "  tempo.retentoin (did you mean tempo.retention?)" in said.splitlines()


def test_notes_warn(tmp_path):
    assert "WARNING: storage.trace.backend is local" in charts.notes(DISTRIBUTED, tmp_path)
    assert "WARNING" not in charts.notes(DISTRIBUTED, tmp_path, "{}", values_file("seed"))
    assert "The values name Tempo's own image for distributor, ingester" in charts.notes(
        DISTRIBUTED, tmp_path, "{}", values_file("tempo-image")
    )
    assert "zone=zone-b" in charts.notes(DISTRIBUTED, tmp_path, "{}", values_file("zones"))
    assert "WARNING: 1 ingesters cannot hold 3 copies" in charts.notes(DISTRIBUTED, tmp_path, "{ingester: {replicas: 1}}")
    assert "WARNING: neither persistence.enabled nor a bucket" in charts.notes(SINGLE, tmp_path)


def test_notes_speak_of_what_was_set(tmp_path):
    """Nothing is said of defaults; what the values switch on and Vivace does not have is named."""
    for chart in (DISTRIBUTED, SINGLE):
        assert "Without effect" not in charts.notes(chart, tmp_path / "defaults")
    assert "jaeger" not in charts.config(charts.render(SINGLE))
    said = charts.notes(SINGLE, tmp_path / "single", "{}", values_file("text", SINGLE))
    assert "tempo.receivers.opencensus" in said
    processors = "[span-metrics, service-graphs, local-blocks, host-info]"
    said = charts.notes(SINGLE, tmp_path / "graphs", f"{{tempo: {{overrides: {{defaults: {{metrics_generator: {{processors: {processors}}}}}}}}}}}")
    assert "Without effect" not in said
    said = charts.notes(DISTRIBUTED, tmp_path / "generator", "{memcached: {replicas: 3}}", values_file("generator"))
    assert "memcached" in said and "service-graphs" not in said and "span-metrics" not in said


def test_jaegers_query_api_is_served_where_tempo_query_stood(tmp_path):
    """By the processes themselves: no second container, and the port's old name."""
    objects = charts.render(DISTRIBUTED, values="{queryFrontend: {query: {enabled: true}, ingress: {enabled: true}}}")
    assert yaml.safe_load(charts.config(objects))["query_frontend"]["jaeger"] == {"enabled": True}
    assert "jaeger" not in yaml.safe_load(charts.config(charts.render(DISTRIBUTED)))["query_frontend"]
    pod = charts.find(objects, "Deployment", "tempo-query-frontend")["spec"]["template"]["spec"]
    assert len(pod["containers"]) == 1
    assert {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}["jaeger-ui"] == 16686
    for service in ("tempo-query-frontend", "tempo-query-frontend-discovery"):
        assert {"tempo-query-jaeger-ui": 16686, "tempo-query-jaeger-grpc": 16685}.items() <= ports(objects, service).items()
    mine = "{queryFrontend: {query: {enabled: true}}, tempo: {structuredConfig: {query_frontend: {jaeger: {services_query_duration: 1h}}}}}"
    config = yaml.safe_load(charts.config(charts.render(DISTRIBUTED, values=mine)))
    assert config["query_frontend"]["jaeger"] == {"enabled": True, "services_query_duration": "1h"}

    objects = charts.render(SINGLE, values="{tempoQuery: {enabled: true, service: {port: 8080}}}")
    assert ports(objects, "tempo")["tempo-query-jaeger-ui"] == 8080
    pod = charts.find(objects, "StatefulSet", "tempo")["spec"]["template"]["spec"]
    assert len(pod["containers"]) == 1 and {"jaeger-ui", "jaeger-grpc"} <= {port.get("name") for port in pod["containers"][0]["ports"]}
    said = charts.notes(DISTRIBUTED, tmp_path, "{queryFrontend: {query: {enabled: true, extraArgs: [-a]}}}")
    assert "queryFrontend.query, but for enabled" in said


def test_what_the_reference_does_not_read_is_not_passed_on(tmp_path):
    objects = charts.render(DISTRIBUTED, values_file("unread-keys"))
    config = yaml.safe_load(charts.config(objects))
    assert "query_timeout" not in config["query_frontend"] and "local_blocks" not in config["metrics_generator"]
    assert config["query_frontend"]["search"]["max_spans_per_span_set"] == 100 and config["metrics_generator"]["storage"]["path"]
    said = charts.notes(DISTRIBUTED, tmp_path, "{}", values_file("unread-keys"))
    assert "queryFrontend.config.query_timeout" in said and "metricsGenerator.config.local_blocks" in said
    nothing = "{queryFrontend: {config: {search: null, metrics: null, trace_by_id: null, max_retries: null, max_outstanding_per_tenant: null}}}"
    assert yaml.safe_load(charts.config(charts.render(DISTRIBUTED, values=nothing)))["query_frontend"] is None


def test_limits_of_tenants_in_their_older_forms():
    objects = charts.render(DISTRIBUTED, values_file("before-1.0-defaults"))
    assert yaml.safe_load(charts.config(objects))["overrides"] == {"per_tenant_override_config": "/runtime-config/overrides.yaml"}
    limits = {"overrides": {"tenant-a": {"ingestion_rate_limit_bytes": 1000000}}}
    for chart, name, config in [(DISTRIBUTED, "before-1.20-text", "tempo-runtime"), (SINGLE, "text", "tempo")]:
        objects = charts.render(chart, values_file(name, chart))
        assert yaml.safe_load(charts.find(objects, "ConfigMap", config)["data"]["overrides.yaml"]) == limits
        assert list(yaml.safe_load(charts.config(objects))["overrides"]) == ["per_tenant_override_config"]
    for empty in ('""', '"overrides: {}"', '"overrides:"'):
        objects = charts.render(DISTRIBUTED, values=f"{{overrides: {empty}}}")
        assert yaml.safe_load(charts.find(objects, "ConfigMap", "tempo-runtime")["data"]["overrides.yaml"]) == {"overrides": {}}


def test_inside_another_chart(tmp_path):
    """As a dependency under the reference's name, or another: values below it, `global` shared, nothing of the parent's is unknown."""
    parent = tmp_path / "lgtm"
    (parent / "charts").mkdir(parents=True)
    (parent / "templates").mkdir()
    shutil.copytree(DISTRIBUTED, parent / "charts" / DISTRIBUTED.name)
    version = yaml.safe_load((DISTRIBUTED / "Chart.yaml").read_text())["version"]
    dependency = {"name": DISTRIBUTED.name, "alias": "tempo", "version": version}
    (parent / "Chart.yaml").write_text(
        yaml.safe_dump({"apiVersion": "v2", "name": "lgtm", "version": "1.0.0", "dependencies": [dependency]})
    )
    objects = charts.render(
        parent, release="obs", values="{tempo: {distributor: {replicas: 2}}, global: {image: {registry: r.example.com}, other: {chart: 1}}}"
    )
    distributor = charts.find(objects, "Deployment", "obs-tempo-distributor")
    assert distributor["spec"]["replicas"] == 2
    assert distributor["spec"]["template"]["spec"]["containers"][0]["image"].startswith("r.example.com/vivace:")


@pytest.mark.parametrize("files", [[], [values_file("monitoring")]], ids=["defaults", "monitoring"])
def test_prometheus_accepts_the_rules(files, tmp_path):
    rules = charts.find(charts.render(DISTRIBUTED, *files, values="{prometheusRule: {enabled: true}}"), "PrometheusRule", "tempo")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules["spec"]))
    checked = subprocess.run([tools.promtool(), "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    names = {rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]}
    assert "VivaceIngestersTooFew" in names and ("Own" in names) == bool(files)


def test_alerts_name_metrics_that_exist():
    sources = "\n".join(file.read_text() for file in (tools.ROOT / "crates").rglob("src/**/*.rs"))
    text = (DISTRIBUTED / "files" / "alerts.yaml").read_text()
    metrics = set(re.findall(r"\b(?:tempo|tempodb|vivace)_[a-z_]+(?=\{)", text))
    assert len(metrics) >= 8
    for metric in metrics:
        assert f'"{re.sub("_count$", "", metric)}"' in sources, f"no crate has {metric}"


def round_trip_container(chart=DISTRIBUTED, values="{}"):
    """The container that `helm test` runs; None without one."""
    found = [one for one in charts.render(chart, values=values) if one["kind"] == "Pod"]
    return found[0]["spec"]["containers"][0] if found else None


@pytest.mark.parametrize("chart", [DISTRIBUTED, SINGLE], ids=lambda chart: chart.name)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("multitenancy", [False, True], ids=["one-tenant", "tenants"])
def test_round_trip(chart, protocol, multitenancy, all_in_one):
    """What `helm test` runs, with the addresses of a process."""
    all_in_one.with_config(f"multitenancy_enabled: {str(multitenancy).lower()}\n").start()
    values = {
        (DISTRIBUTED, "http"): "{traces: {otlp: {http: {enabled: true}}}}",
        (DISTRIBUTED, "grpc"): "{traces: {otlp: {grpc: {enabled: true}}}}",
        (SINGLE, "http"): "{}",
        (SINGLE, "grpc"): "{tempo: {receivers: {otlp: {protocols: {http: null}}}}}",
    }[chart, protocol]
    port = all_in_one.otlp_http if protocol == "http" else all_in_one.otlp_grpc
    ran = run_round_trip(round_trip_container(chart, values)["command"], f"{protocol}://127.0.0.1:{port}", all_in_one.query.url)
    assert ran.returncode == 0 and "The trace was written and read back in " in ran.stdout, ran.stdout + ran.stderr
    assert " for tenant helm-test, " in ran.stdout and "3 of 3 spans" in ran.stdout, ran.stdout


def test_round_trip_says_which_step_failed(all_in_one):
    all_in_one.start()
    command = round_trip_container(values="{tests: {timeoutSeconds: 5}}")["command"]
    (nobody,) = harness.free_ports(1)
    ran = run_round_trip(command, f"http://127.0.0.1:{nobody}", all_in_one.query.url)
    assert ran.returncode == 1 and f"error: write failed, 5s are over: cannot reach http://127.0.0.1:{nobody}: " in ran.stderr, ran.stderr
    # A distributor's address where the query-frontend's belongs.
    taker = f"http://127.0.0.1:{all_in_one.otlp_http}"
    ran = run_round_trip(command, taker, taker)
    assert ran.returncode == 1 and "error: read by id failed, 5s are over: not found (404)\n" in ran.stderr, ran.stderr


def run_round_trip(command, write, read):
    """The pod's command with other addresses."""
    assert command[0] == "/usr/bin/vivace-cli"
    addresses = {"--write": write, "--read": read}
    parted = [one.partition("=") for one in command[1:]]
    other = [f"{key}={addresses[key]}" if key in addresses else key + sign + value for key, sign, value in parted]
    return subprocess.run(
        [harness.binaries() / "vivace-cli", *other], capture_output=True, text=True, check=False, env=charts.without_environment()
    )


def test_round_trip_pod():
    def options(chart, values):
        return dict(one.removeprefix("--").split("=") for one in round_trip_container(chart, values)["command"][3:])

    fixed = {"org-id": "helm-test", "within": "60s"}
    read = {**fixed, "read": "http://tempo-query-frontend:3200"}
    assert options(DISTRIBUTED, "{}") == {**read, "write": "http://tempo-distributor-discovery:4318"}
    assert options(DISTRIBUTED, "{traces: {otlp: {http: {enabled: true}}}}") == {**read, "write": "http://tempo-distributor:4318"}
    assert options(DISTRIBUTED, "{traces: {otlp: {grpc: {enabled: true}}}}") == {**read, "write": "grpc://tempo-distributor:4317"}
    assert round_trip_container(values="{traces: {zipkin: {enabled: true}}}") is None
    assert round_trip_container(values="{tests: {enabled: false}}") is None
    read = {**fixed, "read": "http://tempo:3200"}
    assert options(SINGLE, "{}") == {**read, "write": "http://tempo:4318"}
    assert options(SINGLE, "{tempo: {receivers: {otlp: {protocols: {http: null}}}}}") == {**read, "write": "grpc://tempo:4317"}
    unnamed = {"write": "http://tempo:4318", "read": "http://tempo:3200", "within": "5s"}
    assert options(SINGLE, "{tests: {tenant: '', timeoutSeconds: 5}}") == unnamed


def test_round_trip_image():
    """Vivace's own, however the values name it, unless the test has one of its own."""
    version = yaml.safe_load((DISTRIBUTED / "Chart.yaml").read_text())["appVersion"]
    for values, wanted in [
        ("{}", f"vivace:{version}"),
        ("{tempo: {image: {registry: r.example.com, tag: 1.0.0}}}", "r.example.com/vivace:1.0.0"),
        ("{global: {image: {registry: g.example.com}}, tempo: {image: {registry: r.example.com}}}", f"g.example.com/vivace:{version}"),
        ("{tempo: {image: {perComponent: true}}}", f"vivace-cli:{version}"),
        ("{tempo: {image: {repository: grafana/tempo, tag: 2.9.0}}}", f"vivace:{version}"),
        ("{tempo: {image: {repository: own/vivace}}, tests: {image: {tag: '2'}}}", "own/vivace:2"),
        ("{tests: {image: {registry: t.example.com, repository: cli, tag: '2'}}}", "t.example.com/cli:2"),
    ]:
        assert round_trip_container(values=values)["image"] == wanted, values
    for values, wanted in [
        ("{}", f"vivace:{version}"),
        ("{tempo: {registry: r.example.com, tag: 1.0.0}}", "r.example.com/vivace:1.0.0"),
        ("{global: {imageRegistry: g.example.com}, tempo: {registry: r.example.com}}", f"g.example.com/vivace:{version}"),
        ("{tempo: {repository: grafana/tempo, tag: 2.9.0}}", f"vivace:{version}"),
        ("{tempo: {repository: own/vivace, pullPolicy: Never}, tests: {image: {tag: '2'}}}", "own/vivace:2"),
        ("{tests: {image: {registry: t.example.com, repository: cli, tag: '2'}}}", "t.example.com/cli:2"),
    ]:
        assert round_trip_container(SINGLE, values)["image"] == wanted, values
    assert round_trip_container(SINGLE, "{tempo: {pullPolicy: Never}}")["imagePullPolicy"] == "Never"


def test_recreation_for_another_size(tmp_path):
    """The job that lets a claim's size change; without a cluster nothing is looked up, so the answer is put in."""
    copy = tmp_path / "chart"
    shutil.copytree(DISTRIBUTED, copy)
    file = copy / "templates" / "ingester" / "recreation.yaml"
    found = 'dict "spec" (dict "replicas" 2 "volumeClaimTemplates" (list (dict "metadata" (dict "name" "data") "spec" (dict "resources" (dict "requests" (dict "storage" "10Gi"))))))'
    file.write_text(file.read_text().replace('lookup "apps/v1" "StatefulSet" $.Release.Namespace $name', found))
    persistence = {"enabled": True, "enableStatefulSetRecreationForSizeChange": True}
    job = charts.find(
        charts.render(copy, values=json.dumps({"ingester": {"persistence": {**persistence, "size": "20Gi"}}})),
        "Job",
        "tempo-ingester-recreation",
    )
    assert fault(json.dumps(job, sort_keys=True), "1.33") is None
    (one,) = job["spec"]["template"]["spec"]["containers"]
    version = yaml.safe_load((DISTRIBUTED / "Chart.yaml").read_text())["appVersion"]
    assert one["image"] == f"vivace:{version}", "no image of others"
    assert one["command"][1:] == [
        *("kubernetes", "enlarge-claims", "--namespace=observability", "--claim=data", "--size=20Gi", "--stateful-set=tempo-ingester=2")
    ]
    # The command line takes these options: it fails at the cluster that is not there.
    command = [harness.binaries() / "vivace-cli", *one["command"][1:], "--credentials", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and f"cannot read {tmp_path}/ca.crt" in ran.stderr, ran.stderr
    same = charts.render(copy, values=json.dumps({"ingester": {"persistence": persistence}}))
    assert not [one for one in same if one["kind"] == "Job"], "the same size needs nothing"


def test_rendering_is_repeatable():
    """What is rendered twice is the same, so that an upgrade without a change rolls nothing."""
    for case in (values_file("seed"), values_file("gateway-all"), values_file("extras")):
        first = charts.rendered(DISTRIBUTED, case)
        charts.rendered.cache_clear()
        assert charts.rendered(DISTRIBUTED, case) == first
