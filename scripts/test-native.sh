#!/usr/bin/env bash
# Runs integration tests with the native body instead of the wasm modules. `core`: the files that `make test` runs for both bodies.
# Run `make setup` and `make build` first.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

tests=(contract routes effects limits breakers canaries global_limits egress egress_tls reload hostile)
skipped=()
if [[ ${1:-} != core ]]; then
    tests+=(costs responses settings callers received_headers log_limits native differential egress_port egress_readers observability scale dash soak)
    # These tests are about VMs, and about Envoy fetching their code.
    skipped=(--skip traps:: --skip code_outage::)
fi
headline "The native body, with a real Envoy: ${tests[*]}"
PENSTOCK_BODY=native ENVOY_BIN=${ENVOY_BIN:-$TOOLS/bin/envoy} PENSTOCK_DIST=$ROOT/dist \
    cargo test --package penstock-integration --locked "${tests[@]/#/--test=}" -- "${skipped[@]}"
