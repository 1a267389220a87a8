#!/usr/bin/env bash
# Shows the suite in a real Envoy, request by request. With ONCE=1 it ends by itself; its exit status says whether every response was as expected.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

scripts/build.sh

headline "Demo"
export ENVOY_BIN=$TOOLS/bin/envoy PENSTOCK_DIST=$ROOT/dist
# `make test` has built it already.
if [[ -n ${PENSTOCK_DEMO:-} ]]; then exec "$PENSTOCK_DEMO"; fi
# Not optimised: Envoy does the work that is shown, and most of the first run is this build.
exec cargo run --quiet --locked --package penstock-integration --bin penstock-demo
