#!/usr/bin/env bash
# build.sh TARGET FOLDER: builds the penstock command for a line of targets.txt, as FOLDER/penstock-OS-ARCH.tar.gz.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

(($# == 2)) || die "build.sh wants a target and a folder" "such as: scripts/release/build.sh x86_64-unknown-linux-musl dist/release"
target=$1 folder=$2
read -r _ os arch _ <<<"$(targets | grep "^$target ")" || true
[[ -n ${os:-} ]] || die "$target is not in scripts/release/targets.txt" "known: $(targets | cut -d' ' -f1 | paste -s -d ' ')"
rustup target add "$target"
cargo build --release --locked --target "$target" --package penstock
scripts/release/archive.sh "target/$target/release/penstock" "$os" "$arch" "$folder"
