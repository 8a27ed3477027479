/*
 * Calls that ask about the machine: start and end, versions, devices by number and name, confidential computing.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "products.h"
#include "state.h"

API nvmlReturn_t nvmlInit_v2(void) { return state_init(); }
API nvmlReturn_t nvmlInit(void) { return state_init(); }
API nvmlReturn_t nvmlInitWithFlags(unsigned int flags) { return flags & ~3u ? NVML_ERROR_INVALID_ARGUMENT : state_init(); }
API nvmlReturn_t nvmlShutdown(void) { return state_shutdown(); }

API const char *nvmlErrorString(nvmlReturn_t result) {
  if (result == NVML_SUCCESS) return "Success";
  switch (result) {
#define KEY(scope, member, text, kind, low, high)
#define WORD(set, text, value)
#define PRODUCT(text, mib)
#define FUNCTION(name)
#define RETURN(name, value) case value: return #name;
#include "../format.def"
  }
  return "UNKNOWN";
}

API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
  SYSTEM_CALL(nvmlSystemGetDriverVersion);
  return copy_text(version, length, call.inventory->driver);
}

API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
  SYSTEM_CALL(nvmlSystemGetNVMLVersion);
  char text[128];
  snprintf(text, sizeof text, "%llu.%s", call.inventory->cuda / 1000, call.inventory->driver);
  return copy_text(version, length, text);
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
  SYSTEM_CALL(nvmlSystemGetCudaDriverVersion);
  REQUIRE(version);
  *version = (int)call.inventory->cuda;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

API nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length) {
  SYSTEM_CALL(nvmlSystemGetProcessName);
  REQUIRE(name && length > 0);
  char path[32], line[256];
  snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
  FILE *file = fopen(path, "re");
  if (!file) return NVML_ERROR_NOT_FOUND;
  size_t got = fread(line, 1, sizeof line - 1, file);
  fclose(file);
  line[got] = '\0';
  snprintf(name, length, "%s", line);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlSystemGetHicVersion(unsigned int *count, void *entries) {
  SYSTEM_CALL(nvmlSystemGetHicVersion);
  (void)entries;
  REQUIRE(count);
  *count = 0;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlUnitGetCount(unsigned int *count) {
  SYSTEM_CALL(nvmlUnitGetCount);
  REQUIRE(count);
  *count = 0;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlGetExcludedDeviceCount(unsigned int *count) {
  SYSTEM_CALL(nvmlGetExcludedDeviceCount);
  REQUIRE(count);
  *count = 0;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlSystemGetTopologyGpuSet(unsigned int cpu, unsigned int *count, nvmlDevice_t *out) {
  SYSTEM_CALL(nvmlSystemGetTopologyGpuSet);
  (void)cpu; /* the simulated GPUs are near every CPU */
  REQUIRE(count);
  unsigned int room = *count;
  *count = device_count();
  for (unsigned int i = 0; out && i < *count && i < room; i++) out[i] = device_at(i);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
  SYSTEM_CALL(nvmlDeviceGetCount);
  REQUIRE(count);
  *count = device_count();
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetCount(unsigned int *count) { return nvmlDeviceGetCount_v2(count); }

/* The handle of a device, once a device call on it succeeds: a GPU that fell off the bus has none. */
static nvmlReturn_t hand_out(enum function function, nvmlDevice_t device, nvmlDevice_t *out) {
  struct call call = {0};
  nvmlReturn_t result = call_begin_device(&call, function, device);
  call_end(&call);
  if (result == NVML_SUCCESS) *out = device;
  return result;
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *out) {
  SYSTEM_CALL(nvmlDeviceGetHandleByIndex);
  nvmlDevice_t device = device_at(index);
  REQUIRE(out && device);
  return hand_out(FN_nvmlDeviceGetHandleByIndex, device, out);
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *out) {
  return nvmlDeviceGetHandleByIndex_v2(index, out);
}

static const struct gpu *gpu_at(const struct call *call, unsigned int index) {
  return &call->inventory->gpus[device_place(device_at(index))];
}

API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out) {
  SYSTEM_CALL(nvmlDeviceGetHandleByUUID);
  REQUIRE(uuid && out);
  for (unsigned int i = 0; i < device_count(); i++)
    if (strcmp(gpu_at(&call, i)->uuid, uuid) == 0) return hand_out(FN_nvmlDeviceGetHandleByUUID, device_at(i), out);
  return NVML_ERROR_NOT_FOUND;
}

API nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const nvmlUUID_v1_t *uuid, nvmlDevice_t *out) {
  REQUIRE(uuid && out);
  if (uuid->version != VERSION_OF(nvmlUUID_v1_t, 1)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  char text[64];
  if (uuid->type == 1) {
    snprintf(text, sizeof text, "%.40s", uuid->value.str);
  } else {
    REQUIRE(uuid->type == 2);
    int length = snprintf(text, sizeof text, "GPU-");
    for (int i = 0; i < 16; i++)
      length += snprintf(text + length, sizeof text - (size_t)length, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x",
                         uuid->value.bytes[i]);
  }
  return nvmlDeviceGetHandleByUUID(text, out);
}

API nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *out) {
  SYSTEM_CALL(nvmlDeviceGetHandleBySerial);
  REQUIRE(serial && out);
  for (unsigned int i = 0; i < device_count(); i++)
    if (strcmp(gpu_at(&call, i)->serial, serial) == 0) return hand_out(FN_nvmlDeviceGetHandleBySerial, device_at(i), out);
  return NVML_ERROR_NOT_FOUND;
}

/* Accepts "0000:19:00.0" as well as "00000000:19:00.0". */
API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *id, nvmlDevice_t *out) {
  SYSTEM_CALL(nvmlDeviceGetHandleByPciBusId);
  REQUIRE(id && out);
  unsigned int domain, bus, device, wanted_domain, wanted_bus, wanted_device;
  REQUIRE(sscanf(id, "%x:%x:%x", &wanted_domain, &wanted_bus, &wanted_device) == 3);
  for (unsigned int i = 0; i < device_count(); i++)
    if (sscanf(gpu_at(&call, i)->pci_bus_id, "%x:%x:%x", &domain, &bus, &device) == 3 && domain == wanted_domain &&
        bus == wanted_bus && device == wanted_device)
      return hand_out(FN_nvmlDeviceGetHandleByPciBusId, device_at(i), out);
  return NVML_ERROR_NOT_FOUND;
}

API nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *id, nvmlDevice_t *out) {
  return nvmlDeviceGetHandleByPciBusId_v2(id, out);
}

enum { CPU_AMD_SEV_SNP = 3, GPUS_CAPABLE = 1, ENVIRONMENT_UNAVAILABLE = 0, ENVIRONMENT_PROD = 2 };

API nvmlReturn_t nvmlSystemGetConfComputeCapabilities(nvmlConfComputeSystemCaps_t *out) {
  SYSTEM_CALL(nvmlSystemGetConfComputeCapabilities);
  REQUIRE(out);
  bool on = call.inventory->confidential_compute;
  *out = (nvmlConfComputeSystemCaps_t){.cpuCaps = on ? CPU_AMD_SEV_SNP : 0, .gpusCaps = GPUS_CAPABLE};
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlSystemGetConfComputeState(nvmlConfComputeSystemState_t *out) {
  SYSTEM_CALL(nvmlSystemGetConfComputeState);
  REQUIRE(out);
  bool on = call.inventory->confidential_compute;
  *out = (nvmlConfComputeSystemState_t){.environment = on ? ENVIRONMENT_PROD : ENVIRONMENT_UNAVAILABLE, .ccFeature = on};
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlSystemGetConfComputeSettings(nvmlSystemConfComputeSettings_v1_t *out) {
  SYSTEM_CALL(nvmlSystemGetConfComputeSettings);
  REQUIRE(out);
  if (out->version != VERSION_OF(*out, 1)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  bool on = call.inventory->confidential_compute;
  *out = (nvmlSystemConfComputeSettings_v1_t){
      .version = out->version, .environment = on ? ENVIRONMENT_PROD : ENVIRONMENT_UNAVAILABLE, .ccFeature = on};
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlSystemGetConfComputeGpusReadyState(unsigned int *ready) {
  SYSTEM_CALL(nvmlSystemGetConfComputeGpusReadyState);
  REQUIRE(ready);
  *ready = call.inventory->confidential_compute ? 1 : 0;
  return NVML_SUCCESS;
}
