#!/usr/bin/env bash
# Which functions of a module spend a scenario's instructions: SCENARIO="suite, 10 rules: allowed"; a wrong name lists all.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

# The modules that ship have no names; in a folder of their own, so that these are not taken for them.
modules=$ROOT/target/profile
export CARGO_PROFILE_RELEASE_STRIP=false
cargo build --quiet --release --locked --target "$WASI_TARGET" --target-dir "$modules" "${MODULES[@]/#/--package=penstock-}"
for module in "${MODULES[@]}"; do
    cp "$modules/$WASI_TARGET/release/penstock_${module//-/_}.wasm" "$modules/$module.wasm"
done
PENSTOCK_DIST=$modules cargo run --quiet --package penstock-meter --locked -- --profile "${SCENARIO:-suite, 10 rules: allowed}" |
    sed 's/17h[0-9a-f]\{16\}E$//'
