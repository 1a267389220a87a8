#!/usr/bin/env bash
# The load generators of `make bench`: wrk (HTTP/1.1) and h2load (HTTP/2). Only Debian is supported; nothing else here needs root.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

missing=()
have wrk || missing+=(wrk)
have h2load || missing+=(nghttp2-client)
if ((${#missing[@]})); then
    have apt-get || die "no ${missing[*]}, and no apt-get to install them with" "install wrk and nghttp2's h2load"
    [[ $(id -u) == 0 ]] || die "no ${missing[*]}" "as root: apt-get install ${missing[*]}"
    say bench "installing ${missing[*]}"
    quietly apt-get update || true
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" ||
        die "apt-get could not install ${missing[*]} (above: what it said)"
fi
say bench "wrk and h2load are ready"
