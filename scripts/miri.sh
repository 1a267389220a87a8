#!/usr/bin/env bash
# Searches for undefined behaviour with Miri in the tests that it can run: the native body with a fake Envoy that fails, returns wrong values
# and calls hooks at the wrong time (filters/native/src/tests), and its state in filters/policy. `make miri` installs the toolchain.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

# Without isolation, because the module uses the clock and the operating system's random numbers.
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance"
headline "The native body in Miri"
cargo +nightly miri test --package penstock-native --lib --locked --target-dir target/miri
headline "The state in memory, in Miri"
cargo +nightly miri test --package penstock-policy --lib --locked --target-dir target/miri -- state::
