# The short list of things one does here. `make` prints it.
SHELL := /bin/bash
export VIVACE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vivace

.PHONY: help demo test check fmt lint unit e2e rootfs images test-kubernetes conformance fuzz bench proto deny

help: ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

demo: ## build, start, run a real application against it, show its traces
	@python3 demo/run.py

test: ## everything CI runs: fmt, lint, unit, property and end-to-end tests; ends with one summary line
	@python3 scripts/test.py

check: ## the fast lane for the hand: formatting, clippy, unit tests
	@python3 scripts/test.py quick

fmt: ## format the Rust code
	cargo fmt --all

lint: ## clippy on all targets, warnings are errors
	cargo clippy --workspace --all-targets -- -D warnings

unit: ## tests of the crates
	cargo test --workspace

e2e: ## real processes, real clients, real S3 and Prometheus
	@python3 scripts/test.py e2e

rootfs: ## the content of the container images as folders, below target/rootfs
	cargo build --release --locked --bins
	scripts/rootfs $${CARGO_TARGET_DIR:-target}/rootfs $${CARGO_TARGET_DIR:-target}/release

images: ## the container images, with docker, podman or buildah: docs/images.md; TARGETS="vivace vivace-cli" chooses
	docker/build $(TARGETS)

test-kubernetes: ## the charts on a real Kubernetes: docs/testing.md; ARGS="-k seed" chooses
	@python3 scripts/kubernetes.py $(ARGS)

conformance: ## the recorded query API answers, where that kit is found beside the clone
	@python3 scripts/conformance.py

fuzz: ## run every fuzz target for FUZZ_SECONDS (600) each: docs/testing.md
	@python3 scripts/fuzz.py

bench: ## criterion benches of the crates
	cargo bench --workspace

proto: ## write the generated code of proto/ anew
	UPDATE_GOLDEN=1 cargo test -p vivace-proto --test generate

deny: ## licences, advisories, duplicate versions and sources of the dependencies
	cargo deny check
