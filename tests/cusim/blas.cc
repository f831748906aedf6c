/* cuBLAS's products, naively and in order, with the checks that the library makes and some that it does not. */
#include "host.h"

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

struct cublasContext {
	cudaStream_t stream = nullptr;
};

namespace cusim
{

static float element(const void *p, size_t i, cudaDataType type)
{
	switch (type) {
	case CUDA_R_16F:
		return __half2float(((const __half *)p)[i]);
	case CUDA_R_16BF:
		return __bfloat162float(((const __nv_bfloat16 *)p)[i]);
	default:
		return ((const float *)p)[i];
	}
}

static size_t size_of(cudaDataType type)
{
	return type == CUDA_R_32F ? 4 : 2;
}

/* A column-major matrix of so many columns, each of n elements, `stride` apart. */
static bool is_there(const void *p, size_t columns, size_t n, size_t stride, cudaDataType type)
{
	const Allocation *a = find_device(p);
	const size_t bytes = ((columns - 1) * stride + n) * size_of(type);
	return a && a->live && (const char *)p + bytes <= a->data + a->size_bytes && (uintptr_t)p % 16 == 0;
}

static void check_written(const void *p, size_t columns, size_t n, size_t stride, cudaDataType type)
{
	for (size_t i = 0; i < columns; i++)
		if (!is_written((const char *)p + i * stride * size_of(type), n * size_of(type))) {
			report("uninitialised", "global memory that was never written is multiplied by cuBLAS");
			return;
		}
}

}

using namespace cusim;

#define BLAS_CALL(status)                                                                                        \
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);                                               \
	if (cusim::fails_now())                                                                                  \
	return status

extern "C" {
cublasStatus_t cublasCreate_v2(cublasHandle_t *ret_handle)
{
	BLAS_CALL(CUBLAS_STATUS_ALLOC_FAILED);
	*ret_handle = new cublasContext;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
	delete handle;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
	BLAS_CALL(CUBLAS_STATUS_EXECUTION_FAILED);
	handle->stream = stream;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void *workspace, size_t n)
{
	BLAS_CALL(CUBLAS_STATUS_EXECUTION_FAILED);
	const Allocation *a = find_device(workspace);
	return a && a->live && n <= a->size_bytes ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k,
			    const void *alpha, const void *a, cudaDataType type_a, int lda, const void *b,
			    cudaDataType type_b, int ldb, const void *beta, void *c, cudaDataType type_c, int ldc,
			    cublasComputeType_t compute, cublasGemmAlgo_t)
{
	BLAS_CALL(CUBLAS_STATUS_EXECUTION_FAILED);
	const bool ta = op_a == CUBLAS_OP_T, tb = op_b == CUBLAS_OP_T;
	if (m < 0 || n < 0 || k < 0 || lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m)
		return CUBLAS_STATUS_INVALID_VALUE;
	if (compute != CUBLAS_COMPUTE_32F || type_a != type_b || type_c != CUDA_R_32F)
		return CUBLAS_STATUS_NOT_SUPPORTED; /* more is not imitated */
	const float x = *(const float *)alpha, y = *(const float *)beta;
	queue_work(handle->stream, [=] {
		if (!is_there(a, ta ? m : k, ta ? k : m, lda, type_a) || !is_there(b, tb ? k : n, tb ? n : k, ldb, type_b) ||
		    !is_there(c, n, m, ldc, type_c)) {
			report("cublas-bounds", "a %d by %d by %d product outside its matrices, or not aligned", m, n, k);
			return;
		}
		check_written(a, ta ? m : k, ta ? k : m, lda, type_a);
		check_written(b, tb ? k : n, tb ? n : k, ldb, type_b);
		if (y != 0)
			check_written(c, n, m, ldc, type_c);
		float *out = (float *)c;
		for (int col = 0; col < n; col++) {
			for (int row = 0; row < m; row++) {
				float sum = 0;
				for (int i = 0; i < k; i++)
					sum += element(a, ta ? i + (size_t)row * lda : row + (size_t)i * lda, type_a) *
					       element(b, tb ? col + (size_t)i * ldb : i + (size_t)col * ldb, type_b);
				float *at = out + row + (size_t)col * ldc;
				*at = x * sum + (y != 0 ? y * *at : 0);
			}
			mark_written(out + (size_t)col * ldc, m * sizeof(float), true);
		}
	});
	return CUBLAS_STATUS_SUCCESS;
}
}
