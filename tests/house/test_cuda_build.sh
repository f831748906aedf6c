#!/bin/bash
# The whole build with CUDA, for every architecture that it is made for: no kernel spills on any of them, the programs are linked
# to the runtime and to cuBLAS, nothing wants the driver's library, and what is for later devices is there as PTX.
#
#   test_cuda_build.sh TREE BUILD
set -uo pipefail
tree=$1
build=$2/cuda_build # of its own, as most builds are without CUDA
packages=$2/machine_code/packages # NVIDIA's two programs, where house_machine_code has fetched them

skip()
{
	echo "SKIP house_cuda_build_nightly: $1"
	exit 77
}
status=0
fault()
{
	echo "FAIL $1"
	status=1
}

PATH=$PATH:/usr/local/cuda/bin
command -v nvcc >/dev/null || skip "nvcc is not here"
command -v c++ >/dev/null || skip "a C++ compiler is not here, which nvcc wants"
configured=$(cmake -S "$tree" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSK_CUDA=ON -DSK_WERROR=ON -DBUILD_TESTING=OFF 2>&1) || {
	echo "$configured"
	exit 1
}
ninja -C "$build" streamkvd streamkv-client bench_gpu || exit 1

for program in streamkvd bench_gpu; do
	needed=$(readelf -d "$build/bin/$program")
	grep -q 'NEEDED.*libcublas\.so' <<<"$needed" || fault "$program does not name cuBLAS"
	! grep -q 'NEEDED.*libcuda\.so' <<<"$needed" || fault "$program wants the driver's library: it could not start without one"
	! nm --undefined-only "$build/bin/$program" | grep -E ' U (cuda|cuGet|cuMem|cuDevice)' ||
		fault "$program leaves calls of CUDA to the machine that runs it"
done
[[ $("$build/bin/streamkvd" --version 2>&1) == *streamkv* ]] || fault "streamkvd does not start where no driver is"

lists() # WHAT REGEX...
{
	local said regex
	said=$(cuobjdump "$1" "$build/gpu/libsk_gpu_kernels.a" 2>&1)
	for regex in "${@:2}"; do
		[ "$(grep -cE "$regex" <<<"$said")" = 8 ] || fault "cuobjdump $1: not each of the 8 files has $regex"
	done
}
bins=$(find "$packages" -type d -name bin 2>/dev/null | tr '\n' ':')
PATH=$PATH:$bins
if command -v cuobjdump >/dev/null; then
	lists --list-elf '\.sm_80\.cubin' '\.sm_86\.cubin' '\.sm_89\.cubin' '\.sm_90\.cubin'
	lists --list-ptx '\.sm_90\.ptx'
	PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH} python3 "$tree/tools/check-machine-code" "$build/gpu/libsk_gpu_kernels.a"
	code=$?
	[ $code = 0 ] || [ $code = 77 ] || fault "check-machine-code ends with $code"
fi
exit $status
