#!/usr/bin/env bash
# An image registry for the tests of `penstock image`: DOCKER_REGISTRY_BIN if it is set, or else the one in PATH, or else Debian's
# package, unpacked into the cache (so it needs no root, and starts no service).
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

how=("Debian: apt-get install docker-registry; or set DOCKER_REGISTRY_BIN to a binary of github.com/distribution/distribution")
home=$CACHE/docker-registry
binary=${DOCKER_REGISTRY_BIN:-$(command -v docker-registry || true)}
if [[ -z $binary ]]; then
    binary=$home/usr/bin/docker-registry
    if [[ ! -x $binary ]]; then
        if ! have apt-get || ! have dpkg-deb; then die "there is no docker-registry" "${how[@]}"; fi
        say registry "downloading Debian's docker-registry (6 MB)"
        scratch=$(scratch_folder registry)
        trap 'rm -rf "$scratch"' EXIT
        if [[ -z $(apt-cache madison docker-registry 2>/dev/null) && $(id -u) == 0 ]]; then quietly apt-get update || true; fi
        (cd "$scratch" && quietly apt-get download docker-registry) ||
            die "apt-get could not download docker-registry (above: what it said)" "${how[@]}"
        dpkg-deb --extract "$scratch"/docker-registry*.deb "$scratch/home"
        install_folder "$scratch/home" "$home"
    fi
fi
[[ -x $binary ]] || die "'$binary' is not an executable file" "${how[@]}"
link_tool docker-registry "$(cd "$(dirname "$binary")" && pwd)/$(basename "$binary")"
say registry "$("$binary" --version | awk '{print $NF}') is ready"
