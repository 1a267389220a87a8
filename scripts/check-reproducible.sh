#!/usr/bin/env bash
# Builds the last commit in two folders, and compares the results byte by byte.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The paths have different lengths, because the length of a path shifts everything after it.
folders=("$scratch/one" "$scratch/another-and-longer/folder")
for folder in "${folders[@]}"; do
    mkdir -p "$folder"
    git archive HEAD | tar -x -C "$folder"
    headline "Building $(git rev-parse --short HEAD) in $folder"
    "$folder/scripts/setup.sh" run
    "$folder/scripts/build.sh"
done

headline "Comparison"
status=0
for module in "${MODULES[@]/%/.wasm}" libpenstock.so penstock; do
    if cmp "${folders[0]}/dist/$module" "${folders[1]}/dist/$module"; then
        say "$module" "identical"
    else
        status=1
    fi
done
((status == 0)) || die "the two builds differ (above: where)"
