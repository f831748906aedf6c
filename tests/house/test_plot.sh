#!/bin/bash
# tools/plot draws every kind of CSV, and says in one line, with the file's name, what it cannot draw.
#
#   test_plot.sh TREE
set -uo pipefail
plot=$1/tools/plot

if ! /usr/bin/python3 -c 'import matplotlib' 2>/dev/null; then
	echo "SKIP house_plot: /usr/bin/python3 has no matplotlib (python3-matplotlib)"
	exit 77
fi
status=0
fault()
{
	echo "FAIL $1"
	status=1
}

scratch=$(mktemp -d) || exit 1
trap 'rm -rf -- "$scratch"' EXIT
cd -- "$scratch" || exit 1
export MPLCONFIGDIR=$scratch/matplotlib # its list of fonts, which it would keep in HOME

# A dense run, a window whose perplexity explodes once the first tokens are gone, and a stream that stays flat.
scores() # dense|window|streaming
{
	awk -v mode="$1" 'BEGIN {
		srand(1)
		print "pos,id,logprob,live"
		for (t = 1; t < 1500; t++) {
			nats = 3 + (mode == "window" && t > 256 ? 4.5 : 0) + (mode == "streaming" ? 0.1 : 0)
			live = mode == "dense" || t < 256 ? t : mode == "window" ? 256 : 256 + t % 65
			printf "%d,%d,%.9g,%d\n", t, t % 977, -nats * 2 * rand(), live
		}
	}'
}
# A prompt in three steps, which draw no token, and then a token a step.
trace() # dense|streaming
{
	awk -v mode="$1" 'BEGIN {
		srand(2)
		print "position,tokens,live,live_after,evicted,sink_end,window_first,window_end,step_ms,id,logprob"
		for (t = 0; t < 2000; t += n) {
			n = t < 384 ? 128 : 1
			live = mode == "dense" || t < 512 ? t : 512
			after = mode == "dense" || t + n < 512 ? t + n : 512
			ms = n * (7 + live / 500) * (n > 1 ? 0.1 : 1) * (0.95 + 0.1 * rand())
			printf "%d,%d,%d,%d,%d,4,%d,%d,%.4f,%s\n", t, n, live, after, live + n - after,
				t + n - after + 4, t + n, ms, (n > 1 ? "," : t % 977 ",-2.5")
		}
	}'
}
sweep() # factor of a run without sinks
{
	awk -v bare="$1" 'BEGIN {
		print "mode,sink,window,slack,capacity,tokens,perplexity,weight_bytes,cache_bytes,scratch_bytes," \
			"tokens_per_s,ttft_ms,tpot_ms,attention_ms,more"
		print "dense,,,,,1000,19.16,9e7,5e7,1e6,120,30,9.2,1.2,"
		n = split("0 1 2 4 8", sinks, " ")
		for (i = 1; i <= n; i++)
			for (c = 256; c <= 2048; c *= 2)
				printf "streaming,%d,%d,0,%d,1000,%.4f,9e7,%d,1e6,,,%s,,x\n", sinks[i], c - sinks[i], c,
					(19.2 + 600 / c / (1 + sinks[i])) * (i == 1 ? bare : 1), c * 1000,
					(c == 1024 ? "" : 7.5 + c / 1000)
	}'
}

