#!/bin/bash
# tools/gpu-day with the programs that run over cusim in place of a device's. SOURCES PROGRAMS
set -eu
sources=$1
programs=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$sources"

mkdir "$folder/bin" "$folder/programs"
for name in step shared probe_shared; do
	ln -s "$programs/cusim_$name" "$folder/programs/kernel_$name"
done
ln -s "$programs/cusim_bench_gpu" "$folder/programs/bench_gpu"
ln -s "$programs/cusim_golden_greedy" "$folder/programs/golden_greedy"
if [ -e "$programs/cusim/streamkvd" ]; then
	ln -s "$programs/cusim/streamkvd" "$folder/programs/streamkvd"
else # a build with CUDA has none over cusim
	printf '%s\n' '#!/bin/sh' 'echo "no device" >&2' 'exit 69' >"$folder/programs/streamkvd"
	chmod +x "$folder/programs/streamkvd"
fi
printf '#!/bin/sh\nexec python3 -IS "$@"\n' >"$folder/bin/bare-python" # which has no PyTorch
chmod +x "$folder/bin/bare-python"

want=--no-sanitizer
run() { # ARGUMENTS...
	PATH=$folder/bin:$PATH PYTHON=${python-$folder/bin/bare-python} MODEL=${model-tests/models/tiny-neox-serial} \
		tools/gpu-day --programs "$folder/programs" --out "$folder/out" $want --try "$@"
}
fail() { # MESSAGE
	echo "gpu_day.sh: $1" >&2
	cat "$folder/log" >&2
	exit 1
}
expect() { # FILE REGEX...
	local file=$1 regex
	shift
	for regex in "$@"; do
		grep -qE "$regex" "$folder/out/$file" || fail "$file has no $regex"
	done
}

stub() { # FILE LINE...
	local file=$folder/$1
	shift
	rm -f "$file"
	printf '%s\n' '#!/bin/sh' "$@" >"$file"
	chmod +x "$file"
}
ends_with() { # STATUS ARGUMENTS...
	local expected=$1 status=0
	shift
	run "$@" >"$folder/log" 2>&1 || status=$?
	[ $status = "$expected" ] || fail "$* ends with $status"
}

stub bin/nvidia-smi 'exit 9'
ends_with 77

# A device that nobody can use, as with a driver that is too old: nothing has passed.
stub bin/nvidia-smi 'exit 0'
export CUSIM_NO_DEVICE=1
ends_with 77 --only 'step|shared|greedy|daemon|bench'
unset CUSIM_NO_DEVICE
expect verdicts.txt '^kernel_step +skipped: .*this machine has no cuda' '^golden_greedy +skipped: .*backend cuda: no device' \
	'^a daemon and a client +skipped: .*no device' '^bench_gpu +skipped: .*no device' '^descriptor: .*skipped'
if grep passed "$folder/out/verdicts.txt"; then
	fail 'something passed without a device'
fi

# Nor has it where nothing ran.
status=0
STREAMKV_TEST_FILTER=none "$folder/programs/kernel_step" >"$folder/log" 2>&1 || status=$?
[ $status = 77 ] || fail "a filter that leaves no test ends with $status"
grep -q 'no test here is called none' "$folder/log" || fail 'it does not say that the filter leaves no test'
stub programs/kernel_matmul 'echo "SKIP test_x cuda: for a reason"'
ends_with 77 --only matmul
expect verdicts.txt '^kernel_matmul +skipped: test_x cuda: for a reason'

# Nor where nothing has such a name, or compute-sanitizer is not there, or not wanted; each says so.
ends_with 77 --only kernel_that_is_not
expect verdicts.txt '^skipped: nothing here is called kernel_that_is_not$'
ends_with 77 --only 'check kernel_draw'
expect verdicts.txt '^memcheck kernel_draw +skipped: .*--no-sanitizer' '^racecheck kernel_draw +skipped: '
want=''
if ! [ -x /usr/local/cuda/bin/compute-sanitizer ] && ! command -v compute-sanitizer >"$folder/log"; then
	ends_with 77 --only 'check kernel_(matmul|shared)'
	expect verdicts.txt '^initcheck kernel_shared +skipped: compute-sanitizer is neither on PATH nor in '
fi
# Where it is, each tool runs, and what it finds fails. The stub is called with --tool TOOL --error-exitcode 1 PROGRAM.
ln -s "$programs/cusim_draw" "$folder/programs/kernel_draw"
# shellcheck disable=SC2016
stub bin/compute-sanitizer '[ "$2" != racecheck ] || exit "$4"' 'shift 4' 'exec "$@"'
ends_with 1 --only 'check kernel_(draw|shared)'
expect verdicts.txt '^memcheck kernel_draw +passed' '^racecheck kernel_draw +FAILED' '^initcheck kernel_shared +passed' \
	'^synccheck kernel_draw +passed'
rm "$folder/bin/compute-sanitizer"
want=--no-sanitizer

run --only 'step|shared|bench|transformers' >"$folder/log" 2>&1 || fail 'a test failed'
expect verdicts.txt '^kernel_step +passed' '^kernel_shared +passed' '^descriptor: .*writes +passed \(refused' \
	'^descriptor: read, .*passed' '^handle: read, .*seen' '^bench_gpu +passed' \
	'^transformers: skipped: PyTorch is not installed$'
