#!/bin/sh
# Installs the penstock command and the wasm modules of a release. Nothing is installed unless its checksum is right.
#
#   curl -fsSL https://github.com/penstock-proxy/penstock/releases/latest/download/install.sh | sh
#
# PENSTOCK_VERSION   a version such as 0.1.0; without it the newest release
# PENSTOCK_BIN       the folder for the command; ~/.local/bin
# PENSTOCK_SHARE     the folder for the modules; ~/.local/share/penstock
# PENSTOCK_RELEASES  where releases are, such as a mirror
set -eu

# All of it is read before any of it runs: a download that breaks off does nothing.
install_penstock() {

releases=${PENSTOCK_RELEASES:-https://github.com/penstock-proxy/penstock/releases}
bin=${PENSTOCK_BIN:-${HOME:?HOME is not set}/.local/bin}
share=${PENSTOCK_SHARE:-$HOME/.local/share/penstock}

# die FIRST [MORE]: what is wrong, and what to do.
die() {
    printf 'error: %s\n' "$1" >&2
    if [ $# -gt 1 ]; then printf '       %s\n' "$2" >&2; fi
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

case $(uname -s) in
Linux) os=linux ;;
Darwin) os=darwin ;;
*) die "there is no penstock for $(uname -s)" "releases have it for Linux and macOS; build it with cargo elsewhere" ;;
esac
case $(uname -m) in
x86_64 | amd64) arch=amd64 ;;
aarch64 | arm64) arch=arm64 ;;
*) die "there is no penstock for a processor of the kind $(uname -m)" "releases have it for x86-64 and aarch64" ;;
esac

version=${PENSTOCK_VERSION:-}
version=${version#v}
if [ -n "$version" ]; then from=$releases/download/v$version; else from=$releases/latest/download; fi

if have curl; then
    fetch() { curl --fail --silent --show-error --location --output "$2" "$1"; }
elif have wget; then
    fetch() { wget --quiet --output-document="$2" "$1"; }
else
    die "there is neither curl nor wget to download with"
fi
if have sha256sum; then
    sha256() { sha256sum "$1" | cut -d' ' -f1; }
elif have shasum; then
    sha256() { shasum -a 256 "$1" | cut -d' ' -f1; }
else
    die "there is neither sha256sum nor shasum to check a download with"
fi
have tar || die "there is no tar to unpack with"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

download() {
    fetch "$from/$1" "$scratch/$1" || die "cannot download $from/$1" "does that release exist? see $releases"
}

# checked FILE: downloads it, and ends unless its checksum is the one that SHA256SUMS has.
checked() {
    expected=$(awk -v file="$1" '$2 == file { print $1 }' "$scratch/SHA256SUMS")
    [ -n "$expected" ] || die "the release at $from has no $1" "SHA256SUMS does not name it"
    download "$1"
    found=$(sha256 "$scratch/$1")
    [ "$found" = "$expected" ] ||
        die "$1 has the checksum $found, expected $expected" "the download is damaged or was changed; nothing was installed"
}

download SHA256SUMS
checked "penstock-$os-$arch.tar.gz"
checked penstock-modules.tar.gz

mkdir "$scratch/command" "$scratch/modules"
tar -xzf "$scratch/penstock-$os-$arch.tar.gz" -C "$scratch/command"
tar -xzf "$scratch/penstock-modules.tar.gz" -C "$scratch/modules"
installed=$("$scratch/command/penstock" --version) || die "the command of this release does not run on this machine"

mkdir -p "$bin" "$share" || die "cannot make $bin or $share" "choose other folders with PENSTOCK_BIN and PENSTOCK_SHARE"
# Moved into place, so that a command that runs is not written to.
cp "$scratch/command/penstock" "$bin/.penstock.part" || die "cannot write to $bin" "choose another folder with PENSTOCK_BIN"
chmod 755 "$bin/.penstock.part"
mv -f "$bin/.penstock.part" "$bin/penstock"
for file in "$scratch"/modules/*.wasm "$scratch"/modules/*.yaml; do
    cp "$file" "$share/.part" || die "cannot write to $share" "choose another folder with PENSTOCK_SHARE"
    mv -f "$share/.part" "$share/$(basename "$file")"
done

printf '%s is in %s, the modules are in %s\n' "$installed" "$bin" "$share"
# shellcheck disable=SC2016 # The shell of the reader expands it.
case :$PATH: in
*":$bin:"*) ;;
*) printf 'add the folder to your PATH: export PATH="%s:$PATH"\n' "$bin" ;;
esac

}

install_penstock
