#!/usr/bin/env bash
# tap.sh FORMULA FOLDER: commits the Homebrew formula of a release to FOLDER, a checkout of the tap. Does nothing when the tap has it already.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# == 2)) || die "tap.sh wants the formula and a checkout of the tap" "such as: scripts/release/tap.sh dist/release/penstock.rb ../homebrew-tap"
formula=$1 tap=$2
version=$(sed -nE 's/^  version "(.*)"$/\1/p' "$formula")
[[ -n $version ]] || die "$formula has no version" "scripts/release/formula.sh writes it"
git -C "$tap" rev-parse --git-dir >/dev/null 2>&1 || die "$tap is not a checkout of the tap" "git clone its repository first"

mkdir -p "$tap/Formula"
install -m 644 "$formula" "$tap/Formula/penstock.rb"
git -C "$tap" add Formula/penstock.rb
if git -C "$tap" diff --cached --quiet; then
    say tap "penstock $version is there already"
    exit
fi
git -C "$tap" -c user.name="Penstock releases" -c user.email=noreply@github.com commit --quiet --message "penstock $version"
say tap "penstock $version is committed: git -C $tap push"
