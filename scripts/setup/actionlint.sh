#!/usr/bin/env bash
# actionlint, which checks .github/workflows; it is a Go program, so it is skipped where Go is missing.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

version=1.7.12
home=$CACHE/actionlint-$version
if [[ ! -x $home/actionlint ]]; then
    if ! have go; then
        say actionlint "SKIPPED: it is built with Go, and there is no go"
        exit 0
    fi
    scratch=$(scratch_folder actionlint)
    quietly env -u GOFLAGS -u GOOS -u GOARCH GOBIN="$scratch/home" CGO_ENABLED=0 \
        go install "github.com/rhysd/actionlint/cmd/actionlint@v$version" ||
        die "actionlint $version could not be built (above: what go said)" "go needs the Go module proxy, or a mirror of it in GOPROXY"
    install_folder "$scratch/home" "$home"
    rm -rf "$scratch"
fi
link_tool actionlint "$home/actionlint"
say actionlint "$version is ready"
