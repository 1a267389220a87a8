#!/usr/bin/env bash
# Compares the policies of a pull request with those of its base, and writes the report into the job's summary.
# Reads PENSTOCK, PENSTOCK_PATH, BASE and FAIL_ON; called by action.yml.
set -euo pipefail

before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
# What the base had at the path; nothing, when the path is new.
if ! git archive "$BASE" -- "$PENSTOCK_PATH" 2>/dev/null | tar -x -C "$before" 2>/dev/null; then
  echo "the base has no $PENSTOCK_PATH: nothing to compare"
  echo "loosened=0" >> "$GITHUB_OUTPUT"
  exit 0
fi

status=0
report=$("$PENSTOCK" diff --fail-on "$FAIL_ON" -- "$before/$PENSTOCK_PATH" "$PENSTOCK_PATH") || status=$?
if [ "$status" -gt 1 ]; then
  exit "$status"
fi
echo "$report"
{
  echo "### What this change means for requests"
  echo '```'
  echo "$report"
  echo '```'
} >> "$GITHUB_STEP_SUMMARY"
echo "loosened=$(grep -c '^loosened' <<< "$report" || true)" >> "$GITHUB_OUTPUT"
exit "$status"
