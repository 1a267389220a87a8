#!/usr/bin/env bash
# rust-targets.sh [TARGET...]: the standard library for these targets, by default the two of wasm, in the toolchain that
# rust-toolchain.toml selects. From rustup's server; where that cannot be reached, built from the Rust source of exactly this version.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
# rustup selects the toolchain by the working folder, so rustc and cargo always run in this folder.
cd "$ROOT"

release=$(rustc -vV | sed -n 's/^release: //p')
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
sysroot=$(rustc --print sysroot)
rustlib=$sysroot/lib/rustlib
scratch=$(scratch_folder rust-targets)
linked_source=
clean_up() {
    if [[ -n $linked_source ]]; then rm -f "$linked_source"; rmdir "${linked_source%/*}" "${linked_source%/*/*}" 2>/dev/null || true; fi
    rm -rf "$scratch"
}
trap clean_up EXIT

# A program that needs core, alloc, std and the test harness. Compiling it proves that a target's library is complete; its file names do not.
cat >"$scratch/probe.rs" <<'RS'
fn main() {
    println!("{:?}", std::env::args().collect::<Vec<_>>());
}

#[test]
fn the_test_harness_links() {}
RS

# works TARGET [RUSTC OPTION...]: for another processor without linking, because the linker depends on the system's packages.
works() {
    local target=$1
    shift
    if [[ $target != wasm32-* ]]; then set -- "$@" --emit=metadata; fi
    rustc --edition 2024 --target "$target" "$@" -o "$scratch/probe.wasm" "$scratch/probe.rs" >"$scratch/probe.log" 2>&1
}

usable() { works "$1" --test; }

# --- the Rust source ---------------------------------------------------------------------------------------------------------

