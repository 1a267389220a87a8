#!/usr/bin/env bash
# The modules as OCI images: into dist/images, or with a registry and a path (ghcr.io/you/penstock) to there. VERSION is the tag.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

registry=${1:-}
version=${VERSION:-$(cargo pkgid --package penstock | sed -E 's/.*[#@]//')}
mkdir -p "$ROOT/target"
metadata=$ROOT/target/metadata.json
cargo metadata --format-version 1 --locked --filter-platform "$WASI_TARGET" >"$metadata"
about=(--module-version "$version" --cargo-metadata "$metadata")
# What is not committed has no name; a build of it does not claim one.
if [[ -z $(git status --porcelain 2>/dev/null || echo none) ]]; then about+=(--revision "$(git rev-parse HEAD)"); fi
if [[ -n ${BUILDER:-} ]]; then about+=(--builder "$BUILDER"); fi

for module in "${MODULES[@]}"; do
    headline "$module"
    if [[ -n $registry ]]; then
        dist/penstock image push "dist/$module.wasm" "${registry%/}/$module:$version" "${about[@]}"
    else
        dist/penstock image build "dist/$module.wasm" --output "dist/images/$module" "${about[@]}"
    fi
done
