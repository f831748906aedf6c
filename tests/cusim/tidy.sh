#!/bin/bash
# clang-tidy finds nothing in the kernels, as clang compiles them for the CPU; which checks: gpu/kernels/.clang-tidy.
#
#   tidy.sh TREE FLAGS...     those that they are compiled with
set -uo pipefail
tree=$1
shift

tidy=
for candidate in clang-tidy-14 clang-tidy; do # others have other checks
	if [[ $("$candidate" --version 2>/dev/null) =~ version\ 14\. ]]; then
		tidy=$candidate
		break
	fi
done
if [ -z "$tidy" ]; then
	echo "SKIP cusim_tidy: clang-tidy 14 is not here"
	exit 77
fi
status=0
for source in "$tree"/gpu/kernels/*.cu; do
	"$tidy" --quiet "$source" -- -x c++ "$@" || status=1
done
exit $status
