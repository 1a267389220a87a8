#!/usr/bin/env bash
# archive.sh BINARY OS ARCH FOLDER: makes FOLDER/penstock-OS-ARCH.tar.gz with the command and the licence, reproducibly.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# == 4)) || die "archive.sh wants the binary, the system, the architecture and a folder" \
    "such as: scripts/release/archive.sh dist/penstock linux amd64 dist/release"
binary=$1 os=$2 arch=$3 folder=$4
[[ -x $binary ]] || die "$binary is not an executable file" "run: make build"
grep -qx "$os-$arch" <<<"$(targets | awk '{ print $2 "-" $3 }')" || die "$os-$arch is not in scripts/release/targets.txt"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
install -m 755 "$binary" "$scratch/penstock"
install -m 644 "$ROOT/LICENSE" "$scratch/LICENSE"
mkdir -p "$folder"
pack "$folder/penstock-$os-$arch.tar.gz" "$scratch" penstock LICENSE
say "penstock-$os-$arch" "$(sha256 "$folder/penstock-$os-$arch.tar.gz")"
