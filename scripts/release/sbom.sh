#!/usr/bin/env bash
# sbom.sh FOLDER: makes bills of materials (CycloneDX) for the modules and native bodies in FOLDER and for the command, with dist/penstock.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

(($# == 1)) || die "sbom.sh wants the folder of the release" "such as: scripts/release/sbom.sh dist/release"
folder=$1
penstock=${PENSTOCK:-dist/penstock}
[[ -x $penstock ]] || die "there is no $penstock" "run: make build"
metadata=$(mktemp)
trap 'rm -f "$metadata"' EXIT
cargo metadata --format-version 1 --locked --filter-platform "$WASI_TARGET" >"$metadata"
for module in "${MODULES[@]}"; do
    "$penstock" image sbom "$folder/$module.wasm" --cargo-metadata "$metadata" >"$folder/$module.cdx.json"
done
while read -r target os arch _; do
    archive=$folder/penstock-$os-$arch.tar.gz
    [[ -f $archive ]] || continue
    cargo metadata --format-version 1 --locked --filter-platform "$target" >"$metadata"
    tar -xzf "$archive" -O penstock >"$folder/penstock.part"
    "$penstock" image sbom "$folder/penstock.part" --name penstock --cargo-metadata "$metadata" >"$folder/penstock-$os-$arch.cdx.json"
    rm "$folder/penstock.part"
done < <(targets)
# The name of the processor in Rust, and in the name of the file.
while read -r machine arch; do
    library=$folder/libpenstock-linux-$arch.so
    [[ -f $library ]] || continue
    cargo metadata --format-version 1 --locked --filter-platform "$machine-unknown-linux-gnu" >"$metadata"
    "$penstock" image sbom "$library" --name libpenstock --cargo-metadata "$metadata" >"${library%.so}.cdx.json"
done <<<$'x86_64 amd64\naarch64 arm64'
