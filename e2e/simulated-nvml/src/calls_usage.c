/*
 * Calls that ask who uses one GPU and how much: memory, utilisation, processes, samples.
 */
#include "products.h"
#include "state.h"

static const unsigned long long MIB = 1024 * 1024;

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *out) {
  DEVICE_CALL(nvmlDeviceGetMemoryInfo);
  REQUIRE(out);
  if (out->version != VERSION_OF(*out, 2)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  unsigned long long total = product_of(gpu)->memory_mib, reserved = product_of(gpu)->reserved_mib, used = gpu->memory_used_mib;
  if (used > total - reserved) used = total - reserved;
  *out = (nvmlMemory_v2_t){.version = out->version,
                           .total = total * MIB,
                           .reserved = reserved * MIB,
                           .used = used * MIB,
                           .free = (total - reserved - used) * MIB};
  return NVML_SUCCESS;
}

/* The first version counts what is reserved as used. */
API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *out) {
  nvmlMemory_v2_t memory = {.version = VERSION_OF(nvmlMemory_v2_t, 2)};
  nvmlReturn_t result = nvmlDeviceGetMemoryInfo_v2(device, &memory);
  if (result != NVML_SUCCESS) return result;
  REQUIRE(out);
  *out = (nvmlMemory_t){.total = memory.total, .free = memory.free, .used = memory.used + memory.reserved};
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *out) {
  DEVICE_CALL(nvmlDeviceGetBAR1MemoryInfo);
  REQUIRE(out);
  unsigned long long total = product_of(gpu)->bar1_mib, used = 1 + gpu->processes.count * 2;
  *out = (nvmlBAR1Memory_t){.bar1Total = total * MIB, .bar1Free = (total - used) * MIB, .bar1Used = used * MIB};
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetConfComputeMemSizeInfo(nvmlDevice_t device, nvmlConfComputeMemSizeInfo_t *out) {
  DEVICE_CALL(nvmlDeviceGetConfComputeMemSizeInfo);
  REQUIRE(out);
  unsigned long long kib = product_of(gpu)->memory_mib * 1024ull;
  bool protected = call.inventory->confidential_compute;
  *out = (nvmlConfComputeMemSizeInfo_t){.protectedMemSizeKib = protected ? kib : 0, .unprotectedMemSizeKib = protected ? 0 : kib};
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *out) {
  DEVICE_CALL(nvmlDeviceGetUtilizationRates);
  REQUIRE(out);
  if (gpu->mig) return NVML_ERROR_NOT_SUPPORTED;
  *out = (nvmlUtilization_t){.gpu = (unsigned int)gpu->utilization, .memory = (unsigned int)gpu->memory_utilization};
  return NVML_SUCCESS;
}

#define IDLE_ENGINE(name)                                                                                            \
  API nvmlReturn_t name(nvmlDevice_t device, unsigned int *utilization, unsigned int *period_us) {                   \
    DEVICE_CALL(name);                                                                                               \
    REQUIRE(utilization && period_us);                                                                               \
    *utilization = 0;                                                                                                \
    *period_us = 167000;                                                                                             \
    return NVML_SUCCESS;                                                                                             \
  }
IDLE_ENGINE(nvmlDeviceGetEncoderUtilization)
IDLE_ENGINE(nvmlDeviceGetDecoderUtilization)
IDLE_ENGINE(nvmlDeviceGetJpgUtilization)
IDLE_ENGINE(nvmlDeviceGetOfaUtilization)

enum { SAMPLE_POWER, SAMPLE_GPU, SAMPLE_MEMORY, SAMPLE_ENCODER, SAMPLE_DECODER, SAMPLE_CLOCK, SAMPLE_MEMORY_CLOCK, SAMPLES };

/* One sample, taken now. */
API nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, unsigned int type, unsigned long long last_seen, unsigned int *value_type,
                                      unsigned int *count, nvmlSample_t *samples) {
  DEVICE_CALL(nvmlDeviceGetSamples);
  REQUIRE(value_type && count);
  (void)last_seen;
  if (type >= SAMPLES) return NVML_ERROR_NOT_SUPPORTED;
  const unsigned long long values[SAMPLES] = {[SAMPLE_POWER] = gpu->power_watts * 1000,
                                              [SAMPLE_GPU] = gpu->utilization,
                                              [SAMPLE_MEMORY] = gpu->memory_utilization,
                                              [SAMPLE_CLOCK] = gpu->sm_clock_mhz,
                                              [SAMPLE_MEMORY_CLOCK] = gpu->memory_clock_mhz};
  *value_type = NVML_VALUE_TYPE_UNSIGNED_INT;
  if (samples && *count == 0) return NVML_ERROR_INSUFFICIENT_SIZE;
  *count = 1;
  if (samples)
    samples[0] = (nvmlSample_t){.timeStamp = realtime_microseconds(), .sampleValue.uiVal = (unsigned int)values[type]};
  return NVML_SUCCESS;
}

