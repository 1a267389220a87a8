#!/usr/bin/env bash
# Shows which functions of a module execute a scenario's instructions: SCENARIO="suite, 10 rules: allowed"; an unknown name lists all.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

# Released modules have no name section. These modules get their own folder, so that they are not confused with released ones.
modules=$ROOT/target/profile
export CARGO_PROFILE_RELEASE_STRIP=false
cargo build --quiet --release --locked --target "$WASI_TARGET" --target-dir "$modules" "${MODULES[@]/#/--package=penstock-}"
for module in "${MODULES[@]}"; do
    cp "$modules/$WASI_TARGET/release/penstock_${module//-/_}.wasm" "$modules/$module.wasm"
done
PENSTOCK_DIST=$modules cargo run --quiet --package penstock-meter --locked -- --profile "${SCENARIO:-suite, 10 rules: allowed}" |
    sed 's/17h[0-9a-f]\{16\}E$//'
