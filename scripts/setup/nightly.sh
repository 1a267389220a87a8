#!/usr/bin/env bash
# nightly.sh [COMPONENT...]: the nightly toolchain, which sanitizers, Miri and cargo-fuzz need, with these components.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

if ! rustc +nightly --version >/dev/null 2>&1; then
    have rustup || die "there is no rustup to get the nightly toolchain with" "install rustup from https://rustup.rs"
    say nightly "installing it with rustup"
    bounded 900 rustup toolchain install nightly --profile minimal || true
    rustc +nightly --version >/dev/null || die "Rust nightly is not there (above: what failed)" "rustup toolchain install nightly"
fi
if (($#)); then
    bounded 900 rustup component add --toolchain nightly "$@" >/dev/null 2>&1 ||
        die "rustup cannot add $* to the nightly toolchain" "not every nightly has every component: rustup update nightly"
fi
say nightly "$(rustc +nightly --version | cut -d' ' -f2) is ready"
