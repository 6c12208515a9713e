// A libcudart without a GPU. Device memory is host memory filled with zeros, copies are copies, kernels do
// nothing, and everything is done at once. `stub_count` says how often, or how many bytes, by name.

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_READY = 600 };
enum { HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, BY_ADDRESS };
enum { DEVICE = 1, PINNED = 2, MAX_BLOCKS = 65536, MAX_COUNTS = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// ---- Counts by name.

static struct { char name[32]; int64_t value; } counts[MAX_COUNTS];

void stub_add(const char* name, int64_t value) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_COUNTS; i++) {
        if (!counts[i].name[0]) snprintf(counts[i].name, sizeof counts[i].name, "%s", name);
        if (strcmp(counts[i].name, name) == 0) { counts[i].value += value; break; }
    }
    pthread_mutex_unlock(&lock);
}

int64_t stub_count(const char* name) {
    for (int i = 0; i < MAX_COUNTS && counts[i].name[0]; i++)
        if (strcmp(counts[i].name, name) == 0) return counts[i].value;
    return 0;
}

void stub_reset(void) { memset(counts, 0, sizeof counts); }

// ---- The last error, which stays until somebody asks for it, as CUDA's does.

static _Thread_local int last_error;
static int fail(int error) { last_error = error; return error; }
int cudaGetLastError(void) { int error = last_error; last_error = SUCCESS; return error; }
int cudaPeekAtLastError(void) { return last_error; }
const char* cudaGetErrorString(int error) {
    return error == OUT_OF_MEMORY ? "out of memory" : error == NO_DEVICE ? "no CUDA-capable device is detected"
         : error == SUCCESS ? "no error" : "stub error";
}
const char* cudaGetErrorName(int error) { return cudaGetErrorString(error); }

// ---- Memory. The environment limits the bytes of the device: CUDA_STUB_BYTES.

static struct { char* start; size_t size; int kind; } blocks[MAX_BLOCKS];
static int block_count;
static size_t used;

static size_t limit(void) {
    const char* text = getenv("CUDA_STUB_BYTES");
    return text ? strtoull(text, NULL, 10) : (size_t)64 << 30;
}

static int allocate(void** pointer, size_t size, int kind) {
    if (kind == DEVICE && used + size > limit()) return fail(OUT_OF_MEMORY);
    size_t rounded = ((size ? size : 1) + 255) / 256 * 256;
    if (posix_memalign(pointer, 256, rounded)) return fail(OUT_OF_MEMORY);
    memset(*pointer, 0, rounded);
    stub_add(kind == DEVICE ? "device_bytes" : "pinned_bytes", (int64_t)rounded);
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < block_count && blocks[i].start) i++;
    if (i == MAX_BLOCKS) abort();
    if (i == block_count) block_count++;
    blocks[i].start = *pointer; blocks[i].size = rounded; blocks[i].kind = kind;
    if (kind == DEVICE) used += rounded;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

static int release(void* pointer, int kind) {
    if (!pointer) return SUCCESS;
    size_t size = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < block_count; i++)
        if (blocks[i].start == pointer && blocks[i].kind == kind) { size = blocks[i].size; blocks[i].start = NULL; }
    if (kind == DEVICE) used -= size;
    pthread_mutex_unlock(&lock);
    if (!size) return fail(1);
    stub_add(kind == DEVICE ? "device_bytes" : "pinned_bytes", -(int64_t)size);
    free(pointer);
    return SUCCESS;
}

static int kind_of(const void* pointer) {
    int kind = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < block_count && !kind; i++)
        if (blocks[i].start && (char*)pointer >= blocks[i].start && (char*)pointer < blocks[i].start + blocks[i].size)
            kind = blocks[i].kind;
    pthread_mutex_unlock(&lock);
    return kind;
}

int cudaMalloc(void** pointer, size_t size) { return allocate(pointer, size, DEVICE); }
int cudaMallocAsync(void** pointer, size_t size, void* stream) { return allocate(pointer, size, DEVICE); }
int cudaMallocHost(void** pointer, size_t size) { return allocate(pointer, size, PINNED); }
int cudaHostAlloc(void** pointer, size_t size, unsigned flags) { return allocate(pointer, size, PINNED); }
int cudaFree(void* pointer) { return release(pointer, DEVICE); }
int cudaFreeAsync(void* pointer, void* stream) { return release(pointer, DEVICE); }
int cudaFreeHost(void* pointer) { return release(pointer, PINNED); }
int cudaMemGetInfo(size_t* free_bytes, size_t* total) { *total = limit(); *free_bytes = *total - used; return SUCCESS; }

struct pointer_attributes { int type, device; void *device_pointer, *host_pointer; long reserved[8]; };
int cudaPointerGetAttributes(struct pointer_attributes* attributes, const void* pointer) {
    int kind = kind_of(pointer);
    memset(attributes, 0, sizeof *attributes);
    attributes->type = kind == DEVICE ? 2 : kind == PINNED ? 1 : 0;
    attributes->device_pointer = attributes->host_pointer = (void*)pointer;
    return SUCCESS;
}

// ---- Copies. One from or to memory of the host that is not pinned keeps the host until it is done.

