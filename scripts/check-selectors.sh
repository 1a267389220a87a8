#!/usr/bin/env bash
# check-selectors.sh FOLDER...: checks that everything these manifests select or name exists in the cluster. They must have been applied to it:
#     CLUSTER=~/.kube/config scripts/check-selectors.sh istio/egress envoy-configs/gateway/image
# A NetworkPolicy whose labels match nothing restricts nothing or everything, and the API server does not report it. Without CLUSTER, the
# current context of kubectl is used.
# shellcheck disable=SC2016 # Dollars in quotes are the templates' own.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

kubectl=$TOOLS/bin/kubectl
[[ -x $kubectl ]] || kubectl=$(command -v kubectl) || die "there is no kubectl" "install it, or run \`make control-planes\`"
(($#)) || die "which manifests?" "scripts/check-selectors.sh istio/egress"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cluster() { "$kubectl" ${CLUSTER:+--kubeconfig "$CLUSTER"} --cache-dir "$scratch/kubectl" "$@"; }
missing=0

# found WHO WHAT COUNT: prints one line of the table.
found() {
    printf '%-64s %-72s %s\n' "$1" "$2" "${3/#0/MISSING}"
    if [[ $3 == 0 ]]; then missing=$((missing + 1)); fi
}

# pods NAMESPACES LABELS: prints how many Pods have the labels; NAMESPACES is a name, or labels after a `?`.
pods() {
    local names=$1 name count=0
    if [[ $1 == \?* ]]; then
        names=$(cluster get namespaces --selector "${1#?}" -o 'jsonpath={.items[*].metadata.name}')
    fi
    for name in $names; do
        count=$((count + $(cluster get pods --namespace "$name" --selector "$2" -o name | wc -l)))
    done
    echo "$count"
}

# exists KIND NAMESPACE NAME: prints 1 or 0.
exists() { if cluster get "$1" --namespace "$2" "$3" -o name >/dev/null 2>&1; then echo 1; else echo 0; fi; }

# One line for each selector or reference in an object: who|what|arguments of the function above. A list of labels ends with a comma.
labels='{{define "labels"}}{{range $name, $value := .}}{{$name}}={{$value}},{{end}}{{end}}'
who='{{$namespace := .metadata.namespace}}{{$who := printf "%s %s/%s" .kind .metadata.namespace .metadata.name}}'
network_policy='{{$who}}|applies to|pods|{{$namespace}}|{{with .spec.podSelector}}{{template "labels" .matchLabels}}{{end}}
{{range .spec.ingress}}{{range .from}}{{if or .podSelector .namespaceSelector}}{{$who}}|lets in|pods|{{if .namespaceSelector}}?{{template "labels" .namespaceSelector.matchLabels}}{{else}}{{$namespace}}{{end}}|{{with .podSelector}}{{template "labels" .matchLabels}}{{end}}
{{end}}{{end}}{{end}}{{range .spec.egress}}{{range .to}}{{if or .podSelector .namespaceSelector}}{{$who}}|lets out to|pods|{{if .namespaceSelector}}?{{template "labels" .namespaceSelector.matchLabels}}{{else}}{{$namespace}}{{end}}|{{with .podSelector}}{{template "labels" .matchLabels}}{{end}}
{{end}}{{end}}{{end}}'
plugin='{{with .spec.selector}}{{$who}}|runs in|pods|{{$namespace}}|{{template "labels" .matchLabels}}
{{end}}'
istio_gateway='{{$who}}|runs in|pods|?|{{template "labels" .spec.selector}}
'
targets='{{range .spec.targetRefs}}{{$who}}|is attached to|exists|{{.kind}}{{with .group}}.{{.}}{{end}}|{{$namespace}}|{{.name}}
{{end}}'
route='{{range .spec.parentRefs}}{{$who}}|belongs to|exists|gateways.gateway.networking.k8s.io|{{with .namespace}}{{.}}{{else}}{{$namespace}}{{end}}|{{.name}}
{{end}}{{range .spec.rules}}{{range .backendRefs}}{{$who}}|leads to|exists|services|{{with .namespace}}{{.}}{{else}}{{$namespace}}{{end}}|{{.name}}
{{end}}{{end}}'
gateway='{{$who}}|is of class|exists|gatewayclasses.gateway.networking.k8s.io|{{$namespace}}|{{.spec.gatewayClassName}}
'
objects="{{define \"object\"}}$who{{if eq .kind \"NetworkPolicy\"}}$network_policy{{else if eq .kind \"HTTPRoute\"}}$route\
{{else if eq .kind \"Gateway\"}}{{if .spec.gatewayClassName}}$gateway{{else}}$istio_gateway{{end}}\
{{else if eq .kind \"WasmPlugin\" \"TrafficExtension\"}}$plugin$targets{{else}}$targets{{end}}{{end}}"
template="$labels$objects{{if .items}}{{range .items}}{{template \"object\" .}}{{end}}{{else}}{{template \"object\" .}}{{end}}"

for folder in "$@"; do
    headline "$folder"
    cluster get --kustomize "$folder" -o "go-template=$template" >"$scratch/lines" ||
        die "what $folder holds is not all in the cluster (above: what is not)" "kubectl apply --server-side -k $folder"
    while IFS='|' read -r who what how first second third; do
        case $how in
        pods)
            labels=${second%,}
            place=${first%,}
            where="in ${place/#\?/namespaces with }"
            if [[ $place == \? ]]; then where="in any namespace"; fi
            found "$who" "$what Pods ${labels:+with $labels }$where" "$(pods "$place" "$labels")"
            ;;
        exists) found "$who" "$what $first $third" "$(exists "$first" "$second" "$third")" ;;
        esac
    done < <(grep -v '^$' "$scratch/lines")
done
if ((missing)); then
    die "$missing of them select or name nothing" "a policy does nothing for what its labels do not match: correct the labels, or deploy what is missing"
fi
printf '\nAll of it exists.\n'
