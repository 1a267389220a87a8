#!/usr/bin/env bash
# mdBook, which makes the site of `make docs`.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
cd "$ROOT"

install_crate mdbook 0.5.4 mdbook "3-6 minutes"
