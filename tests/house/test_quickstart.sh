#!/bin/bash
# tools/quickstart with the programs just built, in folders whose names hold spaces: the answer alone on
# standard output, a daemon that stays and is used again, and one sentence for every fault.
#
#   test_quickstart.sh TREE BUILD
set -uo pipefail
tree=$1 build=$2

status=0
fault()
{
	echo "FAIL $1"
	status=1
}

# A clone as quickstart sees it: built already, nothing to install.
scratch=$(mktemp -d) || exit 1
clone="$scratch/a clone"
mkdir -p -- "$clone/tools" "$clone/build/release"
cp -- "$tree/tools/quickstart" "$tree/tools/fetch-model" "$clone/tools/"
printf '#!/bin/bash\n' >"$clone/tools/install-packages"
chmod +x -- "$clone/tools/install-packages"
ln -s -- "$build/bin" "$clone/build/release/bin"
printf 'build streamkvd: phony\nbuild streamkv-client: phony\n' >"$clone/build/release/build.ninja"
cp -r -- "$tree/tests/models/pythia-books" "$scratch/a model"

# Whatever this machine has: a driver and nvcc as the test wants them.
mkdir -- "$scratch/path"
PATH=$scratch/path:$PATH
stub() # PROGRAM LINE
{
	printf '#!/bin/sh\n%s\n' "$2" >"$scratch/path/$1"
	chmod +x -- "$scratch/path/$1"
}
stub nvidia-smi 'exit 9'

unset STREAMKV_SOCKET XDG_RUNTIME_DIR
export XDG_CACHE_HOME="$scratch/a cache"
socket="$XDG_CACHE_HOME/streamkv/run/streamkv.sock"
quickstart()
{
	"$clone/tools/quickstart" "$@" 2>"$scratch/said"
}
# shellcheck disable=SC2317
finish()
{
	quickstart --stop >/dev/null
	rm -rf -- "$scratch"
}
trap finish EXIT

refuses() # exit code, what is said, arguments
{
	local wanted=$1 sentence=$2 answer code
	shift 2
	answer=$(quickstart "$@")
	code=$?
	[ $code = "$wanted" ] || fault "quickstart $* ends with $code, not $wanted"
	[ -z "$answer" ] || fault "quickstart $* prints: $answer"
	grep -qF -- "$sentence" "$scratch/said" || fault "quickstart $* says: $(cat "$scratch/said")"
	[ "$(wc -l <"$scratch/said")" = 1 ] || fault "quickstart $* says more than one line: $(cat "$scratch/said")"
}

[[ $(quickstart --help) == *"Usage: tools/quickstart"* ]] || fault "--help shows no usage"
refuses 64 "one prompt is needed"
refuses 64 "one prompt is needed" Once upon
refuses 64 "there is no option --colour" --colour red
refuses 64 "--model needs a value" --model
refuses 64 "not \"many\"" --tokens many "Once"
refuses 66 "no model at $scratch/none" --model "$scratch/none" "Once"
refuses 69 "no daemon of quickstart's" --stop
STREAMKV_SOCKET=$scratch/$(printf '%0120d' 0) refuses 73 "too long" "Once"
XDG_CACHE_HOME=/proc/none refuses 73 "cannot be made" "Once"

first=$(quickstart --model "$scratch/a model" --tokens=12 "Once upon a time") ||
	fault "the first call ends with $?: $(cat "$scratch/said")"
[ -n "$first" ] || fault "the first call has no answer: $(cat "$scratch/said")"
# What to try next can be copied: the socket's path comes quoted.
(eval "$(grep -E '^ +export ' "$scratch/said")" && streamkv-client status >/dev/null 2>&1) ||
	fault "the daemon is not found by what was said: $(cat "$scratch/said")"
[ "$(stat -c %a -- "$XDG_CACHE_HOME/streamkv/run")" = 700 ] || fault "others may enter the socket's folder"

pid=$(cat -- "$socket.pid")
second=$(quickstart --tokens 12 "Once upon a time") || fault "the second call ends with $?"
[ "$first" = "$second" ] || fault "the second answer is another: $second"
[ "$(cat -- "$socket.pid")" = "$pid" ] || fault "the second call began another daemon"
! grep -q Starting "$scratch/said" || fault "the second call started something"

# Another model: the daemon is begun anew.
mkdir -- "$scratch/broken"
refused=$(quickstart --model "$scratch/broken" "Once")
code=$?
if [ $code = 0 ] || [ -n "$refused" ]; then
	fault "a folder without a model is taken"
fi
grep -q 'the daemon ended at once: .*broken' "$scratch/said" || fault "it is not said why: $(cat "$scratch/said")"
[ ! -e "/proc/$pid" ] || fault "the daemon of the first model still runs"

quickstart --model "$scratch/a model" --tokens 1 "Once" >/dev/null || fault "it does not start again: $(cat "$scratch/said")"
! grep -q GPU "$scratch/said" || fault "it uses a GPU where there is no driver"
quickstart --stop >/dev/null || fault "--stop ends with $?"

# A driver, and an nvcc that is too old; and one that is not.
stub nvidia-smi 'exit 0'
stub nvcc 'echo "Cuda compilation tools, release 12.3, V12.3.1"'
quickstart --model "$scratch/a model" --tokens 1 "Once" >/dev/null || fault "it does not start: $(cat "$scratch/said")"
! grep -q GPU "$scratch/said" || fault "it uses a GPU for which it cannot build"
quickstart --stop >/dev/null || fault "--stop ends with $?"
stub nvcc 'echo "Cuda compilation tools, release 12.4, V12.4.1"'
mkdir -- "$clone/build/cuda"
ln -s -- "$build/bin" "$clone/build/cuda/bin"
mv -- "$clone/build/release/build.ninja" "$clone/build/cuda/"
quickstart --model "$scratch/a model" --tokens 1 "Once" >/dev/null || fault "it does not start: $(cat "$scratch/said")"
grep -q 'Using the GPU' "$scratch/said" || fault "it does not use the GPU: $(cat "$scratch/said")"
grep -q "clone/build/cuda/bin:" "$scratch/said" || fault "it does not take the build for it: $(cat "$scratch/said")"
quickstart --stop >/dev/null || fault "--stop ends with $?"
[ ! -e "$socket.pid" ] || fault "--stop leaves $socket.pid"
exit $status
