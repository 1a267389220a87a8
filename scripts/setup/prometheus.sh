#!/usr/bin/env bash
# Prometheus and promtool for the tests of metrics, rules and dashboard: PROMETHEUS_BIN's folder if it is set, or else those in
# PATH, or else Debian's package, unpacked into the cache (so it needs no root, and starts no service). Without them, tests
# print a line and are skipped, unless CI is set.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

# With CI set, a missing program is an error; otherwise the tests that need it are skipped.
lacking() {
    if [[ ${CI:-} == true ]]; then die "$@"; fi
    say prometheus "SKIPPED, so are the tests of metrics in Prometheus: $1"
    exit 0
}

how="Debian: apt-get install prometheus; or set PROMETHEUS_BIN to a prometheus that has its promtool beside it"
home=$CACHE/prometheus
binary=${PROMETHEUS_BIN:-$(command -v prometheus || true)}
if [[ -z $binary ]]; then
    binary=$home/usr/bin/prometheus
    if [[ ! -x $binary ]]; then
        if ! have apt-get || ! have dpkg-deb; then lacking "there is no prometheus" "$how"; fi
        say prometheus "downloading Debian's package"
        scratch=$(scratch_folder prometheus)
        trap 'rm -rf "$scratch"' EXIT
        if [[ -z $(apt-cache madison prometheus 2>/dev/null) && $(id -u) == 0 ]]; then quietly apt-get update || true; fi
        (cd "$scratch" && quietly apt-get download prometheus) ||
            lacking "apt-get could not download prometheus (above: what it said)" "$how"
        dpkg-deb --extract "$scratch"/prometheus*.deb "$scratch/home"
        install_folder "$scratch/home" "$home"
    fi
fi
folder=$(cd "$(dirname "$binary")" && pwd)
[[ -x $folder/promtool ]] || lacking "there is no promtool beside $binary" "$how"
link_tool prometheus "$folder/$(basename "$binary")"
link_tool promtool "$folder/promtool"
say prometheus "$("$binary" --version 2>&1 | awk 'NR == 1 { print $3 }') is ready"
