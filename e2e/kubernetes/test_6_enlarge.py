"""The size of the ingesters' volumes changes with `helm upgrade`, though Kubernetes does not let it change in a claim template."""

import pytest

import cluster as kube

NAMESPACE, CLASS = "enlarge", "vivace-test-growing"
SETTINGS = [
    "ingester.replicas=1",
    "ingester.config.replication_factor=1",
    "ingester.persistence.enabled=true",
    "ingester.persistence.enableStatefulSetRecreationForSizeChange=true",
    f"ingester.persistence.storageClass={CLASS}",
]


@pytest.fixture(scope="module")
def growing():
    """A release whose claims are of a class that lets them grow, otherwise like the cluster's default."""
    kube.clear(NAMESPACE)
    default = "storageclass.kubernetes.io/is-default-class"
    found = [one for one in kube.objects("storageclass")["items"] if one["metadata"].get("annotations", {}).get(default) == "true"]
    copied = {key: found[0][key] for key in ("apiVersion", "kind", "provisioner", "parameters", "volumeBindingMode") if key in found[0]}
    kube.apply("default", {**copied, "metadata": {"name": CLASS}, "allowVolumeExpansion": True})
    release = kube.Release(NAMESPACE, [kube.HERE / "values-tempo.yaml"], settings=[*SETTINGS, "ingester.persistence.size=10Gi"])
    release.install()
    release.wait_ready(seconds=300)
    yield release
    kube.clear(NAMESPACE, wait=False)
    kube.kubectl("delete", "storageclass", CLASS, check=False)


def requested(release):
    claim = kube.objects("persistentvolumeclaim", f"data-{release.name}-ingester-0", "-n", NAMESPACE)
    (template,) = kube.objects("statefulset", f"{release.name}-ingester", "-n", NAMESPACE)["spec"]["volumeClaimTemplates"]
    return claim["spec"]["resources"]["requests"]["storage"], template["spec"]["resources"]["requests"]["storage"]


def test_larger(growing):
    growing.settings[-1] = "ingester.persistence.size=20Gi"
    growing.upgrade()
    growing.settle()
    assert requested(growing) == ("20Gi", "20Gi")
    jobs = [one["metadata"]["name"] for one in kube.objects("jobs", "-n", NAMESPACE)["items"]]
    assert not [name for name in jobs if "recreation" in name], "a job that worked is taken away"
    done = kube.run("helm", "test", growing.name, "-n", NAMESPACE, "--logs", "--timeout", "120s")
    assert "The trace was written and read back in " in done.stdout, done.stdout


def test_smaller_is_refused_in_a_sentence(growing):
    growing.settings[-1] = "ingester.persistence.size=5Gi"
    refused = growing.upgrade("--timeout", "60s", check=False)
    assert refused.returncode != 0
    (pod,) = [
        one["metadata"]["name"]
        for one in kube.objects("pods", "-n", NAMESPACE)["items"]
        if one["metadata"]["labels"].get("app.kubernetes.io/component") == "ingester-recreation"
    ]
    log = growing.log(pod)
    assert f"cannot enlarge the claim data-{growing.name}-ingester-0 to 5Gi" in log and "less than" in log, log
    growing.settings[-1] = "ingester.persistence.size=20Gi"
    growing.upgrade()
    growing.settle()
    assert requested(growing) == ("20Gi", "20Gi")
