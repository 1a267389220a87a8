#!/usr/bin/env bash
# try.sh FOLDER: tries a release as a new user does. FOLDER is served at the address of the releases, in a separate network namespace. There, the
# commands of README.md's quick start run unchanged, with an empty home folder and a stock Envoy; the responses must be those that README.md
# shows. Nothing else of the checkout is used. Linux only.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# == 1)) || die "try.sh wants the folder of a release" "such as: scripts/release/try.sh dist/release"
release=$(cd "$1" && pwd)
envoy=${ENVOY_BIN:-$TOOLS/bin/envoy}
for program in unshare ip python3 curl "$envoy"; do have "$program" || die "there is no $program"; done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/web/latest" "$scratch/home" "$scratch/bin" "$scratch/readme"
ln -s "$release" "$scratch/web/latest/download"
ln -s "$(realpath "$envoy")" "$scratch/bin/envoy"

# block LANGUAGE NUMBER: a fenced block of the quick start; the releases are served on this machine.
block() {
    local text
    text=$(awk '/^## Quick start$/ { on = 1 } /^### Istio$/ { on = 0 } on' "$ROOT/README.md" |
        awk -v fence="\`\`\`$1" -v number="$2" '$0 == fence && ++count == number { inside = 1; next } /^```/ { inside = 0 } inside' |
        sed 's|https://github.com/penstock-proxy/penstock/releases|http://127.0.0.1:8000|')
    [[ -n $text ]] || die "README.md: the quick start has no block $2 of the kind $1"
    printf '%s\n' "$text"
}
block sh 1 >"$scratch/readme/install"
block sh 2 >"$scratch/readme/start"
block console 1 >"$scratch/readme/ask"

# The size that README.md states must be that of the two files that install.sh downloads, within two megabytes.
case $(uname -m) in aarch64) arch=arm64 ;; *) arch=amd64 ;; esac
bytes=$(cat "$release/penstock-linux-$arch.tar.gz" "$release/penstock-modules.tar.gz" | wc -c)
said=$(sed -nE 's/.*plus the download of ([0-9]+) MB.*/\1/p' "$ROOT/README.md")
off=$((${said:-0} * 1000000 - bytes))
((${off#-} <= 2000000)) || die "README.md says that the download has ${said:-no number of} MB, but it has $bytes bytes"

cat >"$scratch/newcomer.sh" <<'NEWCOMER'
set -eu
ip link set lo up
python3 -m http.server 8000 --bind 127.0.0.1 --directory "$1" >"$HOME/server.log" 2>&1 &
for _ in $(seq 100); do curl -fs http://127.0.0.1:8000/ >/dev/null && break || sleep 0.1; done
sh -eu "$2/install"
(cd ~/.local/share/penstock && penstock check quickstart.yaml)
sh -eu "$2/start" >"$HOME/envoy.log" 2>&1 &
for _ in $(seq 300); do curl -fs http://127.0.0.1:10000/ >/dev/null && break || sleep 0.1; done
grep -v '^\$ ' "$2/ask" >"$HOME/expected"
sed -n 's/^\$ //p' "$2/ask" >"$HOME/commands"
sh -eu "$HOME/commands" >"$HOME/answers" 2>/dev/null || true
echo "Envoy answers: $(paste -s -d' ' "$HOME/answers")"
diff "$HOME/expected" "$HOME/answers" >&2 || { cat "$HOME/envoy.log" >&2; exit 1; }
NEWCOMER

env -i HOME="$scratch/home" PENSTOCK_RELEASES=http://127.0.0.1:8000 PATH="$scratch/home/.local/bin:$scratch/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    unshare --user --map-root-user --net --pid --fork --kill-child=KILL sh "$scratch/newcomer.sh" "$scratch/web" "$scratch/readme" ||
    die "the release does not work as README.md says (above: why)"
say "try" "from an empty home folder to a decision in Envoy in $SECONDS s"
