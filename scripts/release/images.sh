#!/usr/bin/env bash
# images.sh REGISTRY FOLDER: pushes the modules and the command of a release (FOLDER) as images of its version to REGISTRY, such as
# ghcr.io/penstock-proxy, and prints `kind name@digest` for each manifest. BUILDER and REVISION go into the provenance.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

(($# == 2)) || die "images.sh wants the registry and the folder of the release" \
    "such as: scripts/release/images.sh ghcr.io/you dist/release"
registry=${1%/} folder=$2
version=$(version)
penstock=${PENSTOCK:-dist/penstock}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
about=(--module-version "$version")
if [[ -n ${REVISION:-} ]]; then about+=(--revision "$REVISION"); fi
if [[ -n ${BUILDER:-} ]]; then about+=(--builder "$BUILDER"); fi

cargo metadata --format-version 1 --locked --filter-platform "$WASI_TARGET" >"$scratch/modules.json"
for module in "${MODULES[@]}"; do
    "$penstock" image push "$folder/$module.wasm" "$registry/$module:$version" "${about[@]}" --cargo-metadata "$scratch/modules.json"
done

executables=()
while read -r _ os arch _; do
    [[ $os == linux && -f $folder/penstock-$os-$arch.tar.gz ]] || continue
    mkdir "$scratch/$arch"
    tar -xzf "$folder/penstock-$os-$arch.tar.gz" -C "$scratch/$arch" penstock
    executables+=("$scratch/$arch/penstock")
done < <(targets)
((${#executables[@]})) || die "$folder has no penstock-linux-ARCH.tar.gz"
# The CA certificates: the command has none built in, and the image contains no others.
certificates=${CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}
[[ -f $certificates ]] || die "there is no $certificates" "CERTIFICATES=FILE names the certificates of authorities for the image"
also=()
for other in "${executables[@]:1}"; do also+=(--also "$other"); done
# FILES is for an executable that is not static: PATH=FILE pairs.
files=()
for file in ${FILES:-}; do files+=(--file "$file"); done
"$penstock" image push "${executables[0]}" "$registry/penstock:$version" --name penstock "${also[@]}" "${files[@]}" \
    --file "/etc/ssl/certs/ca-certificates.crt=$certificates" "${about[@]}"
