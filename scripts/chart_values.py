#!/usr/bin/env python3
"""Writes what is derived from a chart's values.yaml: values.schema.json (types and values, so that wrong ones fail with their path)
and files/known-values.json (the keys that exist, so that the notes can list those that do not).

    scripts/chart_values.py [--check]

A null default has its type here, as have values with few choices. Further keys, which the reference charts know and ours has no
default for, are listed in files/accepted-values.yaml of each chart.
"""

import json
import re
import sys
from pathlib import Path

import yaml

CHARTS = Path(__file__).resolve().parent.parent / "charts"

TEXT = {"type": ["string", "null"]}
FLAG = {"type": ["boolean", "null"]}
COUNT = {"type": ["integer", "null"], "minimum": 0}
MAP = {"type": ["object", "null"]}
LIST = {"type": ["array", "null"]}
ANY = {}
# Values of the configuration file may come from the environment: ${NAME}.
ENV = r"\$\{.+\}"
CONFIG_NUMBER = {"type": ["number", "string", "null"], "pattern": rf"^({ENV}|-?[0-9.]+)$"}
CONFIG_FLAG = {"type": ["boolean", "string", "null"], "pattern": rf"^({ENV}|true|false)$"}
DURATION = {"type": ["string", "integer", "null"], "pattern": rf"^({ENV}|0|-?([0-9.]+(ns|us|µs|ms|s|m|h|d|w|y))+)$"}
NUMBER_OR_SHARE = {"type": ["integer", "string", "null"], "pattern": "^([0-9]+%?)$"}
TEXT_OR_MAP = {"type": ["string", "object", "null"]}
TEXT_OR_LIST = {"type": ["string", "array", "null"]}
TAG = {"type": ["string", "number", "null"]}
PORT = {"type": ["integer", "null"], "minimum": 1, "maximum": 65535}
PORT_OR_TEXT = {"type": ["integer", "string", "null"], "pattern": "^[0-9]+$"}


def one_of(*values):
    return {"enum": [*values, None]}


# The first pattern that a path matches decides. `*` is one key, `**` any number.
TYPES = [
    ("**.pullPolicy", one_of("Always", "IfNotPresent", "Never")),
    ("**.image.tag", TAG),
    ("kubectlImage.tag", TAG),
    ("**.image.registry", TEXT),
    ("**.image.repository", TEXT),
    ("**.pullSecrets", LIST),
    ("**.service.type", one_of("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")),
    ("**.externalTrafficPolicy", one_of("Cluster", "Local")),
    ("**.internalTrafficPolicy", one_of("Cluster", "Local")),
    ("**.ipFamilyPolicy", one_of("SingleStack", "PreferDualStack", "RequireDualStack")),
    ("**.whenScaled", one_of("Retain", "Delete")),
    ("**.whenDeleted", one_of("Retain", "Delete")),
    ("configStorageType", one_of("ConfigMap", "Secret")),
    ("metricsGenerator.kind", one_of("Deployment", "StatefulSet")),
    ("**.storage.trace.backend", one_of("local", "s3", "gcs", "azure")),
    ("**.storage.trace.block.version", one_of("v2", "vParquet", "vParquet2", "vParquet3", "vParquet4", "vParquet5")),
    ("**.storage.trace.block.dedicated_columns", LIST),
    ("**.storage.trace.blocklist_poll", DURATION),
    ("**.storage.trace.blocklist_poll_stale_tenant_index", DURATION),
    ("**.storage.trace.empty_tenant_deletion_age", DURATION),
    ("**.storage.trace.blocklist_poll_concurrency", CONFIG_NUMBER),
    ("**.storage.trace.blocklist_poll_tenant_index_builders", CONFIG_NUMBER),
    ("**.storage.trace.*_enabled", CONFIG_FLAG),
    ("**.storage.trace.blocklist_poll_fallback", CONFIG_FLAG),
    ("server.httpListenPort", PORT),
    ("server.logLevel", one_of("debug", "info", "warn", "error")),
    ("server.logFormat", one_of("logfmt", "json")),
    ("**.http_listen_port", PORT),
    ("**.affinity", TEXT_OR_MAP),
    ("**.topologySpreadConstraints", TEXT_OR_LIST),
    ("**.maxUnavailable", NUMBER_OR_SHARE),
    ("**.targetCPUUtilizationPercentage", COUNT),
    ("**.targetMemoryUtilizationPercentage", COUNT),
    ("**.pollingInterval", COUNT),
    ("**.cooldownPeriod", COUNT),
    ("**.nodePort", COUNT),
    ("**.httpMetricsPort", PORT),
    ("minio.*.port", PORT_OR_TEXT),
    ("**.strategy", MAP),
    ("**.clusterIP", TEXT),
    ("**.tlsConfig", MAP),
    ("**.clusterLabel", {"type": ["string", "boolean", "null"]}),
    ("**.interval", TEXT),
    ("**.scrapeTimeout", TEXT),
    ("**.size", {"type": ["string", "integer", "null"]}),
    ("ingester.config.max_block_bytes", CONFIG_NUMBER),
    ("ingester.config.*_on_shutdown", CONFIG_FLAG),
    ("ingester.config.replication_factor", {"type": ["integer", "null"], "minimum": 1}),
    ("ingester.config.*", DURATION),
    ("distributor.config.log_received_traces", FLAG),
    ("distributor.config.extend_writes", FLAG),
    ("metricsGenerator.config.storage.wal", MAP),
    ("per_tenant_overrides", MAP),
    ("overrides", TEXT_OR_MAP),
    ("tempo.overrides", TEXT_OR_MAP),
    ("global_overrides", MAP),
    ("tempo.global_overrides", MAP),
    ("tempo.per_tenant_overrides", MAP),
    ("config", TEXT_OR_MAP),
    ("**.shutdownDelay", DURATION),
    ("externalConfigVersion", {"type": ["string", "number", "null"]}),
    ("tempo.memBallastSizeMbs", COUNT),
    ("**.fsGroup", COUNT),
    ("**.loadBalancerSourceRanges", LIST),
    ("**.hosts", LIST),
]
# Maps with keys of the user's choice, or of Kubernetes': nothing below them is checked here.
FREE = [
    "global", "**.annotations", "**.labels", "**.podLabels", "**.podAnnotations", "**.nodeSelector", "**.resources", "**.securityContext",
    "**.podSecurityContext", "**.containerSecurityContext", "**.livenessProbe", "**.readinessProbe", "**.startupProbe", "**.statefulStrategy",
    "**.lifecycle", "ingress.paths", "**.receivers", "tempo.ingester", "tempo.querier", "tempo.queryFrontend", "tempo.structuredConfig",
    "tempo.metricsGenerator.registry", "tempo.metricsGenerator.processor", "tempo.metricsGenerator.storage", "tempo.metricsGenerator.traces_storage",
    "tempo.storage.trace.*", "storage.trace.s3", "storage.trace.gcs", "storage.trace.azure", "metricsGenerator.config.registry",
    "metricsGenerator.config.processor", "**.memcached.config", "cache",
]  # fmt: skip
# Parts of values.yaml that become the configuration file: their numbers and switches may come from the environment.
CONFIG = ["*.config.**", "server.**", "memberlist.**", "storage.**", "tempo.server.**", "tempo.storage.**"]
DURATION_TEXT = re.compile(r"^([0-9.]+(ns|us|ms|s|m|h|d))+$")


