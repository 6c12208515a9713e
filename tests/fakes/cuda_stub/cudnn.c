// A libcudnn without a GPU: descriptors are empty, and one plan without a workspace fits every graph.
// With CUDNN_STUB_BROKEN set, no graph can be made.

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void stub_add(const char* name, int64_t value);

enum { HEURISTICS_RESULTS = 202, TYPE_INT64 = 3, TYPE_DESCRIPTOR = 15, TYPE_INT32 = 23 };

static int handle(void** result) { *result = calloc(1, 256); return 0; }

size_t cudnnGetVersion(void) { return 91400; }
size_t cudnnGetMaxDeviceVersion(void) { return 91400; }
size_t cudnnGetCudartVersion(void) { return 13000; }
const char* cudnnGetErrorString(int status) { return status ? "stub error" : "success"; }
void cudnnGetLastErrorString(char* message, size_t size) { if (size) message[0] = 0; }
int cudnnCreate(void** result) { stub_add("cudnn_handles", 1); return handle(result); }
int cudnnDestroy(void* object) { free(object); return 0; }

int cudnnCreateTensorDescriptor(void** result) { return handle(result); }
int cudnnCreateFilterDescriptor(void** result) { return handle(result); }
int cudnnCreateConvolutionDescriptor(void** result) { return handle(result); }
int cudnnCreateActivationDescriptor(void** result) { return handle(result); }
int cudnnCreateReduceTensorDescriptor(void** result) { return handle(result); }
int cudnnCreatePoolingDescriptor(void** result) { return handle(result); }
int cudnnCreateLRNDescriptor(void** result) { return handle(result); }

int cudnnConvolutionForward(void) { stub_add("launches", 1); return 0; }
int cudnnGetReductionWorkspaceSize(void* h, void* r, void* a, void* c, size_t* size) { *size = 0; return 0; }
int cudnnGetReductionIndicesSize(void* h, void* r, void* a, void* c, size_t* size) { *size = 0; return 0; }

int cudnnBackendCreateDescriptor(int type, void** result) { return handle(result); }
int cudnnBackendDestroyDescriptor(void* object) { free(object); return 0; }
int cudnnBackendInitialize(void* object) { return 0; }
int cudnnBackendSetAttribute(void* object, int name, int type, int64_t count, const void* values) { return 0; }
int cudnnBackendFinalize(void* object) { return getenv("CUDNN_STUB_BROKEN") != NULL; }
int cudnnBackendExecute(void* cudnn, void* plan, void* values) { stub_add("launches", 1); return 0; }

int cudnnBackendGetAttribute(void* object, int name, int type, int64_t requested, int64_t* count, void* values) {
    int64_t given = 0;
    if (type == TYPE_DESCRIPTOR) {
        // The caller made the descriptors that are to be filled.
        given = 1;
    } else if ((type == TYPE_INT64 || type == TYPE_INT32) && values && requested > 0) {
        memset(values, 0, requested * (type == TYPE_INT64 ? 8 : 4));
        given = 1;
    }
    if (count) *count = given;
    if (name == HEURISTICS_RESULTS) stub_add("plans", 1);
    return 0;
}
