# The entry point for every task. `make help` lists the targets; their scripts are in scripts/.

.DEFAULT_GOAL := help
.PHONY: $(shell awk -F: '/^[a-z0-9 -]+:/ { print $$1 }' Makefile)
# Targets run one after the other, because cargo already uses all cores.
.NOTPARALLEL:

export CHECKS PUBLISH REGISTRY ONCE VERSION BUILDER CLUSTER ROUNDS REQUESTS_EACH SECONDS_EACH SOAK_MINUTES SOAK_RELOADS ONLY OLD WRITE SCENARIO

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Get everything that build, test and demo need; quick when it is there
	@scripts/setup.sh

# The part of `setup` that is needed to run the modules, without tools that only tests need.
setup-run:
	@scripts/setup.sh run

setup-fuzz: setup-run ## Install cargo-fuzz and the nightly toolchain
	@scripts/setup/cargo-fuzz.sh

properties: setup-run ## Run the property tests with 5,000 random cases each (CASES=20000: with more)
	@PROPTEST_CASES=$${CASES:-5000} PROPTEST_RNG_SEED=random node scripts/run-tests.mjs --package penstock --package penstock-policy --package penstock-host --package penstock-wasm

fuzz: setup-fuzz build ## Run each fuzz target for a minute (SECONDS_EACH=600: for ten)
	@scripts/fuzz.sh

control-planes: setup-run ## Build the control planes of `make e2e` from their Go modules, once; and get an image registry
	@scripts/setup/control-planes.sh
	@scripts/setup/registry.sh

build: setup-run ## Build dist/: the five modules, the native body and the penstock command
	@scripts/build.sh

test: setup ## Run every check and test, the last ones against a real Envoy
	@scripts/test.sh

test-native: setup-run build ## Run the integration tests with the native body, libpenstock.so
	@scripts/test-native.sh

sanitize: setup-run ## Run the native body's tests with AddressSanitizer and LeakSanitizer, with 10,000 reloads
	@scripts/setup/nightly.sh
	@scripts/sanitize.sh

miri: setup-run ## Run the native body's tests and its state in Miri
	@scripts/setup/nightly.sh miri rust-src
	@scripts/miri.sh

memcheck: setup build ## Run integration tests with the native body in a stock Envoy under Valgrind's memcheck
	@scripts/memcheck.sh

check-native: setup-run ## Check the native body for 64-bit ARM Linux, and with a linker and QEMU link it and run its tests
	@scripts/check-native.sh

e2e: control-planes build ## Run the modules and manifests under real control planes: Kubernetes, Istio, Envoy Gateway
	@scripts/e2e.sh

# One of them.
e2e-istio e2e-gateway e2e-manifests e2e-admission e2e-images: control-planes build
	@scripts/e2e.sh $(@:e2e-%=%)

e2e-envoys: setup-run build ## Run the modules in older Envoys too, down to the oldest that docs/envoy.md claims
	@scripts/e2e-envoys.sh

conformance: setup-run build ## Run the Gateway API's conformance suite through Envoy Gateway, without and with the suite module; a quarter of an hour
	@scripts/conformance.sh

e2e-all: control-planes build ## Run `make e2e` over every version of docs/support.md, and `make conformance`; hours
	@scripts/e2e-all.sh

image: build ## Write the modules as OCI images to dist/images
	@scripts/image.sh

push: registry-given build ## Push the modules to REGISTRY (such as ghcr.io/you/penstock) as VERSION
	@scripts/image.sh "$(REGISTRY)"

# Before minutes of building.
registry-given:
	@if [ -z "$(REGISTRY)" ]; then echo "error: where to? make push REGISTRY=registry.example.com/penstock" >&2; exit 1; fi

release: setup ## Run the steps of a release; publishes nothing without PUBLISH=1 REGISTRY=…
	@scripts/release.sh

docs: ## Build the documentation as a site with search, and check its links: dist/docs
	@scripts/setup/node.sh
	@scripts/setup/mdbook.sh
	@scripts/docs.sh

demo: setup-run ## Show the suite at work in a real Envoy, until Ctrl-C (ONCE=1: until it is through)
	@scripts/demo.sh

soak: setup build ## Produce every fault of docs/faults.md: 10,000 reloads, a million random requests, half an hour of mixed traffic
	@scripts/soak.sh

soak-native: setup build ## The same with the native body
	@PENSTOCK_BODY=native scripts/soak.sh

soak-limits: setup-run build ## Run the rate limits under load for SOAK_SECONDS (default 900: some ten million keys)
	@SOAK_SECONDS=$${SOAK_SECONDS:-900} cargo test --package penstock-integration --locked --test limits -- --nocapture --test-threads 1 overload keys

bench: setup-run ## Compare what the filters cost in a real Envoy, 20 minutes; WRITE=1 writes docs/performance.md, OLD=suite.wasm compares with another version
	@scripts/bench.sh

bench-native: setup-run ## Run the engine's micro-benchmarks
	@cargo bench --workspace --bench '*' --locked

meter: build ## Count what the modules of dist/ cost, against meter/budget.json
	@PENSTOCK_DIST=$(CURDIR)/dist cargo run --quiet --package penstock-meter --locked

meter-update: build ## Make what they cost now the budget
	@PENSTOCK_DIST=$(CURDIR)/dist cargo run --quiet --package penstock-meter --locked -- --update

profile: setup-run ## Show which functions a scenario of the meter spends its instructions in (SCENARIO=...)
	@scripts/profile.sh

lint: setup ## Check format, clippy, documentation, licences, scripts
	@scripts/lint.sh

fmt: ## Format the source
	@cargo fmt --all

check: setup-run ## Type-check everything, natively and for wasm: the quickest answer
	@cargo check --workspace --all-targets --locked
	@cargo check --workspace --exclude penstock --exclude penstock-integration --exclude penstock-meter --exclude penstock-native --locked --target wasm32-wasip1

pgo: build ## Build the native body again, by a profile of its requests
	@scripts/pgo.sh

check-reproducible: setup-run ## Build the last commit in two folders and compare the bytes
	@scripts/check-reproducible.sh

clean: ## Remove all that was built here (not the cache of `make setup`)
	@cargo clean
	@rm -rf dist .tools
