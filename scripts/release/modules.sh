#!/usr/bin/env bash
# modules.sh DIST FOLDER: copies the wasm modules of DIST to FOLDER, and packs them with the bootstrap for a first try as
# penstock-modules.tar.gz. With ARCH=amd64 or ARCH=arm64 also copies DIST/libpenstock.so, if it exists, as libpenstock-linux-ARCH.so,
# and the profile that it was built by.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# == 2)) || die "modules.sh wants dist/ and a folder" "such as: scripts/release/modules.sh dist dist/release"
dist=$1 folder=$2
mkdir -p "$folder"
for module in "${MODULES[@]}"; do
    [[ -f $dist/$module.wasm ]] || die "there is no $dist/$module.wasm" "run: make build"
    install -m 644 "$dist/$module.wasm" "$folder/$module.wasm"
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for module in "${MODULES[@]}"; do install -m 644 "$dist/$module.wasm" "$scratch"; done
install -m 644 "$ROOT/LICENSE" "$ROOT/envoy-configs/quickstart.yaml" "$scratch"
pack "$folder/penstock-modules.tar.gz" "$scratch" "${MODULES[@]/%/.wasm}" quickstart.yaml LICENSE
say penstock-modules "$(sha256 "$folder/penstock-modules.tar.gz")"
if [[ -n ${ARCH:-} && -f $dist/libpenstock.so ]]; then
    install -m 755 "$dist/libpenstock.so" "$folder/libpenstock-linux-$ARCH.so"
    say "libpenstock-linux-$ARCH" "$(sha256 "$folder/libpenstock-linux-$ARCH.so")"
    if [[ -f $dist/penstock.profdata ]]; then
        install -m 644 "$dist/penstock.profdata" "$folder/libpenstock-linux-$ARCH.profdata"
    fi
fi
