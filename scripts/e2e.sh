#!/usr/bin/env bash
# Runs the tests that need control planes: all of them, or the given ones. Run `make control-planes` and `make build` first.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

trap 'status=$?; if ((status)); then printf "\nFAILED: make e2e (above: what and why)\n"; fi' EXIT

# On an existing cluster, with its Istio.
if [[ -n ${CLUSTER:-} && ${1:-} == istio ]]; then exec "$ROOT/scripts/e2e-cluster.sh"; fi

# The longest first, because two run side by side. They use different ports; the tests of one suite use the same.
if (($#)); then suites=("$@"); else suites=(gateway istio admission corpus manifests images); fi
files=()
for suite in "${suites[@]}"; do files+=(--test "$suite"); done
headline "Under real control planes: ${suites[*]}"
ENVOY_BIN=$TOOLS/bin/envoy PENSTOCK_DIST=$ROOT/dist \
    node scripts/run-tests.mjs --package penstock-integration --jobs 2 "${files[@]}" -- --ignored --test-threads=1

# A quick test with the oldest Envoy; `make e2e-envoys` tests the others.
if ((!$#)); then "$ROOT/scripts/e2e-envoys.sh" oldest; fi

printf '\nPASSED: make e2e (%d min %d s)\n' $((SECONDS / 60)) $((SECONDS % 60))
