#!/usr/bin/env bash
# checksums.sh FOLDER: makes FOLDER/SHA256SUMS with a line for each file of a release, in the format of `sha256sum --check`.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# == 1)) || die "checksums.sh wants the folder of the release" "such as: scripts/release/checksums.sh dist/release"
cd "$1"
sums=$(for file in *; do
    case $file in SHA256SUMS* | *.sigstore.json) continue ;; esac
    if [[ -f $file ]]; then printf '%s  %s\n' "$(sha256 "$file")" "$file"; fi
done)
[[ -n $sums ]] || die "$1 has no files"
printf '%s\n' "$sums" >SHA256SUMS
say SHA256SUMS "$(wc -l <SHA256SUMS | tr -d ' ') files"
