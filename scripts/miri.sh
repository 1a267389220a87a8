#!/usr/bin/env bash
# Searches for undefined behaviour with Miri in the tests that it can run: the native body with a fake Envoy that fails, returns wrong values
# and calls hooks at the wrong time (filters/native/src/tests), and its state in filters/policy. `make miri` installs the toolchain.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

# The tests cause many panics, and Miri needs minutes to print their backtraces.
export RUST_BACKTRACE=0
# Without isolation, because the module uses the clock and the operating system's random numbers.
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance"
headline "The native body in Miri"
cargo +nightly miri test --package penstock-native --lib --locked --target-dir target/miri
headline "The state in memory, in Miri"
cargo +nightly miri test --package penstock-policy --lib --locked --target-dir target/miri -- state::memory::
# Each seed gives the threads another order, and other values to reads that may see an older one.
headline "Threads that race for the state in memory, in Miri with ${PENSTOCK_SEEDS:=32} seeds"
MIRIFLAGS="$MIRIFLAGS -Zmiri-many-seeds=0..$PENSTOCK_SEEDS" \
    cargo +nightly miri test --package penstock-policy --lib --locked --target-dir target/miri -- state::memory::tests::threads
