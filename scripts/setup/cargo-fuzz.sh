#!/usr/bin/env bash
# cargo-fuzz, which runs the targets of fuzz/ with libFuzzer, and the nightly toolchain that its sanitizer needs.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
cd "$ROOT"

have c++ || die "there is no C++ compiler (c++), which libFuzzer is built with" "install one (Debian: apt-get install g++)"
if ! rustc +nightly --version >/dev/null 2>&1; then
    have rustup || die "there is no rustup to get the nightly toolchain with" "install rustup from https://rustup.rs"
    say nightly "installing it with rustup"
    bounded 900 rustup toolchain install nightly --profile minimal || true
    rustc +nightly --version >/dev/null || die "Rust nightly is not there (above: what failed)" "rustup toolchain install nightly"
fi
say nightly "$(rustc +nightly --version | cut -d' ' -f2) is ready"
install_crate cargo-fuzz 0.13.2 cargo-fuzz "1-2 minutes"
