#!/bin/bash
# The machine code of the kernels keeps to its budget: they are built for one architecture, without a device, and
# tools/check-machine-code finds nothing. And it does find what is planted, a fault of each kind in a copy.
#
#   test_machine_code.sh TREE BUILD
set -uo pipefail
tree=$1
build=$2/machine_code # of its own: most builds are without CUDA

skip()
{
	echo "SKIP house_machine_code: $1"
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
mkdir -p -- "$build"
# NVIDIA's two programs are not in every toolkit: then they are fetched, once.
if ! { command -v cuobjdump && command -v nvdisasm; } >/dev/null && [ ! -d "$build/packages/nvidia" ]; then
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$build/packages" \
		nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm || skip "cuobjdump and nvdisasm are not here, and pip could not get them"
fi
export PYTHONPATH=$build/packages${PYTHONPATH:+:$PYTHONPATH}

configured=$(cmake -S "$tree" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSK_CUDA=ON -DSK_WERROR=ON -DBUILD_TESTING=OFF \
	-DCMAKE_CUDA_ARCHITECTURES=90-real 2>&1) || {
	echo "$configured"
	exit 1
}
ninja -C "$build" sk_gpu_kernels || exit 1
python3 "$tree/tools/check-machine-code" "$build/gpu/libsk_gpu_kernels.a"
code=$?
[ $code != 77 ] || exit 77
[ $code = 0 ] || fault "check-machine-code ends with $code"

scratch=$(mktemp -d) || exit 1
trap 'rm -rf -- "$scratch"' EXIT
compile() # kernel, more options: from the copy
{
	nvcc -std=c++17 --extended-lambda -O3 -gencode arch=compute_90,code=sm_90 -c -I"$scratch" -o "$scratch/$1.o" \
		"$scratch/gpu/kernels/$1.cu" "${@:2}" >"$scratch/said" 2>&1
}
plant() # file, what sed does to it
{
	rm -rf -- "$scratch/gpu"
	cp -r -- "$tree/gpu" "$scratch/gpu"
	sed -i "$2" "$scratch/gpu/kernels/$1"
	! cmp -s -- "$tree/gpu/kernels/$1" "$scratch/gpu/kernels/$1" || fault "nothing to plant in $1 by $2"
}
finds() # kernel, what must be said of it, file, what sed does to it
{
	plant "$3" "$4"
	compile "$1" || fault "$1 with $4 does not compile: $(cat -- "$scratch/said")"
	if python3 "$tree/tools/check-machine-code" "$scratch/$1.o" >"$scratch/said"; then
		fault "$1 with $4 passes"
	fi
	grep -qE -- "$2" "$scratch/said" || fault "$1 with $4 is not found: $(cat -- "$scratch/said")"
}

spilt='s/__launch_bounds__(BLOCK, 4)/__launch_bounds__(BLOCK, 6)/'
plant few.cu "$spilt"
if compile few -Werror=all-warnings -Xptxas=-warn-spills,-warn-lmem-usage; then
	fault "a kernel that spills compiles"
fi
grep -q 'Registers are spilled' "$scratch/said" || fault "nvcc says nothing of a spill: $(cat -- "$scratch/said")"
finds few '^sm_90 few<BF16, [01]>: it has local memory' few.cu "$spilt"
finds few '^sm_90 few<F16, 0>: it takes [0-9]+ registers, and may take 64' few.cu \
	's/__launch_bounds__(BLOCK, 4)/__launch_bounds__(BLOCK)/;s/NORMS ? 3 : 4/8/'
finds few '^sm_90 few<F16, 0>: it has 2 loads of 16 bytes in flight, and is to have 8' few.cu 's/NORMS ? 3 : 4/1/'
finds few '^sm_90 few<F16, 0>: it is to have tensor instructions, and has none' chunk.h 's/^\tmma<F>(d.*//'
finds sum '^sm_90 sum: it streams by 2 loads of less than 16 bytes' port.h \
	'/256B.v4/,/"l"(p)/{s/.v4.u32 {%0,%1,%2,%3}, \[%4\];"/.v2.u32 {%0,%1}, [%4];\\n\\tld.global.nc.L1::no_allocate.L2::256B.v2.u32 {%2,%3}, [%4+8];"/;s/"=r"/"=\&r"/g}'
finds sum '^sm_90 sum: it has asynchronous copies, which are not claimed' sum.cu 's/all = 0;/all = 0; sk_copy16(sums, data);/'
finds sum '^sm_90 sum: a processor holds [0-7] blocks of it, and is to hold 8' sum.cu 's/sums\[BLOCK/sums[512 * BLOCK/'
finds sum '^sm_90 other: KERNELS has no line for it' sum.cu 's/\<sum(sum_t/other(sum_t/;s/stream, sum,/stream, other,/'
finds sum '^norm: there is no such kernel' sum.cu 's/BLOCK 256/BLOCK 128/'
exit $status
