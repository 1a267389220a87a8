#!/usr/bin/env bash
# Runs every check that a change must pass, the quickest first. Run `make setup` first.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

trap 'status=$?; if ((status)); then printf "\nFAILED: make test (above: what and why)\n"; fi' EXIT

scripts/lint.sh

headline "Unit tests, natively"
cargo test --workspace --exclude penstock-integration --exclude penstock-meter --locked

headline "Unit tests of the policy engine, as wasm under Node ($PURE_TARGET)"
if [[ -x $TOOLS/bin/wasm-bindgen-test-runner ]]; then
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$TOOLS/bin/wasm-bindgen-test-runner \
        cargo test --package penstock-policy --target "$PURE_TARGET" --locked
else
    echo "skipped: no crate depends on wasm-bindgen-test"
fi

scripts/build.sh

headline "Sizes"
scripts/check-sizes.sh

headline "Meter: what the modules cost, against meter/budget.json, and a host that misbehaves"
PENSTOCK_DIST=$ROOT/dist cargo test --package penstock-meter --locked
PENSTOCK_DIST=$ROOT/dist cargo run --quiet --package penstock-meter --locked

headline "Integration tests, with a real Envoy"
ENVOY_BIN=$TOOLS/bin/envoy PENSTOCK_DIST=$ROOT/dist cargo test --package penstock-integration --locked

# Only on Linux, where Envoy supports dynamic modules.
if [[ -f $ROOT/dist/libpenstock.so ]]; then
    scripts/test-native.sh core
fi

ONCE=1 scripts/demo.sh

printf '\nPASSED: make test (%d min %d s)\n' $((SECONDS / 60)) $((SECONDS % 60))
