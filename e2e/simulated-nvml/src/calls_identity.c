/*
 * Calls that ask what one GPU is: names, numbers, place in the machine, modes.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "products.h"
#include "state.h"

#define TEXT_OF(name, text)                                                                                          \
  API nvmlReturn_t name(nvmlDevice_t device, char *out, unsigned int length) {                                       \
    DEVICE_CALL(name);                                                                                               \
    return copy_text(out, length, text);                                                                             \
  }

#define NUMBER_OF(name, type, number)                                                                                \
  API nvmlReturn_t name(nvmlDevice_t device, type *out) {                                                            \
    DEVICE_CALL(name);                                                                                               \
    REQUIRE(out);                                                                                                    \
    *out = (type)(number);                                                                                           \
    return NVML_SUCCESS;                                                                                             \
  }

enum { BRAND_NVIDIA = 14, ARCHITECTURE_HOPPER = 9, BUS_PCIE = 2, SPEED_32000_MBPS = 5 };

TEXT_OF(nvmlDeviceGetName, product_of(gpu)->name)
TEXT_OF(nvmlDeviceGetUUID, gpu->uuid)
TEXT_OF(nvmlDeviceGetSerial, gpu->serial)
TEXT_OF(nvmlDeviceGetVbiosVersion, gpu->vbios)
TEXT_OF(nvmlDeviceGetBoardPartNumber, product_of(gpu)->board_part)
TEXT_OF(nvmlDeviceGetInforomImageVersion, product_of(gpu)->inforom_image)
NUMBER_OF(nvmlDeviceGetBrand, unsigned int, BRAND_NVIDIA)
NUMBER_OF(nvmlDeviceGetArchitecture, unsigned int, ARCHITECTURE_HOPPER)
NUMBER_OF(nvmlDeviceGetBusType, unsigned int, BUS_PCIE)
NUMBER_OF(nvmlDeviceGetIndex, unsigned int, device_index(call.place))
NUMBER_OF(nvmlDeviceGetMinorNumber, unsigned int, call.place)
NUMBER_OF(nvmlDeviceGetModuleId, unsigned int, call.place % 8 + 1)
NUMBER_OF(nvmlDeviceGetBoardId, unsigned int, (call.place + 1) << 8)
NUMBER_OF(nvmlDeviceGetMultiGpuBoard, unsigned int, 0)
NUMBER_OF(nvmlDeviceGetInforomConfigurationChecksum, unsigned int, 0x5A17C0DE + call.place)
NUMBER_OF(nvmlDeviceGetNumGpuCores, unsigned int, CUDA_CORES)
NUMBER_OF(nvmlDeviceGetMemoryBusWidth, unsigned int, product_of(gpu)->bus_width)
NUMBER_OF(nvmlDeviceGetComputeMode, unsigned int, 0)
NUMBER_OF(nvmlDeviceGetPersistenceMode, unsigned int, gpu->persistence)
NUMBER_OF(nvmlDeviceGetVirtualizationMode, unsigned int, 0)
NUMBER_OF(nvmlDeviceGetDisplayMode, unsigned int, 0)
NUMBER_OF(nvmlDeviceGetDisplayActive, unsigned int, 0)
NUMBER_OF(nvmlDeviceGetIrqNum, unsigned int, 200 + call.place)
NUMBER_OF(nvmlDeviceGetPowerSource, unsigned int, 0)
NUMBER_OF(nvmlDeviceGetNumaNodeId, unsigned int, gpu->numa)
NUMBER_OF(nvmlDeviceGetMaxMigDeviceCount, unsigned int, 7)
NUMBER_OF(nvmlDeviceIsMigDeviceHandle, unsigned int, 0)
NUMBER_OF(nvmlDeviceGetMaxPcieLinkGeneration, unsigned int, 5)
NUMBER_OF(nvmlDeviceGetGpuMaxPcieLinkGeneration, unsigned int, 5)
NUMBER_OF(nvmlDeviceGetMaxPcieLinkWidth, unsigned int, 16)
NUMBER_OF(nvmlDeviceGetCurrPcieLinkGeneration, unsigned int, gpu->pcie_generation)
NUMBER_OF(nvmlDeviceGetCurrPcieLinkWidth, unsigned int, gpu->pcie_width)
NUMBER_OF(nvmlDeviceGetPcieLinkMaxSpeed, unsigned int, SPEED_32000_MBPS)
NUMBER_OF(nvmlDeviceGetPcieSpeed, unsigned int, 2000u << (gpu->pcie_generation - 1))
NUMBER_OF(nvmlDeviceGetPcieReplayCounter, unsigned int, gpu->pcie_replays)

API nvmlReturn_t nvmlDeviceGetInforomVersion(nvmlDevice_t device, unsigned int object, char *out, unsigned int length) {
  DEVICE_CALL(nvmlDeviceGetInforomVersion);
  static const char *const versions[] = {"2.1", "7.16"}; /* OEM, ECC */
  if (object > 1) return object < 4 ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT;
  return copy_text(out, length, versions[object]);
}

API nvmlReturn_t nvmlDeviceValidateInforom(nvmlDevice_t device) {
  DEVICE_CALL(nvmlDeviceValidateInforom);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t device, char *out) {
  DEVICE_CALL(nvmlDeviceGetGspFirmwareVersion);
  return copy_text(out, MAX_TEXT, call.inventory->driver);
}

