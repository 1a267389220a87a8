#!/usr/bin/env bash
# Type-checks the native body for 64-bit ARM Linux, which `make test` does not build for.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

target=aarch64-unknown-linux-gnu
scripts/setup/rust-targets.sh "$target"
headline "The native body, type-checked for $target"
cargo check --package penstock-native --locked --target "$target"
