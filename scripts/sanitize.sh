#!/usr/bin/env bash
# Tests the native body with a fake Envoy that fails, returns wrong values and calls hooks at the wrong time (filters/native/src/tests), under
# AddressSanitizer and LeakSanitizer, including 10,000 reloads during requests. Needs the nightly toolchain, which `make sanitize` installs.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

target=$(rustc -vV | sed -n 's/^host: //p')
[[ $target == *-linux-gnu ]] || die "the native body is for Linux, and this is $target"
headline "The native body with AddressSanitizer and LeakSanitizer, ${PENSTOCK_RELOADS:=10000} reloads"
export PENSTOCK_RELOADS
# The module must handle lengths that cannot be allocated, so they must not end the run.
RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1:detect_stack_use_after_return=1:strict_string_checks=1 \
    cargo +nightly test --package penstock-native --lib --locked --target "$target" --target-dir target/sanitize -- --nocapture
