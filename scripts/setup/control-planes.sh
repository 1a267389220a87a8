#!/usr/bin/env bash
# The control planes of `make e2e`: each folder of integration/control-planes is a separate Go module (their dependencies
# conflict) that pins one of them; a folder with a version in its name, such as kubernetes-1.36, pins another version for the tests of
# the support matrix. They are built into the cache, once for each version. Arguments select some by name.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

pins=$ROOT/integration/control-planes
have go || die "the control planes are built with Go, and there is no go" "install Go 1.26 or newer from https://go.dev/dl"
# The build must not depend on the caller's settings, except for the source of modules.
unset GOFLAGS GOARCH GOOS GOBIN
export CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-auto}

# The folder of a dependency's source.
source_of() { go list -mod=readonly -m -f '{{.Dir}}' "$1"; }

# Clients that query the API server's version fail if the build has none.
version_flags() {
    local version package=k8s.io/component-base/version
    [[ $1 == kubernetes ]] || return 0
    version=$(go list -mod=readonly -m -f '{{.Version}}' k8s.io/kubernetes)
    version=${version#v}
    echo "-X $package.gitVersion=v$version -X $package.gitMajor=${version%%.*} -X $package.gitMinor=$(cut -d. -f2 <<<"$version")"
}

# The custom resources that Kubernetes needs to accept our manifests.
custom_resources() {
    local name=$1 into=$2 from
    case $name in
    istio)
        from=$(source_of istio.io/istio)
        cp "$from/manifests/charts/base/files/crd-all.gen.yaml" "$into/istio.yaml"
        # The bootstrap template of its proxies, which is otherwise in a proxy image.
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
        # The suite only accepts the resources of its own version.
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
    # The tests use another version than the default one when PENSTOCK_CONTROL_PLANES names its folder.
    [[ $kind == "$name" ]] || into=$TOOLS/versions/$name
    # The pins identify the version; the number changes when this script builds them differently.
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
        # Files from the module cache are read-only.
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
