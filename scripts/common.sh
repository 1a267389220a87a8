# shellcheck shell=bash
# Sourced by every script here: the workspace folder, the cache, and functions for messages.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS=$ROOT/.tools
# The cache of large downloads and builds, by version. All checkouts of a user share it, so that a new clone is ready in seconds.
CACHE=${PENSTOCK_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/penstock}
export ROOT TOOLS CACHE

WASI_TARGET=wasm32-wasip1
PURE_TARGET=wasm32-unknown-unknown
MODULES=(header-routing canary rate-limit egress-allowlist suite)
export WASI_TARGET PURE_TARGET MODULES

# Prints one aligned line about a step: say "envoy" "1.40.0 is ready".
say() { printf '%-24s %s\n' "$1" "$2"; }

# Prints the heading of a larger step.
headline() { printf '\n==> %s\n' "$*"; }

# Ends the script with an error: the first line names the problem, the others the remedy.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    if (($#)); then printf '       %s\n' "$@" >&2; fi
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command quietly; shows its output if it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    if ((status)); then cat "$log" >&2; fi
    rm -f "$log"
    return "$status"
}

# bounded SECONDS COMMAND...: runs the command with `timeout` where that exists (macOS lacks it).
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

# Makes a temporary folder inside the cache, so that a finished result can be moved into place atomically.
scratch_folder() {
    mkdir -p "$CACHE/tmp"
    mktemp -d "$CACHE/tmp/$1.XXXXXX"
}

# Moves a finished folder into place; if another run was faster, its result stays.
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
        # The build must not depend on the caller's flags. The tool runs for seconds, so a fast build matters more than a fast tool.
        local build=(env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET CARGO_TARGET_DIR="$scratch/target"
            CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
            cargo install "$crate" --version "=$version" --no-track --bin "$binary" --root "$scratch/home")
        "${build[@]}" --locked >"$scratch/log" 2>&1 || status=$?
        # A mirror that is behind crates.io may lack a version in the tool's own lock file, but have another suitable version.
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
