#!/usr/bin/env bash
# Miri, the interpreter that finds undefined behaviour, over what it can run: the native body in front of an Envoy that fails, lies
# and calls out of turn (filters/native/src/tests), and its state in filters/policy. `make miri` gets the toolchain.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

# The clock and the operating system's random numbers are the module's own business.
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance"
headline "The native body in Miri"
cargo +nightly miri test --package penstock-native --lib --locked --target-dir target/miri
headline "The state in memory, in Miri"
cargo +nightly miri test --package penstock-policy --lib --locked --target-dir target/miri -- state::
