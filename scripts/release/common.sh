# shellcheck shell=bash
# Sourced by the scripts of a release.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

# The URL of the downloads.
HOME_PAGE=https://github.com/penstock-proxy/penstock
export HOME_PAGE

# The lines of targets.txt: TARGET OS ARCH RUNNER.
targets() { grep -vE '^(#|$)' "$ROOT/scripts/release/targets.txt"; }

# The version of this source.
version() { sed -nE '/^\[workspace\.package\]/,/^\[/s/^version = "(.*)"/\1/p' "$ROOT/Cargo.toml"; }

# sha256 FILE: prints only the digest (macOS has no sha256sum).
sha256() { if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1; }

# pack ARCHIVE FOLDER FILE...: makes a tar.gz reproducibly.
pack() {
    local archive=$1 folder=$2
    shift 2
    python3 - "$archive" "$folder" "$@" <<'PY'
import gzip, os, sys, tarfile
archive, folder, *names = sys.argv[1:]
with open(archive, "wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(names):
            path = os.path.join(folder, name)
            entry = tarfile.TarInfo(name)
            entry.size = os.path.getsize(path)
            entry.mode = 0o755 if os.access(path, os.X_OK) else 0o644
            with open(path, "rb") as content:
                tar.addfile(entry, content)
PY
}
