// A libcublas without a GPU: products do nothing.

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

void stub_add(const char* name, int64_t value);

static int handle(void** result) { *result = calloc(1, 256); return 0; }

int cublasCreate_v2(void** result) { stub_add("cublas_handles", 1); return handle(result); }
int cublasDestroy_v2(void* object) { free(object); return 0; }
int cublasGetMathMode(void* object, int* mode) { *mode = 0; return 0; }
int cublasGetPointerMode_v2(void* object, int* mode) { *mode = 0; return 0; }
int cublasGetStream_v2(void* object, void** stream) { *stream = 0; return 0; }
const char* cublasGetStatusString(int status) { return status ? "stub error" : "success"; }
const char* cublasGetStatusName(int status) { return cublasGetStatusString(status); }

#define PRODUCT(name) int name(void) { stub_add("launches", 1); return 0; }
PRODUCT(cublasSgemm_v2)
PRODUCT(cublasDgemm_v2)
PRODUCT(cublasHgemm)
PRODUCT(cublasGemmEx)
PRODUCT(cublasSgemmStridedBatched)
PRODUCT(cublasHgemmStridedBatched)
PRODUCT(cublasGemmStridedBatchedEx)
PRODUCT(cublasSgemmBatched)
PRODUCT(cublasHgemmBatched)
PRODUCT(cublasGemmBatchedEx)
PRODUCT(cublasSgeam)
PRODUCT(cublasSgemv_v2)
