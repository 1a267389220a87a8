#!/usr/bin/env bash
# The native body in front of an Envoy that fails, lies and calls out of turn (filters/native/src/tests), with AddressSanitizer and
# LeakSanitizer; 10,000 reloads of a policy under requests among it. Needs the nightly toolchain, which `make sanitize` gets.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

target=$(rustc -vV | sed -n 's/^host: //p')
[[ $target == *-linux-gnu ]] || die "the native body is for Linux, and this is $target"
headline "The native body with AddressSanitizer and LeakSanitizer, ${PENSTOCK_RELOADS:=10000} reloads"
export PENSTOCK_RELOADS
# A length that no memory has is an answer for the module to handle, not the end of the run.
RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1:detect_stack_use_after_return=1:strict_string_checks=1 \
    cargo +nightly test --package penstock-native --lib --locked --target "$target" --target-dir target/sanitize -- --nocapture
