#!/usr/bin/env bash
# Checks the modules' sizes: every worker of every Envoy compiles a module and keeps it in memory. Platforms accept far larger modules; the
# budget exists to notice a dependency that doubles a module.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

BUDGET_KIB=1024
# The library contains all five modules, and a process maps it once.
LIBRARY_BUDGET_KIB=4096

status=0
for module in "${MODULES[@]}"; do
    file=$ROOT/dist/$module.wasm
    [[ -f $file ]] || die "there is no dist/$module.wasm" "run: make build"
    bytes=$(wc -c <"$file")
    verdict=ok
    if ((bytes > BUDGET_KIB * 1024)); then
        verdict="TOO LARGE"
        status=1
    fi
    say "$module.wasm" "$(((bytes + 1023) / 1024)) KiB of $BUDGET_KIB: $verdict"
done
library=$ROOT/dist/libpenstock.so
if [[ -f $library ]]; then
    bytes=$(wc -c <"$library")
    verdict=ok
    if ((bytes > LIBRARY_BUDGET_KIB * 1024)); then
        verdict="TOO LARGE"
        status=1
    fi
    say libpenstock.so "$(((bytes + 1023) / 1024)) KiB of $LIBRARY_BUDGET_KIB: $verdict"
fi
exit "$status"