static int copy(void* target, const void* source, size_t size, int asynchronous) {
    int to = kind_of(target), from = kind_of(source);
    const char* name = from == DEVICE ? (to == DEVICE ? "device_to_device" : "device_to_host")
                                      : (to == DEVICE ? "host_to_device" : "host_to_host");
    char bytes[40];
    snprintf(bytes, sizeof bytes, "%s_bytes", name);
    stub_add(name, 1);
    stub_add(bytes, (int64_t)size);
    int pageable = (from == DEVICE && !to) || (to == DEVICE && !from);
    if (!asynchronous || pageable) stub_add("waits", 1);
    memmove(target, source, size);
    return SUCCESS;
}

int cudaMemcpy(void* target, const void* source, size_t size, int kind) { return copy(target, source, size, 0); }
int cudaMemcpyAsync(void* target, const void* source, size_t size, int kind, void* stream) {
    return copy(target, source, size, 1);
}
int cudaMemset(void* target, int value, size_t size) { stub_add("waits", 1); memset(target, value, size); return SUCCESS; }
int cudaMemsetAsync(void* target, int value, size_t size, void* stream) { memset(target, value, size); return SUCCESS; }
int cudaMemcpyToSymbol(const void* symbol, const void* source, size_t size, size_t offset, int kind) { return SUCCESS; }

// ---- Streams, events and waiting for them.

static int handle(void** result, const char* name) {
    *result = calloc(1, 64);
    stub_add(name, 1);
    return SUCCESS;
}

int cudaStreamCreate(void** stream) { return handle(stream, "streams"); }
int cudaStreamCreateWithFlags(void** stream, unsigned flags) { return handle(stream, "streams"); }
int cudaStreamCreateWithPriority(void** stream, unsigned flags, int priority) { return handle(stream, "streams"); }
int cudaStreamDestroy(void* stream) { free(stream); return SUCCESS; }
int cudaStreamSynchronize(void* stream) { stub_add("waits", 1); return SUCCESS; }
int cudaStreamWaitEvent(void* stream, void* event, unsigned flags) { return SUCCESS; }
int cudaDeviceSynchronize(void) { stub_add("waits", 1); return SUCCESS; }
int cudaEventCreate(void** event) { return handle(event, "events"); }
int cudaEventCreateWithFlags(void** event, unsigned flags) { return handle(event, "events"); }
int cudaEventDestroy(void* event) { free(event); return SUCCESS; }
int cudaEventRecord(void* event, void* stream) { return SUCCESS; }
int cudaEventQuery(void* event) { return SUCCESS; }
int cudaEventSynchronize(void* event) { stub_add("waits", 1); return SUCCESS; }
int cudaEventElapsedTime(float* time, void* start, void* end) { *time = 1; return SUCCESS; }
int cudaLaunchHostFunc(void* stream, void (*function)(void*), void* data) { function(data); return SUCCESS; }

// ---- CUDA graphs: what is launched while one is recorded is counted, and not again when it is replayed.

static int recording;
int cudaStreamBeginCapture(void* stream, int mode) { recording = 1; return SUCCESS; }
int cudaStreamEndCapture(void* stream, void** graph) { recording = 0; return handle(graph, "graphs"); }
int cudaStreamIsCapturing(void* stream, int* status) { *status = recording; return SUCCESS; }
int cudaStreamGetCaptureInfo(void* stream, int* status) { *status = recording; return SUCCESS; }
int cudaThreadExchangeStreamCaptureMode(int* mode) { return SUCCESS; }
int cudaGraphInstantiate(void** executable, void* graph, unsigned long long flags) { return handle(executable, "instances"); }
int cudaGraphLaunch(void* executable, void* stream) { stub_add("graph_launches", 1); return SUCCESS; }
int cudaGraphDestroy(void* graph) { free(graph); return SUCCESS; }
int cudaGraphExecDestroy(void* executable) { free(executable); return SUCCESS; }

// ---- The device: one GPU of compute capability 8.6, or none with CUDA_STUB_GPUS=0.

static int gpus(void) { const char* text = getenv("CUDA_STUB_GPUS"); return text ? atoi(text) : 1; }
int cudaGetDeviceCount(int* count) { *count = gpus(); return gpus() ? SUCCESS : fail(NO_DEVICE); }
int cudaSetDevice(int device) { return gpus() ? SUCCESS : fail(NO_DEVICE); }
int cudaGetDevice(int* device) { *device = 0; return SUCCESS; }
int cudaDriverGetVersion(int* version) { *version = 13000; return SUCCESS; }
int cudaRuntimeGetVersion(int* version) { *version = 13000; return SUCCESS; }
int cudaDeviceCanAccessPeer(int* answer, int device, int peer) { *answer = 0; return SUCCESS; }
int cudaDeviceGetStreamPriorityRange(int* least, int* greatest) { *least = *greatest = 0; return SUCCESS; }

