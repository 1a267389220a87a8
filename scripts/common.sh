# shellcheck shell=bash
# What every script here starts with: the workspace folder, the cache, and how to speak to the user.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS=$ROOT/.tools
# Heavy, versioned downloads and builds. Shared by all checkouts of one user, so that a fresh clone is ready in seconds.
CACHE=${PENSTOCK_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/penstock}
export ROOT TOOLS CACHE

WASI_TARGET=wasm32-wasip1
PURE_TARGET=wasm32-unknown-unknown
MODULES=(header-routing canary rate-limit egress-allowlist suite)
export WASI_TARGET PURE_TARGET MODULES

# One line about a step, aligned: say "envoy" "1.40.0 is ready".
say() { printf '%-24s %s\n' "$1" "$2"; }

# The headline of a larger step.
headline() { printf '\n==> %s\n' "$*"; }

# Ends the script: the first line says what is wrong, the others what to do.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    if (($#)); then printf '       %s\n' "$@" >&2; fi
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command quietly; shows all it said if it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    if ((status)); then cat "$log" >&2; fi
    rm -f "$log"
    return "$status"
}

# bounded SECONDS COMMAND...: `timeout` where there is one (macOS has none).
bounded() {
    local seconds=$1
    shift
    if have timeout; then timeout "$seconds" "$@"; else "$@"; fi
}

# Makes .tools/bin/NAME point at a file of the cache.
link_tool() {
    mkdir -p "$TOOLS/bin"
    ln -sfn "$2" "$TOOLS/bin/$1"
}

# A scratch folder inside the cache, so that a finished result can be moved into place in one step.
scratch_folder() {
    mkdir -p "$CACHE/tmp"
    mktemp -d "$CACHE/tmp/$1.XXXXXX"
}

# Puts a finished folder in its place; when another run was faster, its result stays.
install_folder() {
    local from=$1 to=$2
    mkdir -p "$(dirname "$to")"
    if [[ -e $to ]] || ! mv -T "$from" "$to" 2>/dev/null; then
        [[ -e $to ]] || mv "$from" "$to"
    fi
    rm -rf "$from"
}

# install_crate CRATE VERSION BINARY DURATION: builds a tool from crates.io into the cache, once.
install_crate() {
    local crate=$1 version=$2 binary=$3 duration=$4
    local home=$CACHE/$crate-$version
    if [[ ! -x $home/bin/$binary ]]; then
        say "$binary" "building $crate $version from crates.io ($duration, once)"
        local scratch status=0
        scratch=$(scratch_folder "$crate")
        # The build must not depend on the flags of the one who calls it. The tool runs for seconds: a fast build is worth more
        # than a fast tool.
        local build=(env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET CARGO_TARGET_DIR="$scratch/target"
            CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
            cargo install "$crate" --version "=$version" --no-track --bin "$binary" --root "$scratch/home")
        "${build[@]}" --locked >"$scratch/log" 2>&1 || status=$?
        # A mirror that lags behind crates.io may lack a version that the tool's own lock file names, and have one that does.
        if ((status)) && grep -q 'failed to select a version' "$scratch/log"; then
            status=0
            "${build[@]}" >"$scratch/log" 2>&1 || status=$?
        fi
        if ((status == 0)); then
            install_folder "$scratch/home" "$home"
        else
            cat "$scratch/log" >&2
        fi
        rm -rf "$scratch"
        ((status == 0)) || die "$crate $version could not be built (above: what cargo said)" \
            "cargo needs crates.io, or a mirror of it; or put $binary $version into $home/bin"
    fi
    link_tool "$binary" "$home/bin/$binary"
    say "$binary" "$version is ready"
}
