#!/usr/bin/env bash
# The control planes of `make e2e`: each folder of integration/control-planes is a Go module of its own (their dependencies
# disagree) that pins one of them; a folder with a version in its name, such as kubernetes-1.36, pins another version for the tests of
# the support matrix. Built into the cache, once for each version. With names as arguments: only those.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

pins=$ROOT/integration/control-planes
have go || die "the control planes are built with Go, and there is no go" "install Go 1.26 or newer from https://go.dev/dl"
# The settings of the one who calls must not get into the build; where modules come from is up to them.
unset GOFLAGS GOARCH GOOS GOBIN
export CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-auto}

# The folder of a dependency's source.
source_of() { go list -mod=readonly -m -f '{{.Dir}}' "$1"; }

# Programs that ask an API server for its version would not like that of a build without one.
version_flags() {
    local version package=k8s.io/component-base/version
    [[ $1 == kubernetes ]] || return 0
    version=$(go list -mod=readonly -m -f '{{.Version}}' k8s.io/kubernetes)
    version=${version#v}
    echo "-X $package.gitVersion=v$version -X $package.gitMajor=${version%%.*} -X $package.gitMinor=$(cut -d. -f2 <<<"$version")"
}

# What Kubernetes must know before it takes our manifests.
custom_resources() {
    local name=$1 into=$2 from
    case $name in
    istio)
        from=$(source_of istio.io/istio)
        cp "$from/manifests/charts/base/files/crd-all.gen.yaml" "$into/istio.yaml"
        # What its proxies start from; a proxy image has it.
        cp "$from/tools/packaging/common/envoy_bootstrap.json" "$into/../bin/"
        ;;
    envoy-gateway)
        from=$(source_of github.com/envoyproxy/gateway)/charts/gateway-helm/charts/crds/crds
        cp "$from/gatewayapi-crds.yaml" "$into/gateway-api.yaml"
        for file in "$from"/generated/*.yaml; do
            echo '---'
            cat "$file"
        done >"$into/envoy-gateway.yaml"
        ;;
    conformance)
        # The suite takes the resources of its own version only.
        from=$(source_of sigs.k8s.io/gateway-api)/config/crd/experimental
        for file in "$from"/gateway.networking.*k8s.io_*s.yaml; do
            [[ $file == *safeupgrades* ]] && continue
            echo '---'
            cat "$file"
        done >"$into/gateway-api-conformance.yaml"
        ;;
    esac
}

control_plane() {
    local name=$1 kind=${1%-[0-9]*} into=$TOOLS home scratch tool
    # The tests use another version than the usual one when PENSTOCK_CONTROL_PLANES names its folder.
    [[ $kind == "$name" ]] || into=$TOOLS/versions/$name
    # The pins are the version; the number counts the ways in which this script has built them.
    home=$CACHE/control-planes/$name-$(cat "$pins/$name/go.mod" "$pins/$name/go.sum" | cksum | cut -d" " -f1)-2
    if [[ ! -d $home ]]; then
        say "$name" "building from its Go modules (up to 5 minutes on two cores, once)"
        scratch=$(scratch_folder "$name")
        mkdir -p "$scratch/home/bin" "$scratch/home/crds"
        (
            cd "$pins/$name"
            quietly go build -mod=readonly -trimpath -ldflags="-s -w $(version_flags "$kind")" -o "$scratch/home/bin/" tool
            if [[ $kind == conformance ]]; then
                quietly go test -mod=readonly -c -trimpath -ldflags="-s -w" -o "$scratch/home/bin/gateway-conformance" sigs.k8s.io/gateway-api/conformance
            fi
            custom_resources "$kind" "$scratch/home/crds"
        ) || die "$name could not be built (above: what go said)" "go needs the Go module proxy, or a mirror of it in GOPROXY"
        # The module cache is read-only, and so is what comes from it.
        chmod -R u+w "$scratch/home"
        # Go names a command after the last part of its path.
        if [[ $kind == etcd ]]; then mv "$scratch/home/bin/server" "$scratch/home/bin/etcd"; fi
        install_folder "$scratch/home" "$home"
        rm -rf "$scratch"
    fi
    mkdir -p "$into/bin" "$into/crds"
    for tool in "$home"/{bin,crds}/*; do
        [[ -e $tool ]] || continue
        ln -sfn "$tool" "$into/$(basename "$(dirname "$tool")")/$(basename "$tool")"
    done
    say "$name" "is ready"
}

if (($#)); then names=("$@"); else names=(etcd kubernetes istio envoy-gateway images helm); fi
for name in "${names[@]}"; do control_plane "$name"; done
