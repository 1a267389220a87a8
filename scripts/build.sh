#!/usr/bin/env bash
# dist/: the five modules, optimised, the native body, and the penstock command. The same bytes in whatever folder this is run.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

DIST=$ROOT/dist
OPTIMISED=$ROOT/target/wasm-opt
# Speed first, as in the release profile. The features are those that rustc enables for the target: the modules, stripped of
# their custom sections, no longer say so themselves.
OPTIMISE=(-O3 --strip-debug --strip-producers
    --enable-bulk-memory --enable-multivalue --enable-mutable-globals --enable-nontrapping-float-to-int
    --enable-reference-types --enable-sign-ext)

# Panics and debug information name source files. These flags give them names that do not depend on the machine.
remap_flags() {
    local cargo_home=${CARGO_HOME:-$HOME/.cargo} registry
    printf '%s\n' "--remap-path-prefix=$cargo_home=/cargo"
    # The folder of a registry is named after its address, which is another one where crates.io is mirrored. rustc takes the
    # last prefix that fits.
    for registry in "$cargo_home"/registry/src/*/; do
        printf '%s\n' "--remap-path-prefix=${registry%/}=/cargo/registry"
    done
    printf '%s\n' "--remap-path-prefix=$(rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')"
    printf '%s\n' "--remap-path-prefix=$ROOT=/penstock"
}

# build TARGET PROFILE PACKAGE...: with --target even for this machine, so that the flags reach neither build scripts nor target/release,
# where every other command would have to build again what was built without them.
build() {
    local target=$1 profile=$2
    shift 2
    env -u RUSTFLAGS CARGO_ENCODED_RUSTFLAGS="$flags" \
        cargo build --profile "$profile" --locked --target-dir target --target "$target" "${@/#/--package=}"
}

# optimise MODULE: dist/MODULE.wasm out of what cargo built. Takes seconds, so it is only done for bytes not seen before.
optimise() {
    local module=$1 built=target/$WASI_TARGET/release/penstock_${1//-/_}.wasm key optimised
    key=$({ printf '%s\n' "${OPTIMISE[@]}" "$(readlink "$TOOLS/bin/wasm-opt")"; cat "$built"; } | git hash-object --stdin)
    optimised=$OPTIMISED/$module-$key.wasm
    if [[ ! -f $optimised ]]; then
        rm -f "$OPTIMISED/$module-"*
        "$TOOLS/bin/wasm-opt" "$built" "${OPTIMISE[@]}" -o "$optimised.part"
        mv "$optimised.part" "$optimised"
    fi
    install -m 644 "$optimised" "$DIST/$module.wasm"
}

[[ -e $TOOLS/bin/wasm-opt ]] || die "there is no .tools/bin/wasm-opt" "run: make setup"

headline "Build: the modules ($WASI_TARGET)"
# Before the flags are made: they name the folders that this creates.
quietly cargo fetch --locked || die "cargo could not fetch the dependencies (above: what it said)"
flags=$(remap_flags | paste -s -d $'\x1f')
build "$WASI_TARGET" release "${MODULES[@]/#/penstock-}"

HOST_TARGET=$(rustc -vV | sed -n 's/^host: //p')
headline "Build: the penstock command"
build "$HOST_TARGET" release penstock

# Envoy's dynamic modules are there on Linux alone.
if [[ $HOST_TARGET == *-linux-gnu ]]; then
    headline "Build: the native body"
    build "$HOST_TARGET" native penstock-native
fi

mkdir -p "$DIST" "$OPTIMISED"
pids=()
for module in "${MODULES[@]}"; do
    optimise "$module" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || die "wasm-opt failed (above: what it said)"; done
install -m 755 "target/$HOST_TARGET/release/penstock" "$DIST/penstock"

node scripts/check-modules.mjs "${MODULES[@]/#/$DIST/}"
if [[ $HOST_TARGET == *-linux-gnu ]]; then
    # Moved, not written: an Envoy that has the old one open keeps it.
    install -m 755 "target/$HOST_TARGET/native/libpenstock.so" "$DIST/libpenstock.so.part"
    mv "$DIST/libpenstock.so.part" "$DIST/libpenstock.so"
    node scripts/check-library.mjs "$DIST/libpenstock.so"
fi
