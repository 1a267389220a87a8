#!/usr/bin/env bash
# assets.sh FOLDER: makes the files of a release besides archives and modules, which must be in FOLDER: bills of materials, install.sh, the
# Homebrew formula, the krew manifest, the Helm chart, the VEX document (when vex/ has statements), and last SHA256SUMS.
# PARTIAL=1 continues when archives of some platforms are missing.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

(($# == 1)) || die "assets.sh wants the folder of the release" "such as: scripts/release/assets.sh dist/release"
folder=$1
version=$(version)
helm=$(command -v helm || echo "$TOOLS/bin/helm")

scripts/release/sbom.sh "$folder"
install -m 755 install.sh "$folder/install.sh"
scripts/release/formula.sh "$version" "$folder" >"$folder/penstock.rb"
scripts/krew.sh "v$version" "$folder" >"$folder/krew.yaml"
if [[ -x $helm ]]; then
    quietly "$helm" package deploy/helm/penstock --destination "$folder"
elif [[ ${PARTIAL:-0} == 1 ]]; then
    say chart "SKIPPED: there is no helm here"
else
    die "there is no helm to pack the chart with" "install it, or run: make control-planes"
fi
statements=$(node scripts/release/vex.mjs vex "$version")
if [[ -n $statements ]]; then printf '%s\n' "$statements" >"$folder/penstock.openvex.json"; fi
scripts/release/checksums.sh "$folder"
