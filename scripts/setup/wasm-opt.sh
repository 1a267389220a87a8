#!/usr/bin/env bash
# wasm-opt, which makes the modules smaller and faster: Binaryen's own npm package, at the version and hash that wasm-opt/ pins.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

pins=$ROOT/scripts/setup/wasm-opt
version=$(sed -nE 's/^ *"binaryen": "([0-9.]+)".*/\1/p' "$pins/package.json")
home=$CACHE/binaryen-$version

if [[ ! -e $home/node_modules/.bin/wasm-opt ]]; then
    say wasm-opt "downloading binaryen $version from npm (23 MB)"
    scratch=$(scratch_folder binaryen)
    trap 'rm -rf "$scratch"' EXIT
    mkdir "$scratch/home"
    cp "$pins/package.json" "$pins/package-lock.json" "$scratch/home/"
    quietly npm ci --prefix "$scratch/home" --ignore-scripts --no-audit --no-fund ||
        die "npm could not install binaryen $version (above: what it said)" "npm needs its registry, or a mirror of it"
    install_folder "$scratch/home" "$home"
fi
link_tool wasm-opt "$home/node_modules/.bin/wasm-opt"
say wasm-opt "$version is ready"
