#!/usr/bin/env bash
# `make e2e-istio CLUSTER=kubeconfig`: tests the manifests of istio/ on an existing cluster. They are applied to a new
# namespace, which is removed afterwards, with gateway selectors that match nothing, so that they do not affect the cluster's traffic. Manifests
# with effects outside of the namespace (istio/egress: external hosts, NetworkPolicies) are only applied as a dry run.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

namespace=penstock-e2e-$$
folders=(istio/overlays/wasm-plugin istio/overlays/traffic-extension istio/sidecar istio/waypoint)
plugins=wasmplugins.extensions.istio.io,trafficextensions.extensions.istio.io
needs="it needs Istio 1.30 or newer and the Gateway API's resources, and you the right to make a namespace and what these folders hold"
scratch=$(mktemp -d)

cluster() { "$TOOLS/bin/kubectl" --kubeconfig "$CLUSTER" --cache-dir "$scratch/kubectl" "$@"; }

# The manifests of a folder, with the namespace and with selectors for gateways that do not exist.
manifests() {
    "$TOOLS/bin/kubectl" kustomize "$1" |
        sed -E "s/^(  namespace:) .*/\1 $namespace/; s/istio: ingressgateway$/istio: $namespace/"
}

clean_up() {
    status=$?
    for folder in "${folders[@]}"; do
        manifests "$folder" | cluster delete --ignore-not-found --wait=true --timeout=60s -f - >/dev/null 2>&1 || true
    done
    # This also removes other objects in it, such as those that Istio made for the waypoint; it may take a while.
    cluster delete namespace "$namespace" --ignore-not-found --wait=false >/dev/null 2>&1 || true
    rm -rf "$scratch"
    if ((status)); then printf '\nFAILED: make e2e-istio CLUSTER=%s (above: what and why)\n' "$CLUSTER"; fi
}

[[ -r $CLUSTER ]] || die "there is no file $CLUSTER" "CLUSTER is a kubeconfig, such as ~/.kube/config"
trap clean_up EXIT
headline "On the cluster of $CLUSTER"
cluster create namespace "$namespace" >/dev/null || die "no namespace could be created (above: why)" "$needs"
say namespace "$namespace"

for folder in "${folders[@]}"; do
    manifests "$folder" >"$scratch/manifests.yaml"
    quietly cluster apply --server-side --validate=strict -f "$scratch/manifests.yaml" ||
        die "the cluster does not take $folder (above: why)" "$needs"
    say "$folder" "is applied: $(grep -c '^kind:' "$scratch/manifests.yaml") objects"
done
manifests istio/egress >"$scratch/manifests.yaml"
quietly cluster apply --server-side --dry-run=server --validate=strict -f "$scratch/manifests.yaml" ||
    die "the cluster does not take istio/egress (above: why)" "$needs"
say istio/egress "would be taken (dry run)"

if sed 's/^  url:/  urll:/' <(manifests istio/sidecar) |
    cluster apply --server-side --dry-run=server --validate=strict -f - >"$scratch/refused" 2>&1; then
    die "the cluster takes a plugin with an unknown field" "its resources are not those of Istio 1.30 or newer"
fi
grep -q 'field not declared in schema' "$scratch/refused" || die "an unknown field: $(cat "$scratch/refused")" "$needs"
say "an unknown field" "is refused"

# The stored objects must equal the manifests: the API server has not pruned or changed any part of a policy.
for plugin in $(cluster get "$plugins" --namespace "$namespace" -o name); do
    cluster get "$plugin" --namespace "$namespace" -o yaml >"$scratch/plugin.yaml"
    quietly "$ROOT/dist/penstock" check "$scratch/plugin.yaml" || die "$plugin: its policy is not valid any more (above: why)"
    say "${plugin##*/}" "${plugin%%.*}: the policy that the cluster keeps is valid"
done

# Istio writes no status for a plugin, but it does for a waypoint.
quietly cluster wait --for=condition=Accepted --timeout=90s --namespace "$namespace" gateways.gateway.networking.k8s.io/waypoint ||
    die "Istio does not accept the waypoint (above: what it says)" "$needs"
say waypoint "is accepted by Istio"

printf '\nPASSED: make e2e-istio CLUSTER=%s (%d s)\n' "$CLUSTER" "$SECONDS"
