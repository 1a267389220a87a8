#!/usr/bin/env bash
# Runs each fuzz target for SECONDS_EACH seconds (60), starting from the committed seeds and the corpus of earlier runs.
# `scripts/fuzz.sh TARGET...` runs only these. Findings are kept in fuzz/artifacts/, and make the run fail.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
PATH=$TOOLS/bin:$PATH

SECONDS_EACH=${SECONDS_EACH:-60}
# The target `cost` runs the built modules.
export PENSTOCK_DIST=$ROOT/dist
targets=("$@")
if ! ((${#targets[@]})); then targets=(document authority path request cost); fi

# Documents may be long because of nesting and repetition; other inputs are at most as long as Envoy's headers.
for target in "${targets[@]}"; do
    headline "Fuzz: $target, $SECONDS_EACH s"
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    if [[ $target == cost && ! -f $PENSTOCK_DIST/suite.wasm ]]; then die "there is no dist/suite.wasm" "run: make build"; fi
    arguments=(-max_total_time="$SECONDS_EACH" -timeout=10 -rss_limit_mb=2048 -max_len=4096
        -print_final_stats=1 -verbosity=0)
    if [[ -f fuzz/$target.dict ]]; then arguments+=(-dict="fuzz/$target.dict"); fi
    log=$(mktemp -d)
    status=0
    cargo +nightly fuzz run --fuzz-dir fuzz "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- "${arguments[@]}" \
        >"$log/out" 2>&1 || status=$?
    grep -E '^(stat::|DONE|cov:)|panicked|SUMMARY' "$log/out" || true
    if ((status)); then
        tail -n 60 "$log/out" >&2
        rm -rf "$log"
        die "the target $target has found something (above)" "the input is in fuzz/artifacts/$target/"
    fi
    rm -rf "$log"
done