# Makes `library` of the matching source available where cargo looks for it, and prints its origin.
find_rust_source() {
    local place=$rustlib/src/rust
    if [[ -e $place/library/Cargo.lock ]]; then
        say "rust source" "the toolchain's own rust-src"
        return
    fi
    mkdir -p "$scratch/source"
    if [[ -n ${RUST_SRC_TARBALL:-} ]]; then
        [[ -f $RUST_SRC_TARBALL ]] || die "RUST_SRC_TARBALL is '$RUST_SRC_TARBALL', which is not a file"
        tar -xf "$RUST_SRC_TARBALL" -C "$scratch/source" ||
            die "RUST_SRC_TARBALL ('$RUST_SRC_TARBALL') cannot be unpacked" "is xz installed?"
        say "rust source" "$(basename "$RUST_SRC_TARBALL")"
    else
        source_from_debian
    fi
    local library
    library=$(find "$scratch/source" -maxdepth 6 -path '*/library/Cargo.lock' -print -quit)
    [[ -n $library ]] || die "the Rust source has no library/Cargo.lock" "pass the whole 'library' folder of the source"
    library=${library%/Cargo.lock}
    [[ ${library#"$scratch/source"} == *"$release"* || $(cat "$library/../version" 2>/dev/null) == "$release"* ]] ||
        die "the Rust source is not that of Rust $release, found: ${library#"$scratch/source/"}" \
            "the standard library can only be built from the source of exactly the installed version"
    mkdir -p "$place" || die "cannot write to the toolchain in $sysroot" "run this as the user who owns it"
    linked_source=$place/library
    ln -sfn "$library" "$linked_source"
}

source_from_debian() {
    local version=
    if have apt-get; then
        version=$(debian_version rust-src | grep -m1 "^$release+" || true)
    fi
    [[ -n $version ]] || die "no way to get ${missing[*]} of Rust $release:" \
        "- rustup could not add them, or believes wrongly that they are there (see: rustup target add ${missing[*]})" \
        "- the toolchain has no rust-src to build them from" \
        "- RUST_SRC_TARBALL is not set" \
        "- this machine's apt has no package rust-src of version $release" \
        "let rustup reach its server, or set RUST_SRC_TARBALL to an archive of the source of Rust $release (its 'library' folder)"
    debian_unpack "rust-src=$version" "$scratch/source" || die "apt-get could not download rust-src $version"
    say "rust source" "Debian's rust-src $version"
}

# The versions of a Debian package that apt knows.
debian_version() { apt-cache madison "$1" 2>/dev/null | cut -d'|' -f2 | tr -d ' '; }

# debian_unpack PACKAGE[=VERSION] FOLDER: unpacks without installing, so it needs no root.
debian_unpack() {
    local into=$scratch/deb
    rm -rf "$into" && mkdir -p "$into"
    (cd "$into" && quietly apt-get download "$1") || return
    dpkg-deb --extract "$into"/*.deb "$2"
}

# --- wasi-libc ---------------------------------------------------------------------------------------------------------------

WASI_OBJECTS=(crt1-command.o crt1-reactor.o libc.a)

has_wasi_objects() {
    local object
    for object in "${WASI_OBJECTS[@]}"; do [[ -f $1/$object ]] || return 1; done
}

# Copies the files that std for wasm32-wasip1 links against to the folder where rustup would put them.
install_wasi_libc() {
    local into=$1 folder
    for folder in "${WASI_LIBC_DIR:-}" /usr/lib/wasm32-wasi /usr/share/wasi-sysroot/lib/wasm32-wasi{p1,}; do
        if [[ -n $folder ]] && has_wasi_objects "$folder"; then break; fi
        folder=
    done
    if [[ -z $folder ]] && have apt-get; then
        # Without `apt-get update`, apt knows no packages.
        if [[ -z $(debian_version wasi-libc) && $(id -u) == 0 ]]; then quietly apt-get update || true; fi
        debian_unpack wasi-libc "$scratch/wasi-libc" || true
        folder=$scratch/wasi-libc/usr/lib/wasm32-wasi
    fi
    if [[ -z $folder ]] || ! has_wasi_objects "$folder"; then
        die "no wasi-libc, which the $WASI_TARGET target links against" \
            "install it (Debian: apt-get install wasi-libc), or set WASI_LIBC_DIR to a folder with ${WASI_OBJECTS[*]}"
    fi
    mkdir -p "$into"
    local object
    for object in "${WASI_OBJECTS[@]}"; do cp "$folder/$object" "$into/"; done
}

# --- std ---------------------------------------------------------------------------------------------------------------------

# build_std TARGET...
build_std() {
    local target
    for target in "$@"; do
        mkdir -p "$scratch/stage/$target/lib"
        # Done before the long part, because it can fail.
        if [[ $target == "$WASI_TARGET" ]]; then install_wasi_libc "$scratch/stage/$target/lib/self-contained"; fi
    done
    # Only the standard library that is built for this package is used.
    mkdir -p "$scratch/std/src"
    cat >"$scratch/std/Cargo.toml" <<'TOML'
[package]
name = "penstock-std"
version = "0.0.0"
edition = "2024"

[profile.release]
codegen-units = 1
debug = false

[workspace]
TOML
    echo '#![no_std]' >"$scratch/std/src/lib.rs"
    # Bitcode, because our modules are linked with LTO; mapped paths, because panics name source files and our builds are
    # to be the same on every machine.
    local library=$rustlib/src/rust/library
    local flags=(-Cembed-bitcode=yes
        "--remap-path-prefix=$(readlink -f "$library")=/rustc/$commit/library"
        "--remap-path-prefix=$library=/rustc/$commit/library"
        "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo")
    local encoded
    encoded=$(printf '%s\x1f' "${flags[@]}")
    RUSTC_BOOTSTRAP=1 CARGO_ENCODED_RUSTFLAGS=${encoded%$'\x1f'} CARGO_TARGET_DIR=$scratch/std/target \
        quietly cargo build --release --lib -Zbuild-std=std,panic_abort,test "${@/#/--target=}" \
        --manifest-path "$scratch/std/Cargo.toml" ||
        die "the standard library for $* could not be built (above: what cargo said)" \
            "cargo needs crates.io, or a mirror of it, for the few crates that the standard library depends on"
    local rlib
    for target in "$@"; do
        for rlib in "$scratch/std/target/$target/release/deps/"*.rlib; do
            [[ $rlib == */libpenstock_std-* ]] || cp "$rlib" "$scratch/stage/$target/lib/"
        done
        # The existing files do not work (an interrupted install, files of another version) and must not be mixed with new ones.
        rm -rf "${rustlib:?}/$target"
        mv "$scratch/stage/$target" "$rustlib/$target" ||
            die "cannot write to the toolchain in $sysroot" "run this as the user who owns it"
    done
}

# -----------------------------------------------------------------------------------------------------------------------------

# ready TARGET: prints that it is ready, and removes what cargo built here with another std of the same version (rustup's instead of ours,
# or the other way round). Cargo cannot distinguish them, and rustc would only report that it "can't find crate".
ready() {
    local built=$ROOT/target/$1 std
    std=$(cksum "$rustlib/$1/lib/"libstd-*.rlib | cut -d' ' -f1,2)
    if [[ $(cat "$built/.std" 2>/dev/null) != "$std" ]]; then
        rm -rf "$built"
        mkdir -p "$built"
        echo "$std" >"$built/.std"
    fi
    say "$1" "is ready"
}

targets=("$@") missing=() unbuilt=()
if ! ((${#targets[@]})); then targets=("$WASI_TARGET" "$PURE_TARGET"); fi
for target in "${targets[@]}"; do
    if usable "$target"; then ready "$target"; else missing+=("$target"); fi
done
if ! ((${#missing[@]})); then exit 0; fi

if have rustup; then
    say "rust targets" "asking rustup for ${missing[*]}"
    bounded 300 rustup target add "${missing[@]}" </dev/null >"$scratch/rustup.log" 2>&1 ||
        say "rust targets" "rustup could not: $(grep -m1 '^error' "$scratch/rustup.log" || echo 'no answer in 300 s')"
fi

for target in "${missing[@]}"; do
    if ! usable "$target"; then unbuilt+=("$target"); fi
done

if ((${#unbuilt[@]})); then
    find_rust_source
    say "rust targets" "building std of Rust $release for ${unbuilt[*]} (1-2 minutes)"
    build_std "${unbuilt[@]}"
fi

for target in "${missing[@]}"; do
    if ! works "$target" --test || ! works "$target" -Clto=fat; then
        cat "$scratch/probe.log" >&2
        die "the standard library for $target is installed, but a program does not link with it (above)"
    fi
    ready "$target"
done
