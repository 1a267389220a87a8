#!/usr/bin/env bash
# notes.sh VERSION: prints the section of CHANGELOG.md for a version without its heading, as the release notes.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# == 1)) || die "notes.sh wants the version" "such as: scripts/release/notes.sh 0.1.0"
notes=$(awk -v version="${1#v}" '
    /^## / { inside = ($2 == version || $2 == "[" version "]"); next }
    inside { print }' "${CHANGELOG:-$ROOT/CHANGELOG.md}")
[[ -n ${notes//[[:space:]]/} ]] || die "CHANGELOG.md says nothing about ${1#v}" "it needs a section '## ${1#v}'"
printf '%s\n' "$notes" | sed -e '/./,$!d'
