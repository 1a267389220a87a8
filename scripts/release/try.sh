#!/usr/bin/env bash
# try.sh FOLDER: what a newcomer does with a release. In a network of its own, FOLDER is served where the releases would be, install.sh brings it into
# an empty home folder, and a stock Envoy decides by it. Nothing of the checkout is used but that Envoy. Linux only.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# == 1)) || die "try.sh wants the folder of a release" "such as: scripts/release/try.sh dist/release"
release=$(cd "$1" && pwd)
for program in unshare ip python3 curl; do have "$program" || die "there is no $program"; done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/web/latest" "$scratch/home" "$scratch/bin"
ln -s "$release" "$scratch/web/latest/download"
ln -s "$TOOLS/bin/envoy" "$scratch/bin/envoy"

cat >"$scratch/newcomer.sh" <<'NEWCOMER'
set -eu
ip link set lo up
python3 -m http.server 8000 --bind 127.0.0.1 --directory "$1" >"$HOME/server.log" 2>&1 &
for _ in $(seq 100); do curl -fs http://127.0.0.1:8000/ >/dev/null && break || sleep 0.1; done
curl -fsSL http://127.0.0.1:8000/latest/download/install.sh | sh
cd ~/.local/share/penstock
penstock check quickstart.yaml
envoy -c quickstart.yaml >"$HOME/envoy.log" 2>&1 &
for _ in $(seq 100); do curl -fs http://127.0.0.1:10000/ >/dev/null && break || sleep 0.1; done
answers="$(curl -fsS http://127.0.0.1:10000/) $(curl -fsS -H 'x-user-group: beta' http://127.0.0.1:10000/)"
echo "Envoy answers: $answers"
[ "$answers" = "stable beta" ] || { cat "$HOME/envoy.log"; exit 1; }
NEWCOMER

env -i HOME="$scratch/home" PENSTOCK_RELEASES=http://127.0.0.1:8000 PATH="$scratch/home/.local/bin:$scratch/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    unshare --user --map-root-user --net --pid --fork --kill-child=KILL sh "$scratch/newcomer.sh" "$scratch/web" ||
    die "the release does not work as README.md says (above: why)"
say "try" "from an empty home folder to a decision in Envoy in $SECONDS s"
