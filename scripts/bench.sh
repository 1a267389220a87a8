#!/usr/bin/env bash
# Measures what each filter costs, side by side in one run on a real Envoy, in about 20 minutes. ROUNDS (200) and REQUESTS_EACH (1600) change the duration,
# ONLY=suite,lua,workers selects scenarios and parts (an unknown name lists all), OLD=path compares with a suite.wasm of another version.
# PENSTOCK_PROFILE=path measures the native body as releases build it (scripts/pgo.sh).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

if [[ -n ${OLD:-} ]]; then
    [[ -f $OLD ]] || die "OLD: there is no module at $OLD"
    OLD=$(realpath "$OLD")
    export OLD
fi
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
