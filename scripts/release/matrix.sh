#!/usr/bin/env bash
# Prints targets.txt as the matrix of a GitHub workflow job: one line of JSON.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

entries=$(targets | awk '{ printf "%s{\"target\":\"%s\",\"os\":\"%s\",\"arch\":\"%s\",\"runner\":\"%s\"}", (NR > 1 ? "," : ""), $1, $2, $3, $4 }')
printf '{"include":[%s]}\n' "$entries"
