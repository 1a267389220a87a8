#!/usr/bin/env bash
# Builds dist/libpenstock.so once more, by a profile of its requests: a build that counts what its code does gets the cases of the contract and
# the requests of the benchmark in a real Envoy; with these counts, the compiler puts together what runs for a request. What they said stays
# as dist/penstock.profdata: PENSTOCK_PROFILE=penstock.profdata make build gives the same bytes. Run `make build` first.
# OPTIONAL=1 leaves dist/ as it is where llvm-profdata, Rust's profiler or Envoy is missing.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

lacks() {
    [[ ${OPTIONAL:-0} == 1 ]] || die "$@"
    say pgo "SKIPPED: $1"
    exit 0
}

host=$(rustc -vV | sed -n 's/^host: //p')
runtime=$(rustc --print sysroot)/lib/rustlib/$host
# The format of a profile belongs to LLVM's major version.
llvm=$(rustc -vV | sed -nE 's/^LLVM version: ([0-9]+).*/\1/p')
profdata=
for tool in "$runtime/bin/llvm-profdata" "llvm-profdata-$llvm"; do
    if have "$tool"; then profdata=$tool && break; fi
done
[[ $host == *-linux-gnu ]] || lacks "the native body is for Linux, and this is $host"
[[ -n $profdata ]] || lacks "there is no llvm-profdata of LLVM $llvm" "run: rustup component add llvm-tools"
compgen -G "$runtime/lib/libprofiler_builtins-*" >/dev/null || lacks "this Rust has no profiler_builtins"
[[ -x $TOOLS/bin/envoy ]] || lacks "there is no .tools/bin/envoy" "run: make setup"
[[ -f dist/suite.wasm ]] || die "there is no dist/suite.wasm" "run: make build"

work=$ROOT/target/pgo
rm -rf "$work/dist" "$work/raw"
mkdir -p "$work/dist" "$work/raw"

headline "A native body that counts"
# The profile names functions as cargo's `native` profile does, so it must be the same one as in scripts/build.sh.
env -u RUSTFLAGS CARGO_ENCODED_RUSTFLAGS="-Cprofile-generate=$work/raw" \
    cargo build --profile native --locked --target-dir "$work" --target "$host" --package penstock-native
ln -s "$ROOT"/dist/*.wasm "$work/dist"
ln -s "$work/$host/native/libpenstock.so" "$work/dist"

headline "Its requests, in a real Envoy"
LLVM_PROFILE_FILE=$work/raw/%p.profraw ENVOY_BIN=$TOOLS/bin/envoy PENSTOCK_DIST=$work/dist \
    cargo run --quiet --locked --package penstock-integration --bin penstock-train
compgen -G "$work/raw/*.profraw" >/dev/null || die "Envoy wrote no profile"
"$profdata" merge --sparse --output "$work/penstock.profdata" "$work"/raw/*.profraw

PENSTOCK_PROFILE=$work/penstock.profdata scripts/build.sh

headline "What it decides"
PENSTOCK_BODY=native ENVOY_BIN=$TOOLS/bin/envoy PENSTOCK_DIST=$ROOT/dist \
    cargo test --quiet --locked --package penstock-integration --test contract --test egress
say penstock.profdata "$(wc -c <dist/penstock.profdata) bytes"
