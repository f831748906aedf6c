#!/bin/bash
# Every shell script parses, can be run, and pleases shellcheck where that is installed.
set -uo pipefail
cd -- "$1" || exit 1

status=0
n_scripts=0
checked="not by shellcheck, which is not here"
command -v shellcheck >/dev/null && checked="by bash and shellcheck"
while IFS= read -r file; do
	head -n 1 -- "$file" | grep -qE '^#!.*\b(ba)?sh\b' || continue
	n_scripts=$((n_scripts + 1))
	bash -n -- "$file" || status=1
	[ -x "$file" ] || { echo "$file cannot be run" && status=1; }
	if command -v shellcheck >/dev/null; then
		shellcheck -- "$file" || status=1
	fi
done < <(find tools .ci tests bench package examples -type f ! -name '*.[ch]' ! -path 'tests/models/*' 2>/dev/null)
echo "$n_scripts scripts checked, $checked"
[ "$n_scripts" -ge 5 ] || status=1
exit $status
