/*
 * Calls that exist so that a caller gets NVML's own answer and not a missing symbol: what a Hopper board does not have, and
 * every change of a setting (the file alone changes a simulated GPU).
 */
#include "state.h"

#define REFUSED(name, answer)                                                                                        \
  API nvmlReturn_t name(nvmlDevice_t device) {                                                                       \
    struct call call = {0};                                                                                          \
    nvmlReturn_t result = call_begin_device(&call, FUNCTIONS, device);                                               \
    call_end(&call);                                                                                                 \
    return result == NVML_SUCCESS ? answer : result;                                                                 \
  }
#define ABSENT(name) REFUSED(name, NVML_ERROR_NOT_SUPPORTED)
#define FORBIDDEN(name) REFUSED(name, NVML_ERROR_NO_PERMISSION)

ABSENT(nvmlDeviceGetAttributes_v2)
ABSENT(nvmlDeviceGetAutoBoostedClocksEnabled)
ABSENT(nvmlDeviceGetBridgeChipInfo)
ABSENT(nvmlDeviceGetDriverModel)
ABSENT(nvmlDeviceGetFanControlPolicy_v2)
ABSENT(nvmlDeviceGetFanSpeed)
ABSENT(nvmlDeviceGetFanSpeed_v2)
ABSENT(nvmlDeviceGetFanSpeedRPM)
ABSENT(nvmlDeviceGetMinMaxFanSpeed)
ABSENT(nvmlDeviceGetGpuOperationMode)
ABSENT(nvmlDeviceGetRetiredPages)
ABSENT(nvmlDeviceGetRetiredPages_v2)
ABSENT(nvmlDeviceGetRetiredPagesPendingStatus)
ABSENT(nvmlDeviceGetNvLinkUtilizationControl)
ABSENT(nvmlDeviceGetNvLinkUtilizationCounter)
ABSENT(nvmlDeviceGetEncoderCapacity)
ABSENT(nvmlDeviceGetEncoderStats)
ABSENT(nvmlDeviceGetEncoderSessions)
ABSENT(nvmlDeviceGetFBCStats)
ABSENT(nvmlDeviceGetFBCSessions)
ABSENT(nvmlDeviceGetAccountingMode)
ABSENT(nvmlDeviceGetGpuInstanceId)
ABSENT(nvmlDeviceGetComputeInstanceId)
ABSENT(nvmlDeviceGetDeviceHandleFromMigDeviceHandle)

FORBIDDEN(nvmlDeviceClearEccErrorCounts)
FORBIDDEN(nvmlDeviceResetApplicationsClocks)
FORBIDDEN(nvmlDeviceResetGpuLockedClocks)
FORBIDDEN(nvmlDeviceResetMemoryLockedClocks)
FORBIDDEN(nvmlDeviceResetNvLinkErrorCounters)
FORBIDDEN(nvmlDeviceSetApplicationsClocks)
FORBIDDEN(nvmlDeviceSetComputeMode)
FORBIDDEN(nvmlDeviceSetEccMode)
FORBIDDEN(nvmlDeviceSetGpuLockedClocks)
FORBIDDEN(nvmlDeviceSetMemoryLockedClocks)
FORBIDDEN(nvmlDeviceSetMigMode)
FORBIDDEN(nvmlDeviceSetPersistenceMode)
FORBIDDEN(nvmlDeviceSetPowerManagementLimit)

API nvmlReturn_t nvmlDeviceGetNumFans(nvmlDevice_t device, unsigned int *count) {
  struct call call = {0};
  nvmlReturn_t result = call_begin_device(&call, FUNCTIONS, device);
  call_end(&call);
  if (result != NVML_SUCCESS) return result;
  REQUIRE(count);
  *count = 0; /* SXM boards are cooled by the chassis */
  return NVML_SUCCESS;
}

enum { GPM_SUPPORT_VERSION = 1 };

API nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *out) {
  DEVICE_CALL(nvmlGpmQueryDeviceSupport);
  REQUIRE(out);
  if (out->version != GPM_SUPPORT_VERSION) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  out->isSupportedDevice = 0;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlGpmSampleAlloc(void *sample) {
  (void)sample;
  return NVML_ERROR_NOT_SUPPORTED;
}

API nvmlReturn_t nvmlGpmSampleFree(void *sample) {
  (void)sample;
  return NVML_ERROR_NOT_SUPPORTED;
}

API nvmlReturn_t nvmlGpmMetricsGet(void *metrics) {
  (void)metrics;
  return NVML_ERROR_NOT_SUPPORTED;
}
