#!/usr/bin/env bash
# Checks that the version of the crate penstock-policy fits its changes: compares its public items with those of the newest release.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

# Not a pre-release, such as v0.2.0-rc.1, which git sorts after v0.2.0.
baseline=$(git tag --list 'v*' --sort=-version:refname | grep -xE -m1 'v[0-9]+\.[0-9]+\.[0-9]+' || true)
if [[ -z $baseline ]]; then
    say semver "nothing to compare with: there is no release yet"
    exit
fi
have cargo-semver-checks || cargo install --locked cargo-semver-checks@0.51.0
cargo semver-checks --package penstock-policy --baseline-rev "$baseline"
