#!/usr/bin/env bash
# The modules' sizes against their budgets: every worker of every Envoy compiles and keeps them.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

SUITE_KIB=600
SINGLE_KIB=350

status=0
for module in "${MODULES[@]}"; do
    file=$ROOT/dist/$module.wasm
    [[ -f $file ]] || die "there is no dist/$module.wasm" "run: make build"
    case $module in
        suite) budget=$SUITE_KIB ;;
        *) budget=$SINGLE_KIB ;;
    esac
    bytes=$(wc -c <"$file")
    verdict=ok
    if ((bytes > budget * 1024)); then
        verdict="TOO LARGE"
        status=1
    fi
    say "$module.wasm" "$(((bytes + 1023) / 1024)) KiB of $budget: $verdict"
done
exit "$status"
