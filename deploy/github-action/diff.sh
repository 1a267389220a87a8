#!/usr/bin/env bash
# Compares the policies of a pull request with those of its base, and writes the report into the job's summary.
# Reads PENSTOCK, PENSTOCK_PATH, BASE and FAIL_ON; called by action.yml.
set -euo pipefail

# Without the base's history nothing could be compared, and everything would pass.
if ! git cat-file -e "$BASE^{commit}" 2>/dev/null; then
  echo "::error title=penstock diff::the commit $BASE is not here to compare with: check out with fetch-depth: 0" >&2
  exit 2
fi

before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
# What the base had at the path; nothing, when the path, or the first policy in it, is new.
has_policy() {
  git archive "$BASE" -- "$PENSTOCK_PATH" 2>/dev/null | tar -x -C "$before" 2>/dev/null || return 1
  local said
  said=$("$PENSTOCK" check -- "$before/$PENSTOCK_PATH" 2>&1 >/dev/null) || true
  ! grep -qE '(no policy in|has no \.yaml)' <<< "$said"
}
if ! has_policy; then
  echo "the base has no policy at $PENSTOCK_PATH: nothing to compare"
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