number() # offset in picture.png: 4 bytes
{
	od -An -tu4 --endian=big -j "$1" -N 4 picture.png | tr -d ' '
}
draws() # least width, least height, arguments
{
	local width=$1 height=$2
	shift 2
	rm -f picture.png
	"$plot" "$@" -o picture.png >said 2>&1 || fault "plot $* ends with $?: $(cat said)"
	[ ! -s said ] || fault "plot $* says: $(cat said)"
	[ -s picture.png ] || return
	[ "$(head -c 8 picture.png | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] || fault "plot $* makes no PNG"
	[ "$(stat -c %s picture.png)" -gt 5000 ] || fault "plot $* draws next to nothing"
	if [ "$(number 16)" -lt "$width" ] || [ "$(number 20)" -lt "$height" ]; then
		fault "plot $* draws $(number 16) by $(number 20), not $width by $height or more"
	fi
}
refuses() # exit code, what is said, arguments
{
	local wanted=$1 sentence=$2 code
	shift 2
	"$plot" "$@" >answer 2>said
	code=$?
	[ $code = "$wanted" ] || fault "plot $* ends with $code, not $wanted"
	[ ! -s answer ] || fault "plot $* prints: $(cat answer)"
	grep -qF -- "$sentence" said || fault "plot $* says: $(cat said)"
	[ "$(wc -l <said)" = 1 ] || fault "plot $* says not one line: $(cat said)"
	[ ! -e none.png ] || fault "plot $* draws in spite of that"
}

for mode in dense window streaming; do scores $mode >$mode.csv; done
for mode in dense streaming; do trace $mode >"trace $mode.csv"; done
sweep 1 >sweep.csv
sweep 40 >bare.csv
cut -d, -f1-12 sweep.csv >untimed.csv

draws 1000 700 dense.csv window.csv streaming.csv --label dense --label "_\$window" --label "4 + 252"
draws 1000 700 --kind scores --window 10 --log-x --title "All of \$it" dense.csv
draws 1000 700 "trace dense.csv" "trace streaming.csv"
draws 1000 700 --log-x "trace streaming.csv"
draws 1000 700 sweep.csv
draws 1500 700 sweep.csv bare.csv
draws 1000 400 untimed.csv
for file in dense.csv "trace dense.csv" sweep.csv; do # one row, with a line's end of another system
	head -n 2 "$file" | sed 's/$/\r/' >one.csv
	draws 1000 400 one.csv
done
[[ $("$plot" --help) == *"examples:"* ]] || fault "--help shows no examples"

bad() # number of the bad line, what is said, arguments; the file is standard input
{
	cat >bad.csv
	refuses 65 "$2" "${@:3}" bad.csv -o none.png
	grep -q "^plot: bad.csv:$1: " said || fault "bad.csv is bad at line $1, not so: $(cat said)"
}
bad 1 "empty" </dev/null
bad 1 "no known header" <<<$'a,b\n1,2'
bad 1 "no known header" <picture.png
bad 1 "no column tokens" --kind trace < <(sed 1s/tokens/tokes/ "trace dense.csv")
bad 1 "no column pos" dense.csv <sweep.csv
bad 2 "no row" < <(head -n 1 dense.csv)
bad 2 "no row has a perplexity" < <(sed -n 's/,19.16,/,,/;1,2p' sweep.csv)
bad 700 'logprob is "?", not a number' < <(sed '700s/-[^,]*/?/' dense.csv)
bad 700 'logprob is "-nan", not a number' < <(sed '700s/-[^,]*/-nan/' dense.csv)
bad 700 "fields where the header has 4" < <(sed '700s/,[^,]*$//' dense.csv)
bad 700 "fields where the header has 4" < <(sed '700s/.*//' dense.csv)
bad 700 "pos goes from" < <(sed '700s/^/-/;700s/-//;699s/^[0-9]*/5000/' dense.csv)
bad 700 'tokens is "0", not a number of 1 or more' < <(sed '700s/,1,/,0,/' "trace dense.csv")
bad 5 'mode is "steaming"' < <(sed 5s/streaming/steaming/ sweep.csv)
bad 5 "sink is empty" < <(sed 5s/streaming,0/streaming,/ sweep.csv)

refuses 66 "there is none.csv: No such file" "there is none.csv" -o none.png
refuses 66 "matplotlib: Is a directory" matplotlib -o none.png
refuses 64 '"pie"' --kind pie dense.csv -o none.png
refuses 64 "--window" --window 0 dense.csv -o none.png
refuses 64 "--label" --label one dense.csv window.csv -o none.png
refuses 64 "--colour" --colour red dense.csv -o none.png
refuses 64 "-o" dense.csv
refuses 64 "FILE.csv" -o none.png
refuses 64 "none.pdf" dense.csv -o none.pdf
refuses 73 "nowhere/none.png" dense.csv -o nowhere/none.png
mkdir folder.png
refuses 73 "folder.png" dense.csv -o folder.png

/usr/bin/python3 -I -S "$plot" dense.csv -o none.png 2>said # -S: no packages
code=$?
[ $code = 69 ] || fault "without matplotlib plot ends with $code"
[ "$(grep -c "install python3-matplotlib" said)" = "$(wc -l <said)" ] || fault "without matplotlib: $(cat said)"
exit $status
