#!/usr/bin/env bash
# Node, which runs the wasm tests of the pure crates, and npm, which brings wasm-opt. Both come from the system.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

how=("Debian: apt-get install nodejs npm; elsewhere: https://nodejs.org (18 or newer)")
if ! have node && have apt-get && [[ $(id -u) == 0 ]]; then
    say node "installing Debian's nodejs and npm"
    quietly apt-get update || true
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nodejs npm || true
fi
have node || die "there is no node" "${how[@]}"
version=$(node --version)
major=${version#v}
((${major%%.*} >= 18)) || die "node is $version, which is too old" "${how[@]}"
have npm || die "there is a node $version, but no npm" "${how[@]}"
say node "$version is ready"
