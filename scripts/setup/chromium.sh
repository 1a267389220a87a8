#!/usr/bin/env bash
# A browser for the tests of `penstock dash`, and axe-core, which checks its accessibility: CHROMIUM_BIN if it is set, or else the
# browser in PATH, or else Debian's package, which needs root. Without them, tests print a line and are skipped, unless CI is set.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

# With CI set, a missing program is an error; otherwise the tests that need it are skipped.
lacking() {
    if [[ ${CI:-} == true ]]; then die "$@"; fi
    say chromium "SKIPPED, so are the tests of the dash in a browser: $1"
    exit 0
}

how="Debian, as root: apt-get install chromium; or set CHROMIUM_BIN to a Chromium or Chrome"
binary=${CHROMIUM_BIN:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [[ -z $binary ]]; then
    have apt-get || lacking "there is no chromium" "$how"
    [[ $(id -u) == 0 ]] || lacking "there is no chromium, and only root can install it" "$how"
    say chromium "installing Debian's package (100 MB)"
    if [[ -z $(apt-cache madison chromium 2>/dev/null) ]]; then quietly apt-get update || true; fi
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium ||
        lacking "apt-get could not install chromium (above: what it said)" "$how"
    binary=$(command -v chromium)
fi
[[ -x $binary ]] || lacking "'$binary' is not an executable file" "$how"
link_tool chromium "$binary"

pins=$ROOT/scripts/setup/browser
version=$(sed -nE 's/^ *"axe-core": "([0-9.]+)".*/\1/p' "$pins/package.json")
home=$CACHE/axe-core-$version
if [[ ! -e $home/node_modules/axe-core/axe.min.js ]]; then
    say axe-core "downloading $version from npm"
    scratch=$(scratch_folder axe-core)
    trap 'rm -rf "$scratch"' EXIT
    mkdir "$scratch/home"
    cp "$pins/package.json" "$pins/package-lock.json" "$scratch/home/"
    quietly npm ci --prefix "$scratch/home" --ignore-scripts --no-audit --no-fund ||
        lacking "npm could not install axe-core $version (above: what it said)" "npm needs its registry, or a mirror of it"
    install_folder "$scratch/home" "$home"
fi
link_tool axe.min.js "$home/node_modules/axe-core/axe.min.js"
say chromium "$("$binary" --version 2>/dev/null | awk '{ print $2; exit }') is ready, with axe-core $version"
