#!/usr/bin/env bash
# Whether the crate penstock-policy still keeps the promise of its version: its public items against those of the newest release.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

baseline=$(git tag --list 'v*' --sort=-version:refname | head -1)
if [[ -z $baseline ]]; then
    say semver "nothing to compare with: there is no release yet"
    exit
fi
have cargo-semver-checks || cargo install --locked cargo-semver-checks@0.51.0
cargo semver-checks --package penstock-policy --baseline-rev "$baseline"
