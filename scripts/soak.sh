#!/usr/bin/env bash
# Decides a million random requests with Envoy and with replay, then produces every fault of docs/faults.md, one after the other, and prints its numbers: 10,000 reloads, and
# mixed traffic for SOAK_MINUTES minutes (30). PENSTOCK_BODY=native uses the native body. `scripts/soak.sh NAME...` runs only the tests with such a name. Run `make setup` and
# `make build` first.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

export SOAK_MINUTES=${SOAK_MINUTES:-30} SOAK_RELOADS=${SOAK_RELOADS:-10000}
skipped=()
# These tests are about VMs, and about Envoy fetching their code.
if [[ ${PENSTOCK_BODY:-} == native ]]; then skipped=(--skip traps:: --skip code_outage::); fi

if (($# == 0)); then
    headline "Soak: a million random requests, decided by Envoy and by replay"
    DIFFERENTIAL_ROUNDS=${DIFFERENTIAL_ROUNDS:-84} DIFFERENTIAL_SEED=$RANDOM \
        ENVOY_BIN=${ENVOY_BIN:-$TOOLS/bin/envoy} PENSTOCK_DIST=$ROOT/dist \
        cargo test --package penstock-integration --locked --test differential -- --nocapture
fi

if (($# == 0)); then
    headline "Soak: what real Envoys give, as the series that the alerts are tested with"
    ENVOY_BIN=${ENVOY_BIN:-$TOOLS/bin/envoy} PENSTOCK_DIST=$ROOT/dist \
        cargo test --package penstock-integration --locked --test alerts
fi

headline "Soak: faults, $SOAK_RELOADS reloads, and $SOAK_MINUTES minutes of mixed traffic"
ENVOY_BIN=${ENVOY_BIN:-$TOOLS/bin/envoy} PENSTOCK_DIST=$ROOT/dist \
    cargo test --package penstock-integration --locked --test soak -- --nocapture --test-threads 1 "${skipped[@]}" "$@"
