# The one entry point. What a target does is in scripts/; `make help` lists the targets.

.DEFAULT_GOAL := help
.PHONY: help setup setup-run setup-bench build test demo soak-limits bench lint fmt check check-reproducible clean
# One thing after the other: cargo uses all cores by itself.
.NOTPARALLEL:

export ONCE

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Get everything that build, test and demo need; quick when it is there
	@scripts/setup.sh

# The part of it that runs the modules, without the tools that only tests need.
setup-run:
	@scripts/setup.sh run

setup-bench: setup-run ## Install the load generators of `make bench` (Debian, as root)
	@scripts/setup/bench.sh

build: setup-run ## Build dist/: the five modules and the penstock command
	@scripts/build.sh

test: setup ## Run every check and test, the last ones against a real Envoy
	@scripts/test.sh

demo: setup-run ## Show the suite at work in a real Envoy, until Ctrl-C (ONCE=1: until it is through)
	@scripts/demo.sh

soak-limits: setup-run build ## Run the rate limits under load for SOAK_SECONDS (default 900: some ten million keys)
	@SOAK_SECONDS=$${SOAK_SECONDS:-900} cargo test --package penstock-integration --locked --test limits -- --nocapture --test-threads 1 overload memory

bench: setup-run ## Run the benchmarks
	@cargo bench --workspace --bench '*' --locked

lint: setup ## Check format, clippy, documentation, licences, scripts
	@scripts/lint.sh

fmt: ## Format the source
	@cargo fmt --all

check: setup-run ## Type-check everything, natively and for wasm: the quickest answer
	@cargo check --workspace --all-targets --locked
	@cargo check --workspace --exclude penstock --exclude penstock-integration --locked --target wasm32-wasip1

check-reproducible: setup-run ## Build the last commit in two folders and compare the bytes
	@scripts/check-reproducible.sh

clean: ## Remove all that was built here (not the cache of `make setup`)
	@cargo clean
	@rm -rf dist .tools
