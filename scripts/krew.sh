#!/usr/bin/env bash
# krew.sh VERSION FOLDER: prints the krew manifest for the archives of a release.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# == 2)) || die "krew.sh wants the version and the folder with penstock-OS-ARCH.tar.gz" "such as: scripts/krew.sh v0.1.0 dist/release"
version=$1 folder=$2
[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+ ]] || die "$version is not a version such as v0.1.0"
home=https://github.com/penstock-proxy/penstock

cat <<EOF
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: penstock
spec:
  version: $version
  homepage: $home
  shortDescription: Check traffic policies and see which proxies run them
  description: |
    Checks Penstock policies as they are in manifests and in the cluster, and says which plugins are there, which proxies
    took which policy, and why one was refused:
      kubectl penstock status
      kubectl penstock check --from-cluster
      kubectl penstock set-weight wasmplugin istio-system/shop reviews v2=25
  platforms:
EOF
found=0
for archive in "$folder"/penstock-*-*.tar.gz; do
    [[ -e $archive ]] || continue
    name=$(basename "$archive" .tar.gz)
    IFS=- read -r _ os arch <<<"$name"
    # Listed completely before it is searched, because tar fails when its reader stops early.
    listed=$(tar -tzf "$archive")
    for file in penstock LICENSE; do
        grep -qx "\(\./\)\?$file" <<<"$listed" || die "$archive has no $file"
    done
    cat <<EOF
  - selector: {matchLabels: {os: $os, arch: $arch}}
    uri: $home/releases/download/$version/$name.tar.gz
    sha256: $(sha256sum "$archive" | cut -d' ' -f1)
    files: [{from: penstock, to: .}, {from: LICENSE, to: .}]
    bin: penstock
EOF
    found=1
done
((found)) || die "$folder has no penstock-OS-ARCH.tar.gz"
