#!/bin/bash
# What bash completes of the programs, asked as bash asks: the function is called with the words of a line.
set -uo pipefail

status=0
fault()
{
	echo "FAIL $1"
	status=1
}
scratch=$(mktemp -d) || exit 1
trap 'rm -rf -- "$scratch"' EXIT
for program in streamkvd streamkv-client; do
	bash -n "$1/man/$program.bash" || fault "$program.bash does not parse"
	if command -v shellcheck >/dev/null; then
		shellcheck -s bash "$1/man/$program.bash" || fault "shellcheck finds fault with $program.bash"
	fi
	# shellcheck disable=SC1090
	. "$1/man/$program.bash"
	[[ $(complete -p "$program") == *"-F _$program "* ]] || fault "bash was not told of $program"
done
cd -- "$scratch" || exit 1
touch model.gguf "a file"

answers() # what is wanted, words of the line, the last to be completed
{
	local wanted=$1 COMPREPLY=() COMP_WORDS COMP_CWORD
	shift
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	"_$1" "$1" "${!#}" "${*: -2:1}"
	[ "${COMPREPLY[*]}" = "$wanted" ] || fault "$* is completed as \"${COMPREPLY[*]}\", not as \"$wanted\""
}
answers "streaming" streamkvd --mode str
answers "streaming" streamkvd --mode = str
answers "auto f32 f16 bf16" streamkvd --kv ""
answers "auto f32 f16 bf16" streamkvd --kv =
answers "model.gguf" streamkvd --model mod
answers "model.gguf" streamkvd -m mod
answers "a file" streamkvd --config a
answers "" streamkvd --sink ""
answers "--check-config" streamkvd --check
answers "generate" streamkv-client gen
answers "ppl ps" streamkv-client p
answers "--temp" streamkv-client generate --te
answers "" streamkv-client status --te
answers "default streaming window dense" streamkv-client generate --mode ""
answers "model.gguf" streamkv-client ppl --file m
answers "a file" streamkv-client generate a

# Every option of every command is offered.
for command in $("$1/bin/streamkv-client" --help | sed '1,/^commands:/d' | awk '{ print $1 }'); do
	COMP_WORDS=(streamkv-client "$command" --) COMP_CWORD=2 COMPREPLY=()
	_streamkv-client
	offered=$(printf '%s\n' "${COMPREPLY[@]}" | sort)
	told=$("$1/bin/streamkv-client" "$command" --help | sed '/^examples:/,$d' | grep -oE '^  (-., )?--[a-z0-9-]+' | sed 's/.*--/--/' | sort)
	[ "$offered" = "$told" ] || fault "$command: offered and told differ: $(diff <(echo "$offered") <(echo "$told"))"
	[ -n "$told" ] || fault "$command tells no option"
done
exit $status
