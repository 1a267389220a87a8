#!/usr/bin/env bash
# The suite in a real Envoy, shown request by request. ONCE=1 ends by itself, with a status that says whether all was as it should be.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

scripts/build.sh

headline "Demo"
export ENVOY_BIN=$TOOLS/bin/envoy PENSTOCK_DIST=$ROOT/dist
# Unoptimised: what is shown is Envoy's work, and building this quickly is most of the first run.
exec cargo run --quiet --locked --package penstock-integration --bin penstock-demo
