/* A libamdhip64.so that stands in for AMD's in tests: what hktune calls of it, with the C signatures of HIP 7.0's
   hip_runtime_api.h. Every call goes to the one handler that a test registers, by name and with its arguments as 64-bit
   words. Without a handler there is no device. */
typedef int hipError_t;
typedef struct ihipStream_t* hipStream_t;
typedef struct ihipEvent_t* hipEvent_t;
typedef struct ihipModule_t* hipModule_t;
typedef struct ihipModuleSymbol_t* hipFunction_t;
typedef struct ihipGraph* hipGraph_t;
typedef struct hipGraphExec* hipGraphExec_t;
typedef struct hipGraphNode* hipGraphNode_t;
typedef struct hipDeviceProp_tR0600 hipDeviceProp_tR0600;
typedef void* hipDeviceptr_t;
typedef int hipDevice_t;
typedef enum { hipDeviceAttributeAny } hipDeviceAttribute_t;
typedef enum { hipStreamCaptureModeAny } hipStreamCaptureMode;
typedef unsigned long size_t;

enum { hipSuccess = 0, hipErrorNoDevice = 100 };

typedef int (*handler_t)(const char* name, const unsigned long long* words);
static handler_t handler;
void stand_in_register(handler_t one) { handler = one; }

#define W(x) (unsigned long long)(x)
#define FUNCTION(name, parameters, ...)                          \
    hipError_t name parameters {                                 \
        const unsigned long long words[] = {0, __VA_ARGS__};     \
        return handler ? handler(#name, words + 1) : hipErrorNoDevice; \
    }

FUNCTION(hipGetDeviceCount, (int* count), W(count))
FUNCTION(hipGetDevice, (int* device), W(device))
FUNCTION(hipSetDevice, (int device), W(device))
FUNCTION(hipDeviceGetName, (char* name, int length, hipDevice_t device), W(name), W(length), W(device))
FUNCTION(hipDeviceGetPCIBusId, (char* id, int length, int device), W(id), W(length), W(device))
FUNCTION(hipDeviceGetAttribute, (int* value, hipDeviceAttribute_t attribute, int device), W(value), W(attribute), W(device))
FUNCTION(hipGetDevicePropertiesR0600, (hipDeviceProp_tR0600* properties, int device), W(properties), W(device))
FUNCTION(hipRuntimeGetVersion, (int* version), W(version))
FUNCTION(hipDeviceSynchronize, (void))
FUNCTION(hipGetLastError, (void))
FUNCTION(hipMalloc, (void** address, size_t size), W(address), W(size))
FUNCTION(hipFree, (void* address), W(address))
FUNCTION(hipMemcpyHtoD, (hipDeviceptr_t to, const void* from, size_t size), W(to), W(from), W(size))
FUNCTION(hipMemcpyDtoH, (void* to, hipDeviceptr_t from, size_t size), W(to), W(from), W(size))
FUNCTION(hipModuleLoadData, (hipModule_t* module, const void* image), W(module), W(image))
FUNCTION(hipModuleUnload, (hipModule_t module), W(module))
FUNCTION(hipModuleGetFunction, (hipFunction_t* function, hipModule_t module, const char* name), W(function), W(module), W(name))
FUNCTION(hipModuleLaunchKernel,
         (hipFunction_t function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
          unsigned block_z, unsigned lds_bytes, hipStream_t stream, void** parameters, void** extra),
         W(function), W(grid_x), W(grid_y), W(grid_z), W(block_x), W(block_y), W(block_z), W(lds_bytes), W(stream),
         W(parameters), W(extra))
FUNCTION(hipStreamCreateWithFlags, (hipStream_t* stream, unsigned flags), W(stream), W(flags))
FUNCTION(hipStreamDestroy, (hipStream_t stream), W(stream))
FUNCTION(hipStreamBeginCapture, (hipStream_t stream, hipStreamCaptureMode mode), W(stream), W(mode))
FUNCTION(hipStreamEndCapture, (hipStream_t stream, hipGraph_t* graph), W(stream), W(graph))
FUNCTION(hipGraphInstantiate,
         (hipGraphExec_t* executable, hipGraph_t graph, hipGraphNode_t* node, char* log, size_t size),
         W(executable), W(graph), W(node), W(log), W(size))
FUNCTION(hipGraphLaunch, (hipGraphExec_t executable, hipStream_t stream), W(executable), W(stream))
FUNCTION(hipGraphDestroy, (hipGraph_t graph), W(graph))
FUNCTION(hipGraphExecDestroy, (hipGraphExec_t executable), W(executable))
FUNCTION(hipEventCreateWithFlags, (hipEvent_t* event, unsigned flags), W(event), W(flags))
FUNCTION(hipEventRecord, (hipEvent_t event, hipStream_t stream), W(event), W(stream))
FUNCTION(hipEventSynchronize, (hipEvent_t event), W(event))
FUNCTION(hipEventElapsedTime, (float* milliseconds, hipEvent_t start, hipEvent_t stop), W(milliseconds), W(start), W(stop))
FUNCTION(hipEventDestroy, (hipEvent_t event), W(event))

/* The names that AMD's own library gave to these numbers (ROCm 5.2.3, asked without a GPU). */
const char* hipGetErrorName(hipError_t error) {
    switch (error) {
        case 0: return "hipSuccess";
        case 1: return "hipErrorInvalidValue";
        case 2: return "hipErrorOutOfMemory";
        case 9: return "hipErrorInvalidConfiguration";
        case 100: return "hipErrorNoDevice";
        case 101: return "hipErrorInvalidDevice";
        case 200: return "hipErrorInvalidImage";
        case 209: return "hipErrorNoBinaryForGpu";
        case 214: return "hipErrorECCNotCorrectable";
        case 400: return "hipErrorInvalidHandle";
        case 500: return "hipErrorNotFound";
        case 700: return "hipErrorIllegalAddress";
        case 702: return "hipErrorLaunchTimeOut";
        case 710: return "hipErrorAssert";
        case 719: return "hipErrorLaunchFailure";
        case 901: return "hipErrorStreamCaptureInvalidated";
        default: return "hipErrorUnknown";
    }
}
