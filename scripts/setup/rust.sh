#!/usr/bin/env bash
# The Rust toolchain that rust-toolchain.toml selects, with rustfmt and clippy.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
cd "$ROOT"

channel=$(sed -nE 's/^channel *= *"([^"]+)".*/\1/p' rust-toolchain.toml)

have cargo || die "there is no cargo" "install rustup from https://rustup.rs, then run this again"
have cc || die "there is no C linker (cc), which Rust needs" "install one (Debian: apt-get install gcc libc6-dev)"

complete() { rustc --version && cargo fmt --version && cargo clippy --version; }

if ! complete >/dev/null 2>&1; then
    if have rustup; then
        say rust "installing $channel with rustup"
        bounded 900 rustup toolchain install "$channel" --profile minimal --component rustfmt --component clippy || true
    fi
    complete >/dev/null || die "Rust $channel with rustfmt and clippy is not there (above: what failed)" \
        "rustup toolchain install $channel --component rustfmt --component clippy"
fi
say rust "$(rustc --version | cut -d' ' -f2) is ready"
