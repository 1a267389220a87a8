#!/usr/bin/env bash
# All checks of the source that do not run it.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
PATH=$TOOLS/bin:$PATH

headline "Format"
cargo fmt --all --check
cargo fmt --manifest-path examples/embed/Cargo.toml --check

headline "Clippy: everything, natively"
cargo clippy --workspace --all-targets --locked -- --deny warnings

headline "Clippy: the modules, for $WASI_TARGET"
cargo clippy --locked --target "$WASI_TARGET" --package penstock-wasm "${MODULES[@]/#/--package=penstock-}" -- --deny warnings

headline "Clippy: the example of a filter of one's own"
cargo clippy --locked --manifest-path examples/embed/Cargo.toml --target-dir target/embed --target "$WASI_TARGET" -- --deny warnings

headline "Imports: no circles"
node scripts/check-circles.mjs filters/policy filters/host filters/wasm filters/native cli dash meter integration

headline "Types: each name once"
node scripts/check-names.mjs filters cli dash meter integration

headline "Documentation"
RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked

headline "Dependencies: licences, bans, sources"
cargo deny --locked check --hide-inclusion-graph licenses bans sources

headline "Dependencies: advisories"
if bounded 60 cargo deny --locked fetch db >/dev/null 2>&1; then
    cargo deny --locked check --disable-fetch advisories
else
    echo "skipped: the advisory database cannot be reached from here"
fi

headline "Workflows"
if have actionlint; then
    actionlint .github/workflows/*.yml
    # actionlint only reads an action through a workflow of the same repository that uses it.
    example=$(mktemp -d)
    mkdir -p "$example/.github/workflows" "$example/deploy"
    git init --quiet "$example"
    cp -r deploy/github-action "$example/deploy/"
    sed 's#uses: penstock-proxy/penstock/\(.*\)@main#uses: ./\1#' deploy/github-action/example.yml >"$example/.github/workflows/example.yml"
    (cd "$example" && actionlint)
    rm -rf "$example"
else
    echo "skipped: there is no actionlint here (it needs Go)"
fi

headline "Shell scripts"
if have shellcheck; then
    shellcheck -x .ci/run install.sh scripts/*.sh scripts/setup/*.sh scripts/release/*.sh
else
    echo "skipped: there is no shellcheck here"
fi
