"""Installs what the end-to-end tests need into a cache folder outside the clone, each once.

The folder is $VIVACE_CACHE, by default ~/.cache/vivace.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("VIVACE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vivace")
REQUIREMENTS = ROOT / "e2e" / "requirements.txt"
OLD_CLIENTS = ROOT / "e2e" / "old-clients.txt"

# Helm renders the charts; MinIO is what the tutorials run in front of Tempo; telemetrygen is the OpenTelemetry project's own load generator.
GO_TOOLS = {
    "helm": "helm.sh/helm/v3/cmd/helm@v3.19.0",
    "minio": "github.com/minio/minio@latest",
    "telemetrygen": "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen@v0.161.0",
}


# Programs of our own below e2e/go: the OpenTelemetry Collector's decoder.
OWN_GO_TOOLS = ["otlp-decoder"]


# Finds dependencies that no source names.
CARGO_TOOLS = {"cargo-machete": "0.9.1"}


# What Java applications are started with, by its digest.
MAVEN_CENTRAL = "https://repo1.maven.org/maven2"
JAVA_AGENT = "io/opentelemetry/javaagent/opentelemetry-javaagent/2.33.1/opentelemetry-javaagent-2.33.1.jar"
JAVA_AGENT_SHA256 = "e43a270df53c6f423e0ab157be9c27ccc01d5dc3232e162fe54777573db2f149"


def progress(text):
    print(f"  {text}", flush=True)


def require_go(name):
    if shutil.which("go") is None:
        sys.exit(f"Go is needed to build {name} for the end-to-end tests; install it (Debian: golang-go, or https://go.dev/dl)")


def go_tool(name):
    """Path of a program that is built with Go."""
    binary = CACHE / "bin" / name
    if not binary.exists():
        require_go(name)
        progress(f"building {name} (once, about two minutes)")
        binary.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["go", "install", GO_TOOLS[name]], check=True, env={**os.environ, "GOBIN": str(binary.parent)})
    return binary


def own_go_tool(name):
    """Path of a program of the tests' own, below e2e/go. Built again when its sources change."""
    folder = ROOT / "e2e" / "go" / name
    sources = sorted(file for file in folder.iterdir() if file.suffix in (".go", ".mod", ".sum"))
    content = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]
    binary = CACHE / "bin" / f"{name}-{content}"
    if not binary.exists():
        require_go(name)
        progress(f"building {name} (once, about a minute)")
        binary.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["go", "build", "-o", binary, "."], cwd=folder, check=True)
    return binary


def cargo_tool(name):
    """Path of a program from crates.io."""
    version = CARGO_TOOLS[name]
    folder = CACHE / f"{name}-{version}"
    if not (folder / "bin" / name).exists():
        progress(f"building {name} (once, about a minute)")
        install = ["cargo", "install", "--quiet", "--locked", name, "--version", version, "--root", folder]
        # Of its own, so that it does not wait for, or rebuild, anything of ours.
        subprocess.run(install, check=True, env={**os.environ, "CARGO_TARGET_DIR": str(folder / "build")})
        shutil.rmtree(folder / "build", ignore_errors=True)
    return folder / "bin" / name


def prometheus():
    """Path of Prometheus; Debian's package, unpacked without being started as a service."""
    found = shutil.which("prometheus")
    if found:
        return Path(found)
    binary = CACHE / "prometheus" / "usr" / "bin" / "prometheus"
    if not binary.exists():
        progress("fetching Debian's prometheus package (once)")
        folder = CACHE / "prometheus"
        folder.mkdir(parents=True, exist_ok=True)
        apt = ["apt-get", "-qq"]
        if subprocess.run([*apt, "download", "prometheus"], cwd=folder, check=False, stderr=subprocess.DEVNULL).returncode != 0:
            subprocess.run([*apt, "update"], check=True)
            subprocess.run([*apt, "download", "prometheus"], cwd=folder, check=True)
        package = next(folder.glob("prometheus_*.deb"))
        subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=folder, check=True)
    return binary


