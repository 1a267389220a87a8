#!/usr/bin/env bash
# Builds dist/: the five optimised modules, the native body, and the penstock command. The output does not depend on the folder of the checkout.
# PENSTOCK_PROFILE=path builds the native body by a profile that scripts/pgo.sh has made from the same source.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

DIST=$ROOT/dist
OPTIMISED=$ROOT/target/wasm-opt
# Optimises for speed, as in the release profile. The features are those that rustc enables for the target; they are listed here
# because the custom section that names them is stripped from the modules.
OPTIMISE=(-O3 --strip-debug --strip-producers
    --enable-bulk-memory --enable-multivalue --enable-mutable-globals --enable-nontrapping-float-to-int
    --enable-reference-types --enable-sign-ext)

# Panics and debug information contain paths of source files. These flags make the paths independent of the machine.
remap_flags() {
    local cargo_home=${CARGO_HOME:-$HOME/.cargo} registry
    printf '%s\n' "--remap-path-prefix=$cargo_home=/cargo"
    # The folder of a registry is named after its address, which differs where crates.io is mirrored. rustc uses the last prefix
    # that matches.
    for registry in "$cargo_home"/registry/src/*/; do
        printf '%s\n' "--remap-path-prefix=${registry%/}=/cargo/registry"
    done
    printf '%s\n' "--remap-path-prefix=$(rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')"
    printf '%s\n' "--remap-path-prefix=$ROOT=/penstock"
}

# build TARGET PROFILE PACKAGE...: passes --target even for this machine, so that the flags apply neither to build scripts nor to target/release,
# whose content other commands would otherwise have to rebuild without the flags.
build() {
    local target=$1 profile=$2
    shift 2
    env -u RUSTFLAGS CARGO_ENCODED_RUSTFLAGS="$flags" \
        cargo build --profile "$profile" --locked --target-dir target --target "$target" "${@/#/--package=}"
}

# optimise MODULE: makes dist/MODULE.wasm from cargo's output. Takes seconds, so the result is cached by the input.
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

# Must run before the flags are made, which contain the folders that this creates.
quietly cargo fetch --locked || die "cargo could not fetch the dependencies (above: what it said)"
flags=$(remap_flags | paste -s -d $'\x1f')
HOST_TARGET=$(rustc -vV | sed -n 's/^host: //p')

# The name of the profile's copy is its hash, so that cargo builds again when the content changes.
native_flags=$flags
if [[ -n ${PENSTOCK_PROFILE:-} ]]; then
    [[ -f $PENSTOCK_PROFILE ]] || die "PENSTOCK_PROFILE: there is no $PENSTOCK_PROFILE" "run: make pgo"
    profile=$ROOT/target/profiles/$(git hash-object "$PENSTOCK_PROFILE").profdata
    mkdir -p "${profile%/*}"
    cp "$PENSTOCK_PROFILE" "$profile"
    native_flags+=$'\x1f'-Cprofile-use=$profile
fi

# All at once: the profiles have folders of their own, so no build waits for another, and what links on one core leaves the others
# to the rest.
headline "Build: the modules ($WASI_TARGET), the penstock command, the native body"
build "$WASI_TARGET" release "${MODULES[@]/#/penstock-}" &
modules=$!
build "$HOST_TARGET" command penstock &
command=$!
native=
# Envoy supports dynamic modules only on Linux.
if [[ $HOST_TARGET == *-linux-gnu ]]; then
    flags=$native_flags build "$HOST_TARGET" native penstock-native &
    native=$!
fi
wait "$modules" || die "the modules could not be built (above: why)"
wait "$command" || die "the penstock command could not be built (above: why)"
if [[ -n $native ]]; then wait "$native" || die "the native body could not be built (above: why)"; fi

mkdir -p "$DIST" "$OPTIMISED"
pids=()
for module in "${MODULES[@]}"; do
    optimise "$module" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || die "wasm-opt failed (above: what it said)"; done
install -m 755 "target/$HOST_TARGET/command/penstock" "$DIST/penstock"

node scripts/check-modules.mjs "${MODULES[@]/#/$DIST/}"
if [[ $HOST_TARGET == *-linux-gnu ]]; then
    # Moved into place, so that an Envoy that has the old file open keeps it.
    install -m 755 "target/$HOST_TARGET/native/libpenstock.so" "$DIST/libpenstock.so.part"
    mv "$DIST/libpenstock.so.part" "$DIST/libpenstock.so"
    rm -f "$DIST/penstock.profdata"
    if [[ -n ${PENSTOCK_PROFILE:-} ]]; then install -m 644 "$profile" "$DIST/penstock.profdata"; fi
    node scripts/check-library.mjs "$DIST/libpenstock.so"
fi