/* *count is the room on entry and the number of entries on return; too little room is said with the room that is needed. */
static nvmlReturn_t room_for(unsigned int needed, unsigned int *count, const void *out) {
  if (!count || (*count > 0 && !out)) return NVML_ERROR_INVALID_ARGUMENT;
  bool enough = *count >= needed;
  *count = needed;
  return enough ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *out) {
  DEVICE_CALL(nvmlDeviceGetComputeRunningProcesses);
  nvmlReturn_t result = room_for(gpu->processes.count, count, out);
  for (unsigned int i = 0; result == NVML_SUCCESS && i < *count; i++)
    out[i] = (nvmlProcessInfo_t){.pid = gpu->processes.list[i].pid,
                                 .usedGpuMemory = gpu->processes.list[i].mib * MIB,
                                 .gpuInstanceId = NO_INSTANCE,
                                 .computeInstanceId = NO_INSTANCE};
  return result;
}

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *out) {
  return nvmlDeviceGetComputeRunningProcesses_v3(device, count, out);
}

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v1_t *out) {
  DEVICE_CALL(nvmlDeviceGetComputeRunningProcesses);
  nvmlReturn_t result = room_for(gpu->processes.count, count, out);
  for (unsigned int i = 0; result == NVML_SUCCESS && i < *count; i++)
    out[i] = (nvmlProcessInfo_v1_t){.pid = gpu->processes.list[i].pid, .usedGpuMemory = gpu->processes.list[i].mib * MIB};
  return result;
}

#define NO_PROCESSES(name, function)                                                                                 \
  API nvmlReturn_t name(nvmlDevice_t device, unsigned int *count, void *out) {                                       \
    DEVICE_CALL(function);                                                                                           \
    return room_for(0, count, out);                                                                                  \
  }
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlDeviceGetGraphicsRunningProcesses)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlDeviceGetGraphicsRunningProcesses)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, nvmlDeviceGetGraphicsRunningProcesses)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlDeviceGetMPSComputeRunningProcesses)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlDeviceGetMPSComputeRunningProcesses)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, nvmlDeviceGetMPSComputeRunningProcesses)

/* The GPU's utilisation, shared evenly. */
API nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *out, unsigned int *count,
                                                 unsigned long long last_seen) {
  DEVICE_CALL(nvmlDeviceGetProcessUtilization);
  (void)last_seen;
  nvmlReturn_t result = room_for(gpu->processes.count, count, out);
  for (unsigned int i = 0; result == NVML_SUCCESS && i < *count; i++)
    out[i] = (nvmlProcessUtilizationSample_t){.pid = gpu->processes.list[i].pid,
                                              .timeStamp = realtime_microseconds(),
                                              .smUtil = (unsigned int)gpu->utilization / *count,
                                              .memUtil = (unsigned int)gpu->memory_utilization / *count};
  return result;
}