API nvmlReturn_t nvmlDeviceGetGspFirmwareMode(nvmlDevice_t device, unsigned int *enabled, unsigned int *by_default) {
  DEVICE_CALL(nvmlDeviceGetGspFirmwareMode);
  REQUIRE(enabled && by_default);
  *enabled = *by_default = 1;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
  DEVICE_CALL(nvmlDeviceGetCudaComputeCapability);
  REQUIRE(major && minor);
  *major = 9;
  *minor = 0;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetAPIRestriction(nvmlDevice_t device, unsigned int api, unsigned int *restricted) {
  DEVICE_CALL(nvmlDeviceGetAPIRestriction);
  REQUIRE(restricted && api < 2);
  *restricted = 1;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
  DEVICE_CALL(nvmlDeviceGetMigMode);
  REQUIRE(current && pending);
  *current = *pending = (unsigned int)gpu->mig;
  return NVML_SUCCESS;
}

/* MIG can be seen to be on, but nothing was partitioned. */
API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *out) {
  DEVICE_CALL(nvmlDeviceGetMigDeviceHandleByIndex);
  (void)index;
  (void)out;
  return NVML_ERROR_NOT_FOUND;
}

API nvmlReturn_t nvmlDeviceOnSameBoard(nvmlDevice_t device, nvmlDevice_t other, int *same) {
  DEVICE_CALL(nvmlDeviceOnSameBoard);
  REQUIRE(same && device_place(other) != MAX_GPUS);
  *same = device == other;
  return NVML_SUCCESS;
}

static void fill_cpus(unsigned int words, unsigned long *set) {
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  memset(set, 0, words * sizeof *set);
  for (long cpu = 0; cpu < cpus && cpu < (long)words * 64; cpu++) set[cpu / 64] |= 1ul << cpu % 64;
}

API nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned int words, unsigned long *set) {
  DEVICE_CALL(nvmlDeviceGetCpuAffinity);
  REQUIRE(set && words > 0);
  fill_cpus(words, set);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t device, unsigned int words, unsigned long *set, unsigned int scope) {
  DEVICE_CALL(nvmlDeviceGetCpuAffinityWithinScope);
  REQUIRE(set && words > 0 && scope < 2);
  fill_cpus(words, set);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned int words, unsigned long *set, unsigned int scope) {
  DEVICE_CALL(nvmlDeviceGetMemoryAffinity);
  REQUIRE(set && words > 0 && scope < 2);
  memset(set, 0, words * sizeof *set);
  set[0] = 1ul << gpu->numa;
  return NVML_SUCCESS;
}

enum { TOPOLOGY_NODE = 40, TOPOLOGY_SYSTEM = 50, P2P_OK = 0, P2P_NOT_SUPPORTED = 5, P2P_CAPABILITIES = 6 };

static unsigned int ancestor(const struct gpu *a, const struct gpu *b) { return a->numa == b->numa ? TOPOLOGY_NODE : TOPOLOGY_SYSTEM; }

API nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t device, nvmlDevice_t other, unsigned int *level) {
  DEVICE_CALL(nvmlDeviceGetTopologyCommonAncestor);
  unsigned int place = device_place(other);
  REQUIRE(level && place != MAX_GPUS);
  *level = device == other ? 0 : ancestor(gpu, &call.inventory->gpus[place]);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t device, unsigned int level, unsigned int *count, nvmlDevice_t *out) {
  DEVICE_CALL(nvmlDeviceGetTopologyNearestGpus);
  REQUIRE(count);
  unsigned int room = *count;
  *count = 0;
  for (unsigned int i = 0; i < device_count(); i++) {
    nvmlDevice_t other = device_at(i);
    if (other == device || ancestor(gpu, &call.inventory->gpus[device_place(other)]) != level) continue;
    if (out && *count < room) out[*count] = other;
    ++*count;
  }
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t device, nvmlDevice_t other, unsigned int capability, unsigned int *status) {
  DEVICE_CALL(nvmlDeviceGetP2PStatus);
  unsigned int place = device_place(other), all = (1u << NVLINKS) - 1;
  REQUIRE(status && place != MAX_GPUS && capability <= P2P_CAPABILITIES);
  bool linked = gpu->nvlink_down != all && call.inventory->gpus[place].nvlink_down != all;
  *status = linked ? P2P_OK : P2P_NOT_SUPPORTED;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *out) {
  DEVICE_CALL(nvmlDeviceGetPciInfo);
  REQUIRE(out);
  *out = (nvmlPciInfo_t){.pciDeviceId = product_of(gpu)->pci_device, .pciSubSystemId = product_of(gpu)->pci_subsystem};
  sscanf(gpu->pci_bus_id, "%x:%x:%x", &out->domain, &out->bus, &out->device);
  strcpy(out->busId, gpu->pci_bus_id);
  snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "%04X:%02X:%02X.0", out->domain & 0xffff, out->bus & 0xff, out->device & 0x1f);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *out) { return nvmlDeviceGetPciInfo_v3(device, out); }

API nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_v1_t *out) {
  DEVICE_CALL(nvmlDeviceGetPciInfoExt);
  REQUIRE(out);
  if (out->version != VERSION_OF(*out, 1)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  *out = (nvmlPciInfoExt_v1_t){.version = out->version,
                               .pciDeviceId = product_of(gpu)->pci_device,
                               .pciSubSystemId = product_of(gpu)->pci_subsystem,
                               .baseClass = 3,
                               .subClass = 2};
  sscanf(gpu->pci_bus_id, "%x:%x:%x", &out->domain, &out->bus, &out->device);
  strcpy(out->busId, gpu->pci_bus_id);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned int counter, unsigned int *out) {
  DEVICE_CALL(nvmlDeviceGetPcieThroughput);
  REQUIRE(out && counter < 2);
  *out = (unsigned int)(counter == 0 ? gpu->pcie_tx_kib : gpu->pcie_rx_kib);
  return NVML_SUCCESS;
}