int cudaDeviceGetAttribute(int* value, int attribute, int device) {
    switch (attribute) {
        case 1: case 2: case 3: *value = 1024; break;                   // threads a block
        case 5: case 6: case 7: *value = 65535; break;                  // blocks a grid
        case 8: case 81: case 97: *value = 101376; break;               // shared memory
        case 10: *value = 32; break;                                    // threads a warp
        case 12: case 82: *value = 65536; break;                        // registers
        case 16: *value = 84; break;                                    // multiprocessors
        case 39: *value = 1536; break;                                  // threads a multiprocessor
        case 75: *value = 8; break;                                     // compute capability
        case 76: *value = 6; break;
        default: *value = 0;
    }
    return SUCCESS;
}

// cudaDeviceProp of CUDA 13.
struct properties {
    char name[256], uuid[16], luid[8];
    unsigned luid_mask;
    size_t memory, shared_memory;
    int registers, warp;
    size_t pitch;
    int threads, block[3], grid[3];
    size_t constant_memory;
    int major, minor;
    size_t texture_alignment, texture_pitch;
    int multiprocessors, unused[41];
    size_t surface_alignment;
    int unused2[11], threads_of_multiprocessor, unused3[3];
    size_t shared_memory_of_multiprocessor;
    int registers_of_multiprocessor, unused4[9];
    size_t shared_memory_opt_in;
    int unused5[82];
};

int cudaGetDeviceProperties(struct properties* properties, int device) {
    if (!gpus()) return fail(NO_DEVICE);
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "CUDA stub");
    properties->memory = limit();
    properties->shared_memory = 49152;
    properties->shared_memory_opt_in = properties->shared_memory_of_multiprocessor = 101376;
    properties->registers = properties->registers_of_multiprocessor = 65536;
    properties->warp = 32;
    properties->threads = 1024;
    properties->threads_of_multiprocessor = 1536;
    for (int i = 0; i < 3; i++) { properties->block[i] = 1024; properties->grid[i] = 65535; }
    properties->major = 8;
    properties->minor = 6;
    properties->multiprocessors = 84;
    return SUCCESS;
}
int cudaGetDeviceProperties_v2(struct properties* properties, int device) {
    return cudaGetDeviceProperties(properties, device);
}

// ---- Kernels, which are registered when a library is loaded, and do nothing when they are launched.

struct dim3 { unsigned x, y, z; };
static _Thread_local struct { struct dim3 grid, block; size_t shared; void* stream; } configuration;

void** __cudaRegisterFatBinary(void* binary) { static void* handle; return &handle; }
void __cudaRegisterFatBinaryEnd(void** handle) {}
void __cudaUnregisterFatBinary(void** handle) {}
void __cudaRegisterFunction(void** handle, const char* host, char* device, const char* name, int limit,
                            void* thread, void* block, void* block_dim, void* grid_dim, int* warp) {}
void __cudaRegisterVar(void** handle, char* host, char* device, const char* name, int external, size_t size,
                       int constant, int global) {}
char __cudaInitModule(void** handle) { return 1; }

unsigned __cudaPushCallConfiguration(struct dim3 grid, struct dim3 block, size_t shared, void* stream) {
    configuration.grid = grid; configuration.block = block;
    configuration.shared = shared; configuration.stream = stream;
    return 0;
}
int __cudaPopCallConfiguration(struct dim3* grid, struct dim3* block, size_t* shared, void** stream) {
    *grid = configuration.grid; *block = configuration.block;
    *shared = configuration.shared; *stream = configuration.stream;
    return SUCCESS;
}
int __cudaGetKernel(void** kernel, const void* host) { *kernel = (void*)host; return SUCCESS; }
int __cudaLaunchKernel(void* kernel, struct dim3 grid, struct dim3 block, void** arguments, size_t shared, void* stream) {
    stub_add("launches", 1);
    return SUCCESS;
}
int __cudaLaunchKernel_ptsz(void* kernel, struct dim3 grid, struct dim3 block, void** arguments, size_t shared, void* stream) {
    stub_add("launches", 1);
    return SUCCESS;
}
int cudaLaunchKernel(const void* host, struct dim3 grid, struct dim3 block, void** arguments, size_t shared, void* stream) {
    stub_add("launches", 1);
    return SUCCESS;
}
int cudaLaunchKernelExC(const void* launch, const void* host, void** arguments) { stub_add("launches", 1); return SUCCESS; }
int cudaLaunchCooperativeKernel(const void* host, struct dim3 grid, struct dim3 block, void** arguments, size_t shared,
                                void* stream) {
    stub_add("launches", 1);
    return SUCCESS;
}

struct function_attributes {
    size_t shared, constant, local;
    int threads, registers, ptx, binary, cache, dynamic_shared, carveout, rest[24];
};
int cudaFuncGetAttributes(struct function_attributes* attributes, const void* host) {
    memset(attributes, 0, 64);
    attributes->threads = 1024;
    attributes->registers = 32;
    attributes->ptx = attributes->binary = 86;
    return SUCCESS;
}
int cudaFuncSetAttribute(const void* host, int attribute, int value) { return SUCCESS; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* host, int block, size_t shared) {
    *blocks = 2;
    return SUCCESS;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* host, int block, size_t shared,
                                                           unsigned flags) {
    *blocks = 2;
    return SUCCESS;
}
