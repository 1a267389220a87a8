#!/usr/bin/env bash
# Runs every check that a change must pass, the quickest first. Run `make setup` first.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

trap 'status=$?; if ((status)); then printf "\nFAILED: make test (above: what and why)\n"; fi' EXIT

scripts/lint.sh

headline "Unit tests, natively"
node scripts/run-tests.mjs --except penstock-integration --except penstock-meter
# Of the whole workspace, too, with the builds of the tests.
cargo test --workspace --doc --locked

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
PENSTOCK_DIST=$ROOT/dist node scripts/run-tests.mjs --package penstock-meter
PENSTOCK_DIST=$ROOT/dist cargo run --quiet --package penstock-meter --locked

headline "Integration tests, with a real Envoy"
# Most wait for Envoy's timers, so three files run side by side; those that cause load or measure times run alone.
ENVOY_BIN=$TOOLS/bin/envoy PENSTOCK_DIST=$ROOT/dist node scripts/run-tests.mjs --package penstock-integration --jobs 3 \
    --alone canaries --alone dash --alone dash_browser --alone hostile --alone limits --alone scale --alone soak

# Only on Linux, where Envoy supports dynamic modules.
if [[ -f $ROOT/dist/libpenstock.so ]]; then
    scripts/test-native.sh core
fi

ONCE=1 PENSTOCK_DEMO=$ROOT/target/debug/penstock-demo scripts/demo.sh

printf '\nPASSED: make test (%d min %d s)\n' $((SECONDS / 60)) $((SECONDS % 60))
