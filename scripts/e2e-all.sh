#!/usr/bin/env bash
# Runs `make e2e` with every version in docs/support.md: the other versions of the control planes that integration/control-planes pins, older Envoys,
# and the conformance suite. Takes hours on two cores.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

scripts/e2e.sh
for folder in integration/control-planes/*-[0-9]*; do
    scripts/e2e-version.sh "$(basename "$folder")"
done
scripts/e2e-envoys.sh
scripts/conformance.sh
