#!/usr/bin/env bash
# The steps of a release: checks, build, sizes, files (dist/release), images. Without REGISTRY it publishes nothing: the images go to dist/images. With
# REGISTRY and PUBLISH=1 it pushes them and creates the tag, which stays local until it is pushed.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

version=$(cargo pkgid --package penstock | sed -E 's/.*[#@]//')
publish=${PUBLISH:-0}
wrong=()

headline "Release $version: is everything said?"
grep -qE "^## \[?$version\]?( |$)" CHANGELOG.md || wrong+=("CHANGELOG.md has no section '## $version'")
[[ -z $(git status --porcelain) ]] || wrong+=("there are changes that are not committed")
if git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null; then wrong+=("the tag v$version is there already"); fi
if [[ $publish == 1 && -z ${REGISTRY:-} ]]; then wrong+=("PUBLISH=1 needs REGISTRY"); fi
for line in "${wrong[@]}"; do say "" "$line"; done
if ((${#wrong[@]})); then
    [[ $publish == 1 ]] && die "not released (above: why)"
    say "" "a dry run goes on; with PUBLISH=1 this would be the end"
fi

# First, so that the checks are about the library that is published.
scripts/build.sh
OPTIONAL=1 scripts/pgo.sh
if [[ -f dist/penstock.profdata ]]; then export PENSTOCK_PROFILE=$ROOT/target/pgo/penstock.profdata; fi

if [[ ${CHECKS:-all} == none ]]; then
    say release "SKIPPED: the checks (CHECKS=none)"
    scripts/check-sizes.sh
else
    # Includes build, sizes and meter.
    scripts/test.sh
    scripts/check-reproducible.sh
fi

headline "The files of the release"
rm -rf dist/release
case $(uname -s)-$(uname -m) in
Linux-x86_64) platform=(linux amd64) ;;
Linux-aarch64) platform=(linux arm64) ;;
Darwin-x86_64) platform=(darwin amd64) ;;
Darwin-arm64) platform=(darwin arm64) ;;
*) die "releases have no command for $(uname -s) on $(uname -m)" ;;
esac
# Only for this machine; .github/workflows/release.yml has a machine for each platform.
scripts/release/archive.sh dist/penstock "${platform[@]}" dist/release
ARCH=${platform[1]} scripts/release/modules.sh dist dist/release
PARTIAL=1 scripts/release/assets.sh dist/release
if [[ ${platform[0]} == linux ]]; then scripts/release/try.sh dist/release; fi

if [[ $publish == 1 ]]; then
    scripts/image.sh "$REGISTRY"
    git tag --annotate "v$version" --message "Penstock $version"
    headline "Released $version"
    say "" "sign the digests above (docs/distribution.md), then: git push origin v$version"
else
    scripts/image.sh
    headline "Dry run of $version"
    say "" "nothing was published; to publish: make release PUBLISH=1 REGISTRY=registry.example.com/penstock"
fi
