#!/usr/bin/env bash
# e2e-version.sh kubernetes-1.36: the tests of `make e2e` that concern a control plane, with another version of it (a folder of
# integration/control-planes). Run `make control-planes` and `make build` first.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

name=${1:-}
[[ -f integration/control-planes/$name/go.mod ]] || die "there is no integration/control-planes/$name" "usage: e2e-version.sh kubernetes-1.36"
case $name in
kubernetes-*) suites=(manifests corpus admission) ;;
envoy-gateway-*) suites=(gateway) ;;
istio-*) suites=(istio) ;;
*) die "no test concerns $name" ;;
esac
scripts/setup/control-planes.sh "$name"
headline "With $name: ${suites[*]}"
PENSTOCK_CONTROL_PLANES=$TOOLS/versions/$name ENVOY_BIN=$TOOLS/bin/envoy PENSTOCK_DIST=${PENSTOCK_DIST:-$ROOT/dist} \
    cargo test --package penstock-integration --locked "${suites[@]/#/--test=}" -- --ignored --test-threads=1
