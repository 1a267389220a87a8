#!/usr/bin/env bash
# check.sh TAG: checks that TAG is the version in the source, the chart and the changelog. Reports every difference.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# == 1)) || die "check.sh wants the tag" "such as: scripts/release/check.sh v0.1.0"
tag=$1 wrong=()
version=$(version)
chart=$ROOT/deploy/helm/penstock/Chart.yaml
[[ $tag == "v$version" ]] || wrong+=("the tag is $tag, but Cargo.toml has version $version: expected v$version")
for field in version appVersion; do
    found=$(sed -nE "s/^$field: *\"?([^\"]*)\"?/\1/p" "$chart")
    [[ $found == "$version" ]] || wrong+=("deploy/helm/penstock/Chart.yaml: $field is $found, expected $version")
done
grep -qE "^## \[?$version\]?( |$)" "$ROOT/CHANGELOG.md" || wrong+=("CHANGELOG.md has no section '## $version': rename 'Unreleased'")
if ((${#wrong[@]})); then die "${wrong[@]}"; fi
say release "$tag is what Cargo.toml, the chart and CHANGELOG.md say"
