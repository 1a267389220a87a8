#!/usr/bin/env bash
# Installs everything that build, test and demo need on a machine with rustup. Skips what is already installed.
# Large files go to a cache that all checkouts share (PENSTOCK_CACHE, by default ~/.cache/penstock);
# .tools/bin holds links to it. `setup.sh run` leaves out what only tests and lint need.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Two runs at once would build the same things twice and write to the same toolchain.
mkdir -p "$CACHE"
if have flock; then
    exec 9>"$CACHE/lock"
    if ! flock --nonblock 9; then
        say setup "waiting for another set-up on this machine"
        flock 9
    fi
fi

steps=(rust rust-targets node wasm-opt envoy)
case ${1:-all} in
run) ;;
all) steps+=(wasm-bindgen cargo-deny actionlint ratelimit prometheus chromium) ;;
*) die "usage: setup.sh [run|all]" ;;
esac

headline "Set-up"
for step in "${steps[@]}"; do
    "$ROOT/scripts/setup/$step.sh"
done
