# Everything a person or CI does. Each target sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
CLUSTER ?= 1
DENY_VERSION := 0.20.2
SOAK_SEED ?= 1
SOAK_EPOCHS ?= 10000
SOAK_LIVES ?= 50
PYTHON ?= python3
GPU_SOAK_MINUTES ?= 60
export CARGO_TERM_COLOR ?= never

.PHONY: help setup build images demo down test test-full soak soak-virtual gpu-test gpu-bench gpu-soak bench fmt lint deny unit vectors mutants verifier nvml cubins engine-image engine-image-check charts e2e sprint protection moments grid crashes generate

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort | column -t -s $$'\t'

setup: ## Install what the machine lacks (Debian 12, as root)
	e2e/setup.sh

# --- the product, running

demo: setup ## A cluster, the charts, a network, two Sprints, a confirmation, a claim; leaves it up
	ci/demo.sh $(CLUSTER)

down: ## Stop what `make demo` left up
	ci/down.sh $(CLUSTER)

# --- tiers

test: setup ## What CI runs: everything that needs no GPU, at most 60 minutes cold on 2 cores
	ci/suites.sh fmt deny lint unit vectors mutants verifier nvml cubins engine-image-check charts e2e sprint protection moments

test-full: setup ## `test`, each crate alone, everything that may die at every moment of a Sprint, the operator at every write
	ci/suites.sh fmt deny lint unit vectors mutants verifier nvml cubins engine-image-check charts e2e sprint alone grid crashes

soak: setup soak-virtual ## 10,000 epochs in virtual time, then Sprint after Sprint for an hour on a cluster; fails when any exam lost anything there
	ci/images.sh
	target/debug/demo --cluster 8 --ledger soak --scenario e2e/network-simulator/scenarios/soak.yaml --limit-minutes 70 --strict
	target/debug/harness down --cluster 8

soak-virtual: ## SOAK_EPOCHS epochs with stories in virtual time, in SOAK_LIVES runs on all cores, and a month of the main network; fails when something breaks that must hold
	$(CARGO) run --release -p virtual-fleet -- run --seed $(SOAK_SEED) --epochs $(SOAK_EPOCHS) --lives $(SOAK_LIVES) --moments 100
	$(CARGO) run --release -p virtual-fleet -- run --seed $(SOAK_SEED) --month

gpu-test: ## The tests of the GPU on a GPU: vectors, reference, repeatability, memory
	$(CARGO) test -p kernels --test gpu --test gpu_v1 -- --ignored --test-threads=1 gpu_
	$(CARGO) run --release -p kernels --bin poc-vectors -- --engine cuda kernels/vectors

gpu-bench: ## What the proof costs on a GPU, by turns with torch where PYTHON has it; writes docs/benchmarks.md. Without a GPU one line and no figures
	mkdir -p target
	$(CARGO) run --release -p kernels --bin gpu-bench -- --python $(PYTHON) --json target/gpu-bench.json --write docs

gpu-soak: ## GPU_SOAK_MINUTES of rounds that start and stop on a GPU; fails when memory, handles or the process have grown
	$(CARGO) run --release -p kernels --bin gpu-bench -- soak --minutes $(GPU_SOAK_MINUTES)

bench: ## How cost grows with the fleet: ratios, in one run
	$(CARGO) bench --profile dev --workspace --exclude crds --bench growth

# --- suites, each usable alone

fmt: ## Formatting
	$(CARGO) fmt --all --check

deny: ## Licences, sources, duplicate versions
	@$(CARGO) deny --version 2>/dev/null | grep -qF '$(DENY_VERSION)' || \
		$(CARGO) install --locked --debug --no-default-features cargo-deny@$(DENY_VERSION)
	$(CARGO) deny --all-features check --hide-inclusion-graph bans licenses sources

lint: ## Clippy with warnings denied
	$(CARGO) clippy --workspace --all-targets -- -D warnings

unit: ## Unit, golden, property, contract and drift tests
	$(CARGO) test --workspace --exclude crds
	$(CARGO) test -p crds

vectors: ## The published reference vectors
	$(CARGO) run --release -p kernels --bin poc-vectors -- kernels/vectors

mutants: ## Mistakes planted in the reference: each rejected by vectors, verifier and validators; compares docs/mutants.md
	$(CARGO) test --workspace --exclude crds --test mutants -- --ignored --nocapture

verifier: ## The independent verifier: its own tests and the vectors
	/usr/bin/python3 e2e/verify_test.py
	/usr/bin/python3 e2e/verify.py --vectors kernels/vectors

nvml: ## The simulated NVML library
	$(MAKE) -C e2e/simulated-nvml OUT="$(CURDIR)/target/simulated-nvml" test

cubins: ## The CUDA kernels compile to what is checked in, without spills and with tensor cores (no GPU needed)
	ci/cubins.sh --check

engine-image: ## target/images/engine.tar: the image of slots that compute on GPUs natively, with cuBLASLt (a download of 0.4 GB, pinned by hash)
	ci/engine-image.sh

engine-image-check: ## The same with the simulated library in its place, unpacked and looked at (as root; nothing is downloaded)
	ci/engine-image.sh --check

charts: ## Charts: lint and rendering (needs the cluster's helm)
	ci/charts.sh

e2e: ## On a real cluster: the harness itself, the charts and the API, the operator killed at a choice of its writes
	ci/e2e.sh api_server harness crashes

sprint: setup ## The whole product on a real cluster: two Sprints, one without a control plane
	ci/e2e.sh sprint

moments: setup ## Whatever may die or misbehave in a Sprint does so once, at a moment of MOMENTS_SEED's choice
	ci/e2e.sh moments

protection: setup ## Everybody who may delete, evict, preempt or collect, against slots on real kubelets; a drain that begins in a Sprint
	ci/e2e.sh protection

grid: setup ## The same at every moment; writes docs/reliability.md
	MOMENTS_GRID=1 UPDATE_GENERATED=1 ci/e2e.sh moments

crashes: setup ## The operator killed at every write, with old lists and lost events; writes docs/crash-consistency.md
	CRASHES_FULL=1 UPDATE_GENERATED=1 ci/e2e.sh crashes

generate: ## Rewrite every generated file
	ci/cubins.sh
	UPDATE_GENERATED=1 $(CARGO) test -p crds -p proto -p e2e -p node-agent --test generated
	UPDATE_GENERATED=1 $(CARGO) test -p kernels --test bench the_documents_tables
	UPDATE_GENERATED=1 $(CARGO) test -p network-simulator --test virtual_time every_machine
