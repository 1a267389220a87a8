#!/usr/bin/env bash
# wasm-bindgen-test-runner, which runs the tests of the pure crates as wasm under Node. Its version must be the one in Cargo.lock.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
cd "$ROOT"

version=$(awk '/^name = "wasm-bindgen"$/ { getline; gsub(/"/, "", $3); print $3 }' Cargo.lock)
if [[ -z $version ]]; then
    say wasm-bindgen "not in Cargo.lock: nothing to set up"
    exit 0
fi
install_crate wasm-bindgen-cli "$version" wasm-bindgen-test-runner "2-4 minutes"
