#!/bin/bash
# cmake --install into a folder, and examples/ with what lies there: the C client is built through pkg-config, the pipelines find
# streamkv-client in PATH; the daemons run the small models.
#
#   test_examples.sh SOURCE BUILD
set -uo pipefail
source=$1 build=$2

for program in cc make pkg-config cmake; do
	command -v $program >/dev/null || {
		echo "SKIP package_examples: $program is not here"
		exit 77
	}
done
status=0
fault()
{
	echo "FAIL $1"
	status=1
}
scratch=$(mktemp -d) || exit 1
daemons=()
# shellcheck disable=SC2317
finish()
{
	[ ${#daemons[@]} = 0 ] || kill "${daemons[@]}" 2>/dev/null
	wait
	rm -rf -- "$scratch"
}
trap finish EXIT
unset STREAMKV_SOCKET XDG_RUNTIME_DIR PKG_CONFIG_PATH PKG_CONFIG_LIBDIR CFLAGS LDFLAGS

# --- Installed ---

DESTDIR=$scratch/root cmake --install "$build" >"$scratch/said" 2>&1 || {
	cat "$scratch/said"
	exit 1
}
(cd "$scratch/root" && find . -type f -o -type l) | sed 's|^\./||' >"$scratch/files"
for wanted in bin/streamkvd bin/streamkv-client 'lib(/[^/]*)?/libstreamkv\.so\.0' 'lib(/[^/]*)?/libstreamkv\.so' include/streamkv.h \
	'lib(/[^/]*)?/pkgconfig/streamkv\.pc' share/man/man8/streamkvd.8 share/man/man5/streamkvd.conf.5 share/man/man1/streamkv-client.1 \
	lib/systemd/system/streamkvd.service lib/systemd/system/streamkvd.socket share/bash-completion/completions/streamkvd \
	share/bash-completion/completions/streamkv-client; do
	grep -qE "(^|/)$wanted\$" "$scratch/files" || fault "$wanted is not installed"
done
! grep -E '\.a$|test|bench_' "$scratch/files" || fault "what is not for users is installed"

# Another prefix than the build's, with a space in its name, and without the units, whose folder is the system's.
prefix="$scratch/a prefix"
for component in library dev client; do
	cmake --install "$build" --prefix "$prefix" --component $component >"$scratch/said" 2>&1 || fault "$component: $(cat "$scratch/said")"
done
PKG_CONFIG_PATH=$(dirname -- "$(find "$prefix" -name streamkv.pc)")
export PKG_CONFIG_PATH PATH="$prefix/bin:$build/bin:$PATH"
LD_LIBRARY_PATH=$(dirname -- "$(find "$prefix" -name 'libstreamkv.so.0')")
export LD_LIBRARY_PATH
[[ $(command -v streamkv-client) == "$prefix"/* ]] || fault "streamkv-client is not the installed one"

# --- Daemons ---

start() # NAME MODEL options...
{
	local name=$1 model=$2 tenths
	shift 2
	streamkvd --model "$source/tests/models/$model" --socket "$scratch/$name" --kv-memory 64M --state-dir "$scratch/$name.state" "$@" \
		2>"$scratch/$name.log" &
	daemons+=($!)
	for ((tenths = 0; tenths < 600; tenths++)); do
		grep -qs "ready:" "$scratch/$name.log" && return
		kill -0 $! 2>/dev/null || break
		sleep 0.1
	done
	fault "no daemon: $(cat "$scratch/$name.log")"
	exit 1
}
start first pythia-books --window 60
start second tiny-llama-q8_0.gguf
export STREAMKV_SOCKET=$scratch/first
cp -r -- "$source/examples" "$scratch/examples"
cd -- "$scratch/examples" || exit 1
until_asleep() # PID FILE: it waits for something, and has the file open; a line that is written there wakes it first
{
	local tenths
	for ((tenths = 0; tenths < 300; tenths++)); do
		[[ $(cat "/proc/$1/stat" 2>/dev/null) == *") S "* ]] && readlink "/proc/$1/fd"/* | grep -qxF -- "$2" && return
		sleep 0.1
	done
	fault "process $1 does not come to wait"
}
show() # NAME FIELD of the session
{
	streamkv-client sessions show "$1" --json | sed -n "s/.*\"$2\": *\"\\{0,1\\}\\([^\",}]*\\).*/\\1/p" | head -n 1
}

# --- talk.c ---

[ "$(wc -l <talk.c)" -le 150 ] || fault "talk.c has $(wc -l <talk.c) lines, more than 150"
make -s CFLAGS="-O1 -Wall -Wextra -Werror" talk >"$scratch/said" 2>&1 || fault "talk does not build: $(cat "$scratch/said")"
[[ $(ldd ./talk) == *"libstreamkv.so.0 => $prefix"/* ]] || fault "talk does not run with the installed library: $(ldd ./talk)"
printf '%s\n' "Once upon a time" "" "The end of the story was" | ./talk diary >"$scratch/answer" 2>"$scratch/said" ||
	fault "talk ends with $?: $(cat "$scratch/said")"
[ "$(grep -c 'text position' "$scratch/said")" = 2 ] || fault "talk tells of other than two answers: $(cat "$scratch/said")"
[ "$(wc -c <"$scratch/answer")" -gt 200 ] || fault "talk has hardly an answer: $(cat "$scratch/answer")"
position=$(show diary position)
[ "$position" -gt 300 ] || fault "the two turns are not in one session: position $position"
[ "$(show diary live)" -le 64 ] || fault "the session outgrew its window: $(show diary live)"
printf 'And then\n' | ./talk diary >/dev/null 2>&1
[ "$(show diary position)" -gt "$position" ] || fault "talk does not go on where it was"
# Ctrl-C ends the answer, not the conversation. (A background job of a script ignores SIGINT, so another program starts it.) The
# daemon gives its user few tokens a second, so that the answer cannot be over first. What it prints goes to
# new files: those of before are not truncated until somebody writes to the pipe.
printf '[user *]\ntokens-per-second = 40\n' >"$scratch/few"
start slow pythia-books --window 60 --config "$scratch/few"
mkfifo "$scratch/lines"
STREAMKV_SOCKET=$scratch/slow python3 -c 'import os, signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv("./talk", ["./talk", "night"])' <"$scratch/lines" >"$scratch/night" 2>"$scratch/night.said" &
talk=$!
exec 8>"$scratch/lines"
echo "It was a dark night" >&8
for ((tenths = 0; tenths < 300; tenths++)); do
	[ -s "$scratch/night" ] && break
	sleep 0.1
done
kill -INT $talk
echo "And then it was day" >&8
exec 8>&-
wait $talk
code=$?
[ "$code" = 0 ] || fault "talk ends with $code after Ctrl-C: $(cat "$scratch/night.said")"
[ "$(grep -o '^\[[a-z]*;' "$scratch/night.said" | tr '\n' ' ')" = "[cancelled; [limit; " ] ||
	fault "Ctrl-C does not end the one answer, or ends the other: $(cat "$scratch/night.said")"
STREAMKV_SOCKET=$scratch/none ./talk </dev/null 2>"$scratch/said"
code=$?
[ $code = 69 ] || fault "without a daemon talk ends with $code"

# --- watch-log ---

log="$scratch/the log"
touch -- "$log"
setsid ./watch-log "$log" "What is this?" --ignore-eos >"$scratch/watched" 2>"$scratch/said" &
watcher=$!
for ((tenths = 0; tenths < 300; tenths++)); do
	[ -n "$(pgrep -s $watcher tail)" ] && break
	sleep 0.1
done
until_asleep "$(pgrep -s $watcher tail)" "$log"
for ((line = 1; line <= 5; line++)); do
	echo "line $line: the engine is running and the door is open" >>"$log"
	for ((tenths = 0; tenths < 300; tenths++)); do
		[ "$(show watch-the-log requests)" = "$line" ] && [ "$(show watch-the-log state)" = idle ] && break
		sleep 0.1
	done 2>/dev/null
done
kill -- -$watcher
wait $watcher 2>/dev/null
[ "$(grep -c '^line [1-5]: ' "$scratch/watched")" = 5 ] || fault "watch-log shows other lines: $(cat "$scratch/watched")"
[ "$(show watch-the-log requests)" = 5 ] || fault "not every line was read in the one session: $(show watch-the-log requests)"
[ "$(show watch-the-log position)" -gt 200 ] || fault "the session did not go on: $(show watch-the-log position)"
[ "$(show watch-the-log live)" -le 64 ] || fault "the session grew with the log: $(show watch-the-log live)"
[ "$(wc -c <"$scratch/watched")" -gt 600 ] || fault "watch-log has hardly an answer: $(cat "$scratch/watched")"

# --- batch ---

mkdir "$scratch/texts"
for ((i = 1; i <= 9; i++)); do
	echo "Chapter $i. There was a house at the end of the road." >"$scratch/texts/chapter $i"
done
OPTIONS="-n 12 --ignore-eos" ./batch "Sum this up:" "$scratch/texts/"* 2>"$scratch/said" || fault "batch ends with $?: $(cat "$scratch/said")"
for ((i = 1; i <= 9; i++)); do
	[ -s "$scratch/texts/chapter $i.answer" ] || fault "chapter $i has no answer"
done
wanted=$(streamkv-client generate -n 12 --ignore-eos "Sum this up:" - <"$scratch/texts/chapter 3")
[ "$(cat "$scratch/texts/chapter 3.answer")" = "$wanted" ] || fault "chapter 3 has another answer than alone"
echo "done before" >"$scratch/texts/chapter 4.answer"
rm "$scratch/texts/chapter 5.answer"
OPTIONS="-n 12 --ignore-eos" ./batch "Sum this up:" "$scratch/texts/chapter "? || fault "the second batch ends with $?"
grep -qx "done before" "$scratch/texts/chapter 4.answer" || fault "batch does again what was done"
[ -s "$scratch/texts/chapter 5.answer" ] || fault "batch leaves out what was not done"
! STREAMKV_SOCKET=$scratch/none ./batch "Sum" "$scratch/examples/Makefile" 2>"$scratch/said" || fault "batch without a daemon ends well"
grep -q 'Makefile has no answer (exit code 69)' "$scratch/said" || fault "batch does not say why: $(cat "$scratch/said")"
[ -z "$(find "$scratch" -name '*.part')" ] || fault "batch leaves a part of an answer"

# --- two-models ---

text=$(./two-models "$scratch/first" "$scratch/second" "Once upon a time" --ignore-eos) || fault "two-models ends with $?"
first=$(streamkv-client generate -n 40 --ignore-eos "Once upon a time")
begun="Once upon a time$first"
[[ $text == "$begun"?* ]] || fault "the first model's part is another: $text"
second=$(printf '%s' "$begun" | streamkv-client generate --socket "$scratch/second" -n 40 --ignore-eos)
[ "$text" = "$begun$second" ] || fault "the second model's part is another: $text"
! ./two-models "$scratch/none" "$scratch/second" "Once" >/dev/null 2>&1 || fault "two-models without the first model ends well"
exit $status
