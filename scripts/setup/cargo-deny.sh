#!/usr/bin/env bash
# cargo-deny, which checks the licences, sources and advisories of our dependencies against deny.toml.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
cd "$ROOT"

install_crate cargo-deny 0.20.2 cargo-deny "2-4 minutes"
