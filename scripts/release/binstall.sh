#!/usr/bin/env bash
# Prints the metadata of cargo-binstall for targets.txt. cli/Cargo.toml contains it, and a test compares the two.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat <<HEAD
[package.metadata.binstall]
pkg-fmt = "tgz"
bin-dir = "{ bin }{ binary-ext }"
HEAD
entry() {
    printf '\n[package.metadata.binstall.overrides.%s]\n' "$1"
    printf 'pkg-url = "{ repo }/releases/download/v{ version }/penstock-%s-%s.tar.gz"\n' "$2" "$3"
}
while read -r target os arch _; do
    entry "$target" "$os" "$arch"
    # A static command also runs on systems with another C library.
    case $target in *-linux-musl) entry "${target%musl}gnu" "$os" "$arch" ;; esac
done < <(targets)
