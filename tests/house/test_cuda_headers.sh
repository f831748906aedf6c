#!/bin/bash
# tools/fetch-cuda-headers without a network: what pip brings is unpacked in one piece, and what it does not leaves nothing.
# SOURCES
set -eu
fetch=$1/tools/fetch-cuda-headers
python=$(command -v python3)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export XDG_CACHE_HOME=$folder/cache

fail() # MESSAGE
{
	echo "test_cuda_headers.sh: $1" >&2
	exit 1
}

# A pip that brings two wheels, or says why not.
mkdir "$folder/bin"
cat >"$folder/bin/python3" <<END
#!/bin/bash
[[ " \$* " == *' pip '* ]] || exec $python "\$@"
[[ " \$* " == *' download '* ]] || exit 0
echo "\$*" >>"$folder/asked"
[ -e "$folder/network" ] || { echo 'ERROR: no such package' >&2 && exit 1; }
while [ "\$1" != -d ]; do shift; done
exec $python - "\$2" <<-'PYTHON'
	import sys, zipfile
	for wheel, *names in ("a", "cuda_runtime/include/cuda_runtime.h", "cuda_runtime/lib/libx.so"), (
	        "b", "cuda_nvcc/include/crt/host_defines.h", "cuda_cccl/include/nv/target", "cuda_cccl/include/cub/cub.h"):
	    with zipfile.ZipFile("%s/%s.whl" % (sys.argv[1], wheel), "w") as z:
	        for name in names:
	            z.writestr("nvidia/" + name, name)
PYTHON
END
chmod +x "$folder/bin/python3"
PATH=$folder/bin:$PATH

status=0
"$fetch" >"$folder/out" 2>"$folder/log" || status=$?
[ $status = 69 ] || fail "it ends with $status"
grep -q 'could not be downloaded: ERROR: no such package' "$folder/log" || fail 'it does not say what failed'
[ -z "$(ls -A "$XDG_CACHE_HOME/streamkv")" ] || fail 'it leaves something behind'
! "$fetch" --cached >/dev/null || fail 'it says that they are there'

printf '#!/bin/sh\necho riscv64\n' >"$folder/bin/uname"
chmod +x "$folder/bin/uname"
status=0
"$fetch" >"$folder/out" 2>"$folder/log" || status=$?
[ $status = 69 ] || fail "for another machine it ends with $status"
grep -q 'there are none for riscv64' "$folder/log" || fail 'it does not say that another machine has none'
rm "$folder/bin/uname"
grep -q -- '--timeout .*--retries' "$folder/asked" || fail 'it does not limit how long pip waits'

touch "$folder/network"
headers=$("$fetch" 2>/dev/null) || fail 'it does not get them'
[ "$("$fetch" --cached)" = "$headers" ] || fail 'it does not find them'
unpacked=$(find "$headers" -type f -printf '%P\n' | sort | tr '\n' ' ')
[ "$unpacked" = 'crt/host_defines.h cuda_runtime.h nv/target ' ] || fail "it unpacks $unpacked"
rm "$headers/nv/target"
! "$fetch" --cached >/dev/null || fail 'it says that all are there where one is missing'
: >"$folder/asked"
pids=()
for _ in 1 2 3; do # which all find it missing
	"$fetch" >/dev/null 2>"$folder/log" &
	pids+=($!)
done
for pid in "${pids[@]}"; do
	wait "$pid" || fail 'one of several at once does not get them'
done
[ "$("$fetch" --cached)" = "$headers" ] || fail 'it does not make a folder anew that lacks a header'
[ "$(wc -l <"$folder/asked")" = 1 ] || fail 'several at once fetch them several times'
[ "$(ls -A "$XDG_CACHE_HOME/streamkv")" = "$(basename "$headers")" ] || fail 'it leaves something behind beside them'
rm "$folder/network"
[ "$("$fetch")" = "$headers" ] || fail 'it fetches them again'
