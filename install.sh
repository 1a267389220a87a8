#!/bin/sh
# Installs the penstock command and the wasm modules of a release. Nothing is installed unless its checksum is right.
#
#   curl -fsSL https://github.com/penstock-proxy/penstock/releases/latest/download/install.sh | sh
#
# PENSTOCK_VERSION   a version such as 0.1.0; default: the newest release
# PENSTOCK_BIN       the folder for the command; default: ~/.local/bin
# PENSTOCK_SHARE     the folder for the modules; default: ~/.local/share/penstock
# PENSTOCK_RELEASES  the address of the releases, for example of a mirror
set -eu

# A function, so that the shell reads the whole script before it runs any of it: an incomplete download does nothing.
install_penstock() {

releases=${PENSTOCK_RELEASES:-https://github.com/penstock-proxy/penstock/releases}
bin=${PENSTOCK_BIN:-${HOME:?HOME is not set}/.local/bin}
share=${PENSTOCK_SHARE:-${HOME:?HOME is not set}/.local/share/penstock}

# die MESSAGE [HELP]: prints what is wrong and what to do, and exits.
die() {
    printf 'error: %s\n' "$1" >&2
    if [ $# -gt 1 ]; then printf '       %s\n' "$2" >&2; fi
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

usage='Installs the penstock command and the wasm modules of a release. It takes no arguments; these variables change what it does:
  PENSTOCK_VERSION   a version such as 0.1.0; default: the newest release
  PENSTOCK_BIN       the folder for the command; default: ~/.local/bin
  PENSTOCK_SHARE     the folder for the modules; default: ~/.local/share/penstock
  PENSTOCK_RELEASES  the address of the releases, for example of a mirror'
case ${1:-} in
'') ;;
-h | --help)
    printf '%s\n' "$usage"
    exit
    ;;
*) die "unknown argument $1: this script takes none" "for a certain version, set PENSTOCK_VERSION=0.1.0; install.sh --help shows all variables" ;;
esac

case $(uname -s) in
Linux) os=linux ;;
Darwin) os=darwin ;;
*) die "releases do not support $(uname -s), only Linux and macOS" "build it from source: https://github.com/penstock-proxy/penstock" ;;
esac
case $(uname -m) in
x86_64 | amd64) arch=amd64 ;;
aarch64 | arm64) arch=arm64 ;;
*) die "releases do not support the processor $(uname -m), only x86-64 and aarch64" "build it from source: https://github.com/penstock-proxy/penstock" ;;
esac

version=${PENSTOCK_VERSION:-}
version=${version#v}
if [ -n "$version" ]; then from=$releases/download/v$version; else from=$releases/latest/download; fi

if have curl; then
    fetch() { curl --fail --silent --show-error --location --connect-timeout 20 --speed-limit 1 --speed-time 30 --output "$2" "$1"; }
elif have wget; then
    # Options that busybox has, too.
    fetch() { wget -q -T 30 -O "$2" "$1"; }
else
    die "curl or wget is needed, and this machine has neither" "install one of them, and run this script again"
fi
if have sha256sum; then
    sha256() { sha256sum "$1" | cut -d' ' -f1; }
elif have shasum; then
    sha256() { shasum -a 256 "$1" | cut -d' ' -f1; }
else
    die "sha256sum or shasum is needed to check the download, and this machine has neither" "install one of them, and run this script again"
fi
for program in awk mktemp tar; do
    have "$program" || die "$program is needed, and this machine does not have it" "install it, and run this script again"
done

# writable FOLDER VARIABLE: exits if the folder cannot be created or written to. Checked before the download.
writable() {
    folder=$1
    while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
    [ -d "$folder" ] || die "cannot install into $1: $folder is not a folder" "choose another folder with $2"
    [ -w "$folder" ] || die "cannot install into $1: no permission to write to $folder" "choose another folder with $2"
}
writable "$bin" PENSTOCK_BIN
writable "$share" PENSTOCK_SHARE
[ ! -d "$bin/penstock" ] || die "$bin/penstock is a folder" "remove it, or choose another folder with PENSTOCK_BIN"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

download() {
    fetch "$from/$1" "$scratch/$1" ||
        die "cannot download $from/$1" "check the network connection, and that the release exists: $releases"
}

# checked FILE: downloads it, and exits unless its checksum is the one in SHA256SUMS.
checked() {
    expected=$(awk -v file="$1" '$2 == file { print $1 }' "$scratch/SHA256SUMS")
    [ -n "$expected" ] ||
        die "the release at $from has no $1" "its SHA256SUMS does not contain this file; look at what the server sends for $from/SHA256SUMS"
    download "$1"
    found=$(sha256 "$scratch/$1")
    [ "$found" = "$expected" ] ||
        die "$1 has the checksum $found, expected $expected" "the download is incomplete or was changed, so nothing was installed; run this script again"
}

download SHA256SUMS
checked "penstock-$os-$arch.tar.gz"
checked penstock-modules.tar.gz

mkdir "$scratch/command" "$scratch/modules"
tar -xzf "$scratch/penstock-$os-$arch.tar.gz" -C "$scratch/command"
tar -xzf "$scratch/penstock-modules.tar.gz" -C "$scratch/modules"
installed=$("$scratch/command/penstock" --version) ||
    die "the command of this release does not run on this machine (above: why), so nothing was installed" \
        "if permission was denied, set TMPDIR to a folder from which programs may run"

mkdir -p "$bin" "$share" || die "cannot create $bin or $share" "choose other folders with PENSTOCK_BIN and PENSTOCK_SHARE"
# Files are moved into place, so that a running command is not overwritten.
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

install_penstock "$@"
