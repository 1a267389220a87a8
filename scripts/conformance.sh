#!/usr/bin/env bash
# Runs the Gateway API's conformance suite against Envoy Gateway, without and with the suite module on every route. ONLY=HTTPRouteMatching selects tests
# by a regular expression; WRITE=1 writes docs/conformance.md. Needs Linux, `ip` and `unshare`, no root.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

for program in ip unshare; do
    have "$program" || die "there is no $program" "Debian: apt-get install iproute2 util-linux"
done
scripts/setup/control-planes.sh etcd kubernetes envoy-gateway conformance
scripts/setup/registry.sh
if [[ ${WRITE:-} == 1 ]]; then export PENSTOCK_WRITE=1; fi

headline "Gateway API conformance, without and with the suite on every route (a quarter of an hour)"
ENVOY_BIN=$TOOLS/bin/envoy PENSTOCK_DIST=$ROOT/dist \
    cargo test --package penstock-integration --locked --test conformance -- --ignored --nocapture
