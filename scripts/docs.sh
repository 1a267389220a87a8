#!/usr/bin/env bash
# Builds the documentation as a static site with search in dist/docs. Fails when a link is broken or a page is in no chapter.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

source=$ROOT/target/docs
rm -rf "$source"
node scripts/docs.mjs prepare "$source"
headline "The site"
"$TOOLS/bin/mdbook" build "$source" --dest-dir "$ROOT/dist/docs"
node scripts/docs.mjs check "$ROOT/dist/docs"
say docs "dist/docs/index.html"
