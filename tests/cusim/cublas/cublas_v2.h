/* What gpu/ uses of cuBLAS, for cusim alone, where no toolkit has the library's header: behind these is blas.cc, so that
 * no number need be the library's.
 */
#pragma once

#include <cuda_runtime_api.h>
#include <library_types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cublasContext *cublasHandle_t;

typedef enum {
	CUBLAS_STATUS_SUCCESS,
	CUBLAS_STATUS_ALLOC_FAILED,
	CUBLAS_STATUS_INVALID_VALUE,
	CUBLAS_STATUS_EXECUTION_FAILED,
	CUBLAS_STATUS_NOT_SUPPORTED,
} cublasStatus_t;

typedef enum { CUBLAS_OP_N, CUBLAS_OP_T } cublasOperation_t;
typedef enum { CUBLAS_COMPUTE_32F } cublasComputeType_t;
typedef enum { CUBLAS_GEMM_DEFAULT } cublasGemmAlgo_t;

cublasStatus_t cublasCreate_v2(cublasHandle_t *ret_handle);
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle);
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream);
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t n_bytes);
cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
			    int m, int n, int k, const void *alpha, const void *a,
			    cudaDataType type_a, int lda, const void *b, cudaDataType type_b,
			    int ldb, const void *beta, void *c, cudaDataType type_c, int ldc,
			    cublasComputeType_t compute, cublasGemmAlgo_t algorithm);

#define cublasCreate       cublasCreate_v2
#define cublasDestroy      cublasDestroy_v2
#define cublasSetStream    cublasSetStream_v2
#define cublasSetWorkspace cublasSetWorkspace_v2

#ifdef __cplusplus
}
#endif
