#!/usr/bin/env bash
# targets.txt as the matrix of a job in GitHub's workflows: one line of JSON.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

entries=$(targets | awk '{ printf "%s{\"target\":\"%s\",\"os\":\"%s\",\"arch\":\"%s\",\"runner\":\"%s\"}", (NR > 1 ? "," : ""), $1, $2, $3, $4 }')
printf '{"include":[%s]}\n' "$entries"
