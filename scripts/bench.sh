#!/usr/bin/env bash
# What each filter costs, side by side in one run on a real Envoy. ROUNDS and SECONDS_EACH make it longer or shorter (9 and 2), ONLY=suite,lua
# names the scenarios.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

scripts/build.sh

headline "Build: what we compare with"
(cd integration/peers && cargo build --release --locked --target "$WASI_TARGET" --target-dir "$ROOT/target/peers")

headline "Bench"
export ENVOY_BIN=$TOOLS/bin/envoy PENSTOCK_DIST=$ROOT/dist
page=$(cargo run --quiet --release --locked --package penstock-integration --bin penstock-bench)
printf '%s\n' "$page"
if [[ -n ${WRITE:-} ]]; then
    printf '%s\n' "$page" >docs/performance.md
    say "docs/performance.md" "written"
fi
