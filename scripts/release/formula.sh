#!/usr/bin/env bash
# formula.sh VERSION FOLDER: prints the Homebrew formula for the archives of a release, with their digests.
# PARTIAL=1 leaves out platforms without an archive.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# == 2)) || die "formula.sh wants the version and the folder with penstock-OS-ARCH.tar.gz" \
    "such as: scripts/release/formula.sh 0.1.0 dist/release"
version=${1#v} folder=$2
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+ ]] || die "$1 is not a version such as 0.1.0"

cat <<HEAD
class Penstock < Formula
  desc "Check, explain and test traffic policies for Envoy, Istio and Envoy Gateway"
  homepage "$HOME_PAGE"
  version "$version"
  license "Apache-2.0"
HEAD
for os in darwin linux; do
    case $os in darwin) system=macos ;; linux) system=linux ;; esac
    printf '\n  on_%s do\n' "$system"
    while read -r _ found arch _; do
        [[ $found == "$os" ]] || continue
        archive=$folder/penstock-$os-$arch.tar.gz
        if [[ ! -f $archive ]]; then
            [[ ${PARTIAL:-0} == 1 ]] && continue
            die "there is no $archive" "a formula names every platform of scripts/release/targets.txt"
        fi
        case $arch in amd64) cpu=intel ;; arm64) cpu=arm ;; *) die "Homebrew has no name for $arch" ;; esac
        cat <<PLATFORM
    on_$cpu do
      url "$HOME_PAGE/releases/download/v$version/penstock-$os-$arch.tar.gz"
      sha256 "$(sha256 "$archive")"
    end
PLATFORM
    done < <(targets)
    printf '  end\n'
done
cat <<'TAIL'

  def install
    bin.install "penstock"
    generate_completions_from_executable(bin/"penstock", "completions")
  end

  test do
    (testpath/"policy.yaml").write("routes: {default: stable}\n")
    assert_match "valid", shell_output("#{bin}/penstock check #{testpath}/policy.yaml")
  end
end
TAIL
