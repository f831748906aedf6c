/* The body of each kernels_*.c: all kernels, then their table. */
#pragma once

#include "cpu/kernel_append.h"
#include "cpu/kernel_attend.h"
#include "cpu/kernel_draw.h"
#include "cpu/kernel_elementwise.h"
#include "cpu/kernel_matmul_blocks.h"
#include "cpu/kernel_matmul_floats.h"
#include "cpu/kernel_matmul_pairs.h"
#include "cpu/kernel_quantise.h"

const struct sk_cpu_kernels SK_KERNELS_TABLE = {
	.name = SK_KERNELS_NAME,
	.quantise = quantise,
#if defined(__AVX512BF16__)
	.round = round_pairs,
	.matmul_pairs = matmul_pairs,
#endif
	.matmul = {[SK_PACKING_F32] = matmul_f32,
		   [SK_PACKING_F16] = matmul_f16,
		   [SK_PACKING_BF16] = matmul_bf16,
		   [SK_PACKING_Q8] = matmul_q8,
		   [SK_PACKING_Q8M] = matmul_q8m,
		   [SK_PACKING_Q8H] = matmul_q8h,
		   [SK_PACKING_Q8HM] = matmul_q8hm,
		   [SK_PACKING_Q4] = matmul_q4,
		   [SK_PACKING_Q4M] = matmul_q4m},
	.append = append,
	.attend = attend,
	.attend_segment = attend_segment,
	.attend_join = attend_join,
	.norm = norm,
	.activate = activate,
	.draw = draw_id,
	.score = score_id,
};
