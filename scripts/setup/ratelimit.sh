#!/usr/bin/env bash
# The rate-limit service of the tests of global limits: envoyproxy/ratelimit, built from its Go module into the cache, once for
# each version, and Debian's redis-server. Without them, tests print a line and are skipped, unless CI is set.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

# With CI set, a missing program is an error; otherwise the tests that need it are skipped.
lacking() {
    if [[ ${CI:-} == true ]]; then die "$@"; fi
    say ratelimit "SKIPPED, so are the tests of global limits: $1"
    exit 0
}

if ! have redis-server; then
    have apt-get || lacking "there is no redis-server, and no apt-get to install it with" "install Redis"
    [[ $(id -u) == 0 ]] || lacking "there is no redis-server" "as root: apt-get install redis-server"
    say ratelimit "installing redis-server"
    quietly apt-get update || true
    # Installing the package would start a server.
    quietly env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y --no-install-recommends redis-server ||
        lacking "apt-get could not install redis-server (above: what it said)"
fi
link_tool redis-server "$(command -v redis-server)"

pins=$ROOT/integration/control-planes/ratelimit
home=$CACHE/control-planes/ratelimit-$(cat "$pins/go.mod" "$pins/go.sum" | cksum | cut -d" " -f1)
if [[ ! -x $home/ratelimit ]]; then
    have go || lacking "the rate-limit service is built with Go, and there is no go" "install Go 1.25 or newer from https://go.dev/dl"
    say ratelimit "building from its Go module (half a minute, once)"
    # The build must not depend on the caller's settings, except for the source of modules.
    unset GOFLAGS GOARCH GOOS GOBIN
    scratch=$(scratch_folder ratelimit)
    trap 'rm -rf "$scratch"' EXIT
    mkdir "$scratch/home"
    (cd "$pins" && CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-auto} quietly go build -mod=readonly -trimpath -ldflags="-s -w" \
        -o "$scratch/home/ratelimit" github.com/envoyproxy/ratelimit/src/service_cmd) ||
        lacking "the rate-limit service could not be built (above: what go said)" "go needs the Go module proxy, or a mirror of it in GOPROXY"
    install_folder "$scratch/home" "$home"
fi
link_tool ratelimit "$home/ratelimit"
say ratelimit "envoyproxy/ratelimit and redis-server are ready"
