#!/usr/bin/env bash
# The integration tests with the native body in the place of the wasm modules. `core`: those files that `make test` runs for both bodies.
# Needs what `make setup` and `make build` bring.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

tests=(contract routes effects limits breakers canaries global_limits egress egress_tls reload hostile)
skipped=()
if [[ ${1:-} != core ]]; then
    tests+=(differential egress_port egress_readers observability scale dash soak)
    # About VMs, and about Envoy fetching their code.
    skipped=(--skip traps --skip code_outage)
fi
headline "The native body, with a real Envoy: ${tests[*]}"
PENSTOCK_BODY=native ENVOY_BIN=${ENVOY_BIN:-$TOOLS/bin/envoy} PENSTOCK_DIST=$ROOT/dist \
    cargo test --package penstock-integration --locked "${tests[@]/#/--test=}" -- "${skipped[@]}"
