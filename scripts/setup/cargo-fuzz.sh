#!/usr/bin/env bash
# cargo-fuzz, which runs the targets of fuzz/ with libFuzzer, and the nightly toolchain that its sanitizer needs.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
cd "$ROOT"

have c++ || die "there is no C++ compiler (c++), which libFuzzer is built with" "install one (Debian: apt-get install g++)"
"$ROOT/scripts/setup/nightly.sh"
install_crate cargo-fuzz 0.13.2 cargo-fuzz "1-2 minutes"