expect table.md '^\| decode, 8 sessions \|' '^\| prefill, a prompt of 128 \|' '^\| time to first token, ' \
	'^\| at position 1000000; floor: at 2000 \|' '^\| plain launches, 8 sessions; ' '^\| five launches a layer, 8 sessions; ' '^\| attend, 8 rows \|' \
	'^\| draw, top-k 40, top-p 0\.95, temperature 0\.8, 8 rows \|' '^\| decode, 8 sessions, cache of BF16 \|' \
	'^\| prefill, a prompt of 128 \| [0-9.]+ \| [0-9.]+ \|'
[ "$(grep -c '^| measured' "$folder/log")" = 1 ] || fail 'it does not print one table'
[ "$(grep -cvE '^\{"what": .*\}$' "$folder/out/gpu-day.jsonl")" = 0 ] || fail 'not all measurements are JSON'

# A device whose memory holds few sessions, and has no speed that could be measured.
CUSIM_FREE=$(((1 << 30) + 100 * 24576)) CUSIM_NO_BANDWIDTH=1 ends_with 1 --only bench
expect verdicts.txt '^bench_gpu +FAILED'
expect bench_gpu.log '^bench_gpu: 8 sessions are left out: the memory holds [1-7]$' 'bandwidth could not be measured'
expect table.md '; reading: not measured$' '^8 sessions: left out: the memory holds' '^\| decode, 1 session \| [0-9.]+ \|  \|  \| [0-9]'
if grep -E 'inf|nan|floor|bandwidth|decode", "sessions": 8' "$folder/out/gpu-day.jsonl"; then
	fail 'there is a floor without a bandwidth, or a session without memory'
fi

# What transformers adds to it, and lines that are no measurements.
cat >"$folder/out/beside.jsonl" <<-'END'
	{"what": "decode", "sessions": 16, "drawn_read": false, "median_ms": 4, "floor_ms": 2, "tokens_per_s": 4000}
	{"what": "transformers", "mode": "compiled", "sessions": 16, "median_ms": 8}
	7
	["what"]
	{"that": 1}
	{"what": "transf
END
python3 bench/gpu_table.py "$folder/out/beside.jsonl" >"$folder/out/beside.md" 2>"$folder/log"
expect beside.md '^\| decode, 16 sessions \| 4 \| 2 \| 0\.50 \| 4000 \|  \| 8 \(2\.00 of ours\) \|$'

# A test that fails.
stub programs/kernel_matmul 'exit 1'
ends_with 1 --only matmul
expect verdicts.txt '^kernel_matmul +FAILED'

# transformers that cannot do some of it, or any.
measured='{"what": "transformers", "mode": "eager", "sessions": 1, "median_ms": 8}'
stub bin/python "echo '$measured'" 'echo "transformers: missing: compiled, 1: RuntimeError: no" >&2'
python=$folder/bin/python ends_with 0 --only transformers
expect verdicts.txt '^transformers +measured \(1\)$' '^transformers: missing: compiled, 1: '
mkdir "$folder/fake"
cat >"$folder/fake/torch.py" <<-'END'
	import contextlib
	__version__, bfloat16 = "0", None
	manual_seed = set_default_dtype = lambda what: None
	device = lambda what: contextlib.nullcontext()
	no_grad = contextlib.nullcontext
END
cat >"$folder/fake/transformers.py" <<-'END'
	__version__ = "0"
	class GPTNeoXConfig:
	    def __init__(self, **shape):
	        pass
	class GPTNeoXForCausalLM:
	    def __init__(self, config):
	        pass
	    eval = lambda self: self
	    parameters = lambda self: []
	StaticCache = None
END
stub bin/python "PYTHONPATH=$folder/fake PYTHONDONTWRITEBYTECODE=1 exec python3 \"\$@\" --device cpu --tiny --steps 1"
python=$folder/bin/python ends_with 0 --only transformers
expect verdicts.txt '^transformers +failed: nothing was measured$' '^transformers: missing: eager, 16: AttributeError: ' \
	'^transformers: missing: compiled, 64: '

# What does not heed that its time is over, is killed: a test, a daemon, what makes the model.
deaf() { # SECONDS STATUS ARGUMENTS...
	local begun=$SECONDS
	ends_with "${@:2}" --seconds "$1"
	[ $((SECONDS - begun)) -le $(($1 + 2)) ] || fail "$* took $((SECONDS - begun)) seconds"
}
stub programs/kernel_matmul "trap '' TERM" 'sleep 60'
deaf 10 1 --only 'matmul|daemon'
expect verdicts.txt '^kernel_matmul +ran out of time' '^a daemon and a client +ran out of time'
cat >"$folder/daemon.py" <<-'END'
	import signal, socket, sys, time
	signal.signal(signal.SIGTERM, signal.SIG_IGN)
	socket.socket(socket.AF_UNIX).bind(sys.argv[sys.argv.index("--socket") + 1])
	time.sleep(60)
END
stub programs/streamkvd "exec $(command -v python3) $folder/daemon.py \"\$@\""
stub programs/streamkv-client 'exit 0'
deaf 30 0 --only daemon # with some seconds for it, also on a busy machine
expect verdicts.txt '^a daemon and a client +passed'
stub bin/python3 "trap '' TERM" 'sleep 60'
model='' deaf 10 1 --only bench
expect verdicts.txt '^bench_gpu: its model +ran out of time'
