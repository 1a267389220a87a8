#!/usr/bin/env bash
# A million random requests by Envoy and by replay, then every fault of docs/faults.md, one after the other, with its numbers: 10,000 reloads, and the mixed traffic for
# SOAK_MINUTES minutes (30). With PENSTOCK_BODY=native by the native body. `scripts/soak.sh NAME...` runs only the tests with such a name. Needs what `make setup` and
# `make build` bring.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

export SOAK_MINUTES=${SOAK_MINUTES:-30} SOAK_RELOADS=${SOAK_RELOADS:-10000}
skipped=()
# About VMs, and about Envoy fetching their code.
if [[ ${PENSTOCK_BODY:-} == native ]]; then skipped=(--skip traps --skip code_outage); fi

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
