#!/usr/bin/env bash
# Makes OCI images of the modules and the native body: in dist/images, or pushed to the given registry and path (ghcr.io/you/penstock). VERSION is the tag.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

registry=${1:-}
version=${VERSION:-$(cargo pkgid --package penstock | sed -E 's/.*[#@]//')}
mkdir -p "$ROOT/target"
metadata=$ROOT/target/metadata.json
cargo metadata --format-version 1 --locked --filter-platform "$WASI_TARGET" >"$metadata"
about=(--module-version "$version" --cargo-metadata "$metadata")
# A build with uncommitted changes does not claim a revision.
if [[ -z $(git status --porcelain 2>/dev/null || echo none) ]]; then about+=(--revision "$(git rev-parse HEAD)"); fi
if [[ -n ${BUILDER:-} ]]; then about+=(--builder "$BUILDER"); fi

# image FILE NAME [FLAG...]
image() {
    local file=$1 name=$2
    shift 2
    headline "$name"
    if [[ -n $registry ]]; then
        dist/penstock image push "$file" "${registry%/}/$name:$version" "${about[@]}" "$@"
    else
        dist/penstock image build "$file" --output "dist/images/$name" "${about[@]}" "$@"
    fi
}

for module in "${MODULES[@]}"; do image "dist/$module.wasm" "$module"; done

# For an image volume. Images for an init container, or based on Envoy, are made by the operator: see docs/native.md.
if [[ -f dist/libpenstock.so ]]; then
    cargo metadata --format-version 1 --locked --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" >"$metadata"
    image dist/libpenstock.so libpenstock
fi