def matches(path, pattern):
    expression = re.escape(pattern).replace(r"\*\*\.", r"(?:.+\.)?").replace(r"\.\*\*", r"(?:\..+)?").replace(r"\*", r"[^.]+")
    return re.fullmatch(expression, path) is not None


def is_any(path, patterns):
    return any(matches(path, pattern) for pattern in patterns)


def schema(value, path=""):
    for pattern, found in TYPES:
        if matches(path, pattern):
            return found
    in_config = is_any(path, CONFIG)
    match value:
        case dict():
            properties = {key: schema(inner, f"{path}.{key}" if path else key) for key, inner in value.items()}
            if path and (is_any(path, FREE) or not properties):
                return MAP
            return {"type": ["object", "null"], "properties": properties} if path else {"type": "object", "properties": properties}
        case bool():
            return CONFIG_FLAG if in_config else FLAG
        case int() | float():
            return CONFIG_NUMBER if in_config else COUNT
        case str() if in_config and DURATION_TEXT.match(value):
            return DURATION
        case str():
            return TEXT
        case list():
            return LIST
        case None if path.endswith(("Args", "Env", "EnvFrom")):
            return LIST
        case None:
            return TEXT
    raise TypeError(f"{path}: {value!r}")


def known(value, path=""):
    """The tree of keys; null where everything below is allowed."""
    if not isinstance(value, dict) or not value or (path and is_any(path, FREE)):
        return None
    return {key: known(inner, f"{path}.{key}" if path else key) for key, inner in value.items()}


def merged(tree, more):
    """`tree` with the keys of `more`."""
    if tree is None or more is None:
        return None
    return {key: merged(tree[key], more[key]) if key in tree and key in more else tree.get(key, more.get(key)) for key in {**tree, **more}}


def derived(chart):
    values = yaml.safe_load((chart / "values.yaml").read_text())
    accepted = yaml.safe_load((chart / "files" / "accepted-values.yaml").read_text())
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"Values of {chart.name}; written by scripts/chart_values.py"}
    yield chart / "values.schema.json", json.dumps({**head, **schema(values)}, indent=2, ensure_ascii=False) + "\n"
    tree = merged(known(values), accepted)
    yield chart / "files" / "known-values.json", json.dumps(tree, indent=1, sort_keys=True) + "\n"


def main():
    stale = []
    for chart in sorted(path.parent for path in CHARTS.glob("*/Chart.yaml")):
        for file, text in derived(chart):
            if not file.exists() or file.read_text() != text:
                stale.append(str(file.relative_to(CHARTS.parent)))
                if "--check" not in sys.argv:
                    file.write_text(text)
    if stale and "--check" in sys.argv:
        sys.exit(f"not written anew after a change of values.yaml: {', '.join(stale)}; run scripts/chart_values.py")


if __name__ == "__main__":
    main()
