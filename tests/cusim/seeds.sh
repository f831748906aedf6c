#!/bin/bash
# Every order that a seed makes: of fibers, blocks, streams. seeds.sh BIN SEEDS ORDERINGS PROGRAMS
#
#   SEEDS      from 1 to N, or from A to B: A-B
#   ORDERINGS  of work on streams: lazy (when somebody waits for it), eager (at once), random; one or more, by commas
#   PROGRAMS   of cusim's tests, by commas; NAME:TEST for one of a program's
set -uo pipefail

bin=$1 first=1 last=${2#*-}
[[ $2 != *-* ]] || first=${2%-*}
IFS=, read -ra orderings <<<"$3"
IFS=, read -ra programs <<<"$4"
log=$(mktemp) || exit 73
trap 'rm -f -- "$log"' EXIT

failed=0
for ((seed = first; seed <= last; seed++)); do
	for ordering in "${orderings[@]}"; do
		for program in "${programs[@]}"; do
			test=${program#"${program%%:*}"}
			if ! CUSIM_SEED=$seed CUSIM_ASYNC=$ordering STREAMKV_SEED=$seed STREAMKV_TEST_FILTER="${test#:}*cuda" \
				"$bin/cusim_${program%%:*}" >"$log" 2>&1; then
				cat -- "$log"
				echo "CUSIM_SEED=$seed CUSIM_ASYNC=$ordering STREAMKV_SEED=$seed cusim_${program%%:*} ${test#:}: failed"
				failed=1
			fi
		done
	done
done
echo "seeds $first to $last, ${#orderings[@]} orderings, ${programs[*]}: $( ((failed)) && echo failed || echo passed)"
exit $failed
