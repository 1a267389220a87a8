#!/usr/bin/env bash
# Runs integration tests with the native body instead of the wasm modules. `core`: the files that `make test` runs for both bodies.
# Run `make setup` and `make build` first.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

tests=(contract routes effects limits breakers canaries global_limits egress egress_tls reload hostile)
skipped=()
# As in scripts/test.sh.
alone=(canaries hostile limits)
if [[ ${1:-} != core ]]; then
    tests+=(lifecycle claims costs responses settings callers received_headers log_limits native differential egress_port egress_readers observability scale dash soak)
    # These tests are about VMs, and about Envoy fetching their code.
    skipped=(--skip traps:: --skip code_outage::)
    alone+=(dash scale soak)
fi
headline "The native body, with a real Envoy: ${tests[*]}"
files=()
for name in "${tests[@]}"; do files+=(--test "$name"); done
for name in "${alone[@]}"; do files+=(--alone "$name"); done
PENSTOCK_BODY=native ENVOY_BIN=${ENVOY_BIN:-$TOOLS/bin/envoy} PENSTOCK_DIST=$ROOT/dist \
    node scripts/run-tests.mjs --package penstock-integration --jobs 3 "${files[@]}" -- "${skipped[@]}"