def promtool():
    """Path of the program that checks Prometheus' rules; it comes with Prometheus."""
    return prometheus().with_name("promtool")


def kafka():
    """Class path of a broker of Apache Kafka. Needs a Java of version 17 or later."""
    pom = ROOT / "e2e" / "kafka" / "pom.xml"
    require_packages({"java": "default-jre-headless"})
    folder = CACHE / f"kafka-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    marker = folder / "installed"
    if not marker.exists():
        require_packages({"mvn": "maven"})
        progress("fetching Apache Kafka from Maven Central (once)")
        shutil.rmtree(folder, ignore_errors=True)
        mvn = ["mvn", "--quiet", "--batch-mode", "--file", pom, "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        subprocess.run(mvn, check=True)
        marker.touch()
    return f"{folder}/*"


def require_packages(packages):
    """Installs Debian's packages, by the program that each is needed for, unless that is there."""
    missing = {program: package for program, package in packages.items() if shutil.which(program) is None}
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"the end-to-end tests need {' and '.join(missing)}; install {' and '.join(missing.values())} (as Debian names it)")
    progress(f"installing {' and '.join(missing.values())} (once)")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq"]
    install = [*apt, "install", "--no-install-recommends", "-y", *missing.values()]
    if subprocess.run(install, check=False, env=environment, stderr=subprocess.DEVNULL).returncode != 0:
        subprocess.run([*apt, "update"], check=True)
        subprocess.run(install, check=True, env=environment)


def venv_python(requirements=REQUIREMENTS):
    """Path of a Python that has the packages of e2e/requirements.txt, or of another such file."""
    wanted = requirements.read_bytes()
    folder = CACHE / f"venv-{hashlib.sha256(wanted).hexdigest()[:12]}"
    marker = folder / "installed"
    if not marker.exists():
        progress(f"installing the Python packages of {requirements.name} (once)")
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
        subprocess.run(pip, check=True)
        marker.touch()
    return folder / "bin" / "python"


def chromium():
    """Path of a browser."""
    require_packages({"chromium": "chromium"})
    return Path(shutil.which("chromium"))


def javascript():
    """The folder with the applications of e2e/js and what they need."""
    sources = sorted(file for file in (ROOT / "e2e" / "js").iterdir() if file.is_file())
    content = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]
    folder = CACHE / f"js-{content}"
    if not (folder / "installed").exists():
        require_packages({"node": "nodejs", "npm": "npm"})
        progress("installing the JavaScript packages of e2e/js (once)")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in sources:
            shutil.copy(file, folder)
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
        subprocess.run(["npm", "run", "--silent", "bundle"], cwd=folder, check=True)
        (folder / "installed").touch()
    return folder


def java_agent():
    """Path of OpenTelemetry's agent for Java, of which there is also a compiler then."""
    require_packages({"javac": "default-jdk-headless"})
    jar = CACHE / Path(JAVA_AGENT).name
    if not jar.exists():
        progress(f"fetching {jar.name} (once)")
        with urllib.request.urlopen(f"{MAVEN_CENTRAL}/{JAVA_AGENT}", timeout=300) as answer:
            content = answer.read()
        if hashlib.sha256(content).hexdigest() != JAVA_AGENT_SHA256:
            sys.exit(f"{JAVA_AGENT} is not what it was: its digest differs")
        jar.parent.mkdir(parents=True, exist_ok=True)
        jar.write_bytes(content)
    return jar


def install_all():
    for name in GO_TOOLS:
        progress(f"{name}: {go_tool(name)}")
    for name in OWN_GO_TOOLS:
        progress(f"{name}: {own_go_tool(name)}")
    progress(f"prometheus: {prometheus()}")
    progress(f"kafka: {kafka()}")
    progress(f"python: {venv_python()}")
    progress(f"python of old clients: {venv_python(OLD_CLIENTS)}")
    progress(f"javascript: {javascript()}")
    progress(f"browser: {chromium()}")
    progress(f"java: {java_agent()}")


if __name__ == "__main__":
    install_all()
