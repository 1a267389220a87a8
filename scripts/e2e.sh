#!/usr/bin/env bash
# The tests that need control planes; all of them, or the ones that are named. Needs what `make control-planes` and `make build`
# bring.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

trap 'status=$?; if ((status)); then printf "\nFAILED: make e2e (above: what and why)\n"; fi' EXIT

# On a cluster of one's own, with its Istio.
if [[ -n ${CLUSTER:-} && ${1:-} == istio ]]; then exec "$ROOT/scripts/e2e-cluster.sh"; fi

if (($#)); then suites=("$@"); else suites=(manifests corpus admission images istio gateway); fi
headline "Under real control planes: ${suites[*]}"
ENVOY_BIN=$TOOLS/bin/envoy PENSTOCK_DIST=$ROOT/dist \
    cargo test --package penstock-integration --locked "${suites[@]/#/--test=}" -- --ignored --test-threads=1

# Of older Envoys the oldest, shortly; the rest with `make e2e-envoys`.
if ((!$#)); then "$ROOT/scripts/e2e-envoys.sh" oldest; fi

printf '\nPASSED: make e2e (%d min %d s)\n' $((SECONDS / 60)) $((SECONDS % 60))
