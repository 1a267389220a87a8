#!/usr/bin/env bash
# Every fault of docs/faults.md, one after the other, with its numbers; the mixed traffic for SOAK_MINUTES minutes (30).
# `scripts/soak.sh NAME...` runs only the tests with such a name. Needs what `make setup` and `make build` bring.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

export SOAK_MINUTES=${SOAK_MINUTES:-30}

headline "Soak: faults, and $SOAK_MINUTES minutes of mixed traffic"
ENVOY_BIN=${ENVOY_BIN:-$TOOLS/bin/envoy} PENSTOCK_DIST=$ROOT/dist \
    cargo test --package penstock-integration --locked --test soak -- --nocapture --test-threads 1 "$@"
