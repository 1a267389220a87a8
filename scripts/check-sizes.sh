#!/usr/bin/env bash
# The modules' sizes against their budget: every worker of every Envoy compiles and keeps them. Platforms take far more; the
# budget is there so that a dependency that doubles a module is noticed.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

BUDGET_KIB=1024
# All five in one library, which a process maps once.
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
