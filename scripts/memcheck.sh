#!/usr/bin/env bash
# Runs integration tests with the native body in a stock Envoy under Valgrind's memcheck, and fails if libpenstock.so uses memory that it
# may not use, or that has no value. AddressSanitizer cannot do this: Envoy crashes when its runtime is loaded, because it has its own allocator.
# Arguments are the files of tests: memcheck.sh contract egress. Run `make setup` and `make build` first.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

# Tests of times and rates would fail, because Envoy is some thirty times as slow.
tests=(contract routes egress claims responses breakers)
if (($#)); then tests=("$@"); fi
have valgrind || die "there is no valgrind" "run: apt-get install valgrind"
[[ -x $TOOLS/bin/envoy ]] || die "there is no .tools/bin/envoy" "run: make setup"
[[ -f ${PENSTOCK_DIST:-$ROOT/dist}/libpenstock.so ]] || die "there is no libpenstock.so in ${PENSTOCK_DIST:-dist}" "run: make build"
have cc || die "there is no C compiler, which builds the module that proves that errors are found" "run: apt-get install gcc"

work=$ROOT/target/memcheck
rm -rf "$work"
mkdir -p "$work/logs" "$work/control"
cat >"$work/envoy" <<WRAPPER
#!/bin/sh
# Envoy's malloc is its own, in the executable.
exec valgrind --quiet --soname-synonyms=somalloc=NONE --error-limit=no --num-callers=20 --log-file="\${MEMCHECK_LOGS:-$work/logs}/%p.log" "$TOOLS/bin/envoy" "\$@"
WRAPPER
chmod +x "$work/envoy"

# faults LIBRARY FOLDER: the reports in FOLDER whose fault is in LIBRARY: in its code, or in a function of C that it called. Envoy's own code
# reads memory without a value on purpose, also while the library calls it.
faults() {
    awk -v library="$1" '
        # Valgrind begins each line with ==PID==, and a report ends with a line of nothing else.
        { line = $0; sub(/^==[0-9]+== ?/, "", line) }
        line == "" { if (is_ours) printf "%s\n", report; report = ""; is_decided = is_ours = 0; next }
        { report = report line "\n" }
        line ~ /^ +(at|by) 0x/ && !is_decided && line !~ /vgpreload_memcheck|\/libc\.so/ { is_decided = 1; is_ours = index(line, library) > 0 }
    ' "$2"/*.log
}

headline "A module with a fault is reported"
cat >"$work/control/faulty.c" <<'C'
#include <stdlib.h>
const char *envoy_dynamic_module_on_program_init(void) {
    volatile char *bytes = malloc(8);
    char past_the_end = bytes[8];
    free((void *)bytes);
    return past_the_end ? "" : NULL;
}
C
cc -shared -fPIC -O0 -o "$work/control/libfaulty.so" "$work/control/faulty.c"
sed "s#/etc/penstock/libpenstock.so#$work/control/libfaulty.so#" envoy-configs/native.yaml >"$work/control/native.yaml"
mkdir "$work/control/logs"
if MEMCHECK_LOGS=$work/control/logs "$work/envoy" --mode validate -c "$work/control/native.yaml" \
    >"$work/control/output" 2>&1; then
    die "Envoy accepts a module without an ABI"
fi
[[ $(faults libfaulty.so "$work/control/logs") == *"Invalid read of size 1"* ]] || die "memcheck does not report the fault of $work/control/faulty.c"
say memcheck "reports a read behind an allocation"

headline "The native body, in Envoy under memcheck: ${tests[*]}"
files=()
for name in "${tests[@]}"; do files+=(--test "$name"); done
PENSTOCK_BODY=native ENVOY_BIN=$work/envoy PENSTOCK_DIST=${PENSTOCK_DIST:-$ROOT/dist} \
    node scripts/run-tests.mjs --package penstock-integration "${files[@]}" -- --test-threads=2
found=$(faults libpenstock.so "$work/logs")
[[ -z $found ]] || die "libpenstock.so has a fault" "$found"
say memcheck "$(find "$work/logs" -name '*.log' | wc -l) runs of Envoy, no fault in libpenstock.so"
