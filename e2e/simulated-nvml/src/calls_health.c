/*
 * Calls that ask what has gone wrong in one GPU: ECC, row remapping, NVLink, fabric.
 */
#include <stdio.h>
#include <string.h>

#include "ecc.h"
#include "products.h"
#include "state.h"

unsigned long long ecc_count(const struct gpu *gpu, enum ecc_lifetime lifetime, enum ecc_type type, enum ecc_memory memory) {
  const unsigned long long counts[2][2][2] = {
      {{gpu->ecc_volatile_dram_corrected, gpu->ecc_volatile_sram_corrected},
       {gpu->ecc_volatile_dram_uncorrected, gpu->ecc_volatile_sram_uncorrected}},
      {{gpu->ecc_aggregate_dram_corrected, gpu->ecc_aggregate_sram_corrected},
       {gpu->ecc_aggregate_dram_uncorrected, gpu->ecc_aggregate_sram_uncorrected}}};
  return memory == ECC_BOTH ? counts[lifetime][type][ECC_DRAM] + counts[lifetime][type][ECC_SRAM] : counts[lifetime][type][memory];
}

API nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
  DEVICE_CALL(nvmlDeviceGetEccMode);
  REQUIRE(current && pending);
  *current = *pending = (unsigned int)gpu->ecc;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetDefaultEccMode(nvmlDevice_t device, unsigned int *mode) {
  DEVICE_CALL(nvmlDeviceGetDefaultEccMode);
  REQUIRE(mode);
  *mode = 1;
  return NVML_SUCCESS;
}

#define REQUIRE_ECC()                                                                                                \
  do {                                                                                                               \
    if (!gpu->ecc) return NVML_ERROR_NOT_SUPPORTED;                                                                  \
  } while (0)

API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int type, unsigned int lifetime, unsigned long long *out) {
  DEVICE_CALL(nvmlDeviceGetTotalEccErrors);
  REQUIRE(out && type < 2 && lifetime < 2);
  REQUIRE_ECC();
  *out = ecc_count(gpu, lifetime, type, ECC_BOTH);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetDetailedEccErrors(nvmlDevice_t device, unsigned int type, unsigned int lifetime, nvmlEccErrorCounts_t *out) {
  DEVICE_CALL(nvmlDeviceGetDetailedEccErrors);
  REQUIRE(out && type < 2 && lifetime < 2);
  REQUIRE_ECC();
  *out = (nvmlEccErrorCounts_t){.l2Cache = ecc_count(gpu, lifetime, type, ECC_SRAM),
                                .deviceMemory = ecc_count(gpu, lifetime, type, ECC_DRAM)};
  return NVML_SUCCESS;
}

enum { LOCATION_L2 = 1, LOCATION_DRAM = 2, LOCATION_SRAM = 7, LOCATIONS = 8 };

API nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, unsigned int type, unsigned int lifetime, unsigned int location,
                                                 unsigned long long *out) {
  DEVICE_CALL(nvmlDeviceGetMemoryErrorCounter);
  REQUIRE(out && type < 2 && lifetime < 2 && location < LOCATIONS);
  REQUIRE_ECC();
  if (location != LOCATION_DRAM && location != LOCATION_SRAM && location != LOCATION_L2) return NVML_ERROR_NOT_SUPPORTED;
  *out = ecc_count(gpu, lifetime, type, location == LOCATION_DRAM ? ECC_DRAM : ECC_SRAM);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, nvmlEccSramErrorStatus_v1_t *out) {
  DEVICE_CALL(nvmlDeviceGetSramEccErrorStatus);
  REQUIRE(out);
  if (out->version != VERSION_OF(*out, 1)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  REQUIRE_ECC();
  unsigned long long uncorrected = ecc_count(gpu, ECC_AGGREGATE, ECC_UNCORRECTED, ECC_SRAM);
  *out = (nvmlEccSramErrorStatus_v1_t){.version = out->version,
                                       .aggregateUncSecDed = uncorrected,
                                       .aggregateCor = ecc_count(gpu, ECC_AGGREGATE, ECC_CORRECTED, ECC_SRAM),
                                       .volatileUncSecDed = ecc_count(gpu, ECC_VOLATILE, ECC_UNCORRECTED, ECC_SRAM),
                                       .volatileCor = ecc_count(gpu, ECC_VOLATILE, ECC_CORRECTED, ECC_SRAM),
                                       .aggregateUncBucketL2 = uncorrected};
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *correctable, unsigned int *uncorrectable,
                                           unsigned int *pending, unsigned int *failure) {
  DEVICE_CALL(nvmlDeviceGetRemappedRows);
  REQUIRE(correctable && uncorrectable && pending && failure);
  *correctable = (unsigned int)gpu->remapped_correctable;
  *uncorrectable = (unsigned int)gpu->remapped_uncorrectable;
  *pending = (unsigned int)gpu->remap_pending;
  *failure = (unsigned int)gpu->remap_failure;
  return NVML_SUCCESS;
}

/* Each remapped row took one of the spare rows of another bank; a failure means a bank without any. */
API nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, nvmlRowRemapperHistogramValues_t *out) {
  DEVICE_CALL(nvmlDeviceGetRowRemapperHistogram);
  REQUIRE(out);
  unsigned int touched = (unsigned int)(gpu->remapped_correctable + gpu->remapped_uncorrectable), none = gpu->remap_failure ? 1 : 0;
  *out = (nvmlRowRemapperHistogramValues_t){.max = REMAP_BANKS - touched - none, .high = touched, .none = none};
  return NVML_SUCCESS;
}

enum { NVLINK_VERSION_4 = 6, REMOTE_SWITCH = 2, CAPABILITIES = 6, COUNTERS = 5 };

API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, unsigned int *active) {
  DEVICE_CALL(nvmlDeviceGetNvLinkState);
  REQUIRE(active && link < NVLINKS);
  *active = !(gpu->nvlink_down >> link & 1);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int link, unsigned int *version) {
  DEVICE_CALL(nvmlDeviceGetNvLinkVersion);
  REQUIRE(version && link < NVLINKS);
  *version = NVLINK_VERSION_4;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned int link, unsigned int capability, unsigned int *has) {
  DEVICE_CALL(nvmlDeviceGetNvLinkCapability);
  REQUIRE(has && link < NVLINKS && capability < CAPABILITIES);
  *has = 1;
  return NVML_SUCCESS;
}

/* The file counts per GPU; all of it is shown on link 0. */
API nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned int link, unsigned int counter, unsigned long long *out) {
  DEVICE_CALL(nvmlDeviceGetNvLinkErrorCounter);
  REQUIRE(out && link < NVLINKS && counter < COUNTERS);
  const unsigned long long counts[COUNTERS] = {gpu->nvlink_replays, gpu->nvlink_recoveries, gpu->nvlink_crc_errors};
  *out = link == 0 ? counts[counter] : 0;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link, unsigned int *type) {
  DEVICE_CALL(nvmlDeviceGetNvLinkRemoteDeviceType);
  REQUIRE(type && link < NVLINKS);
  *type = REMOTE_SWITCH;
  return NVML_SUCCESS;
}

/* Links 0-4, 5-9, 10-13, 14-17 end at one of the four switches of the board. */
API nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link, nvmlPciInfo_t *out) {
  DEVICE_CALL(nvmlDeviceGetNvLinkRemotePciInfo);
  REQUIRE(out && link < NVLINKS);
  unsigned int domain = call.place / 8, board_switch = link < 5 ? 0 : link < 10 ? 1 : link < 14 ? 2 : 3;
  *out = (nvmlPciInfo_t){.domain = domain, .bus = 7 + board_switch, .pciDeviceId = 0x22A310DE};
  snprintf(out->busId, sizeof out->busId, "%08X:%02X:00.0", domain, out->bus & 0xff);
  snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "%04X:%02X:00.0", domain & 0xffff, out->bus & 0xff);
  return NVML_SUCCESS;
}

enum { FABRIC_COMPLETED = 3, BANDWIDTH_IS_FULL = 2, HEALTHY = 1 };

API nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *out) {
  DEVICE_CALL(nvmlDeviceGetGpuFabricInfo);
  REQUIRE(out);
  *out = (nvmlGpuFabricInfo_t){.state = (unsigned char)gpu->fabric};
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfo_v3_t *out) {
  DEVICE_CALL(nvmlDeviceGetGpuFabricInfoV);
  REQUIRE(out);
  bool third = out->version == VERSION_OF(nvmlGpuFabricInfo_v3_t, 3);
  if (!third && out->version != VERSION_OF(nvmlGpuFabricInfo_v2_t, 2)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  memset(out->clusterUuid, 0, sizeof out->clusterUuid);
  out->status = NVML_SUCCESS;
  out->cliqueId = 0;
  out->state = (unsigned char)gpu->fabric;
  out->healthMask = gpu->fabric == FABRIC_COMPLETED ? BANDWIDTH_IS_FULL : 0;
  if (third) out->healthSummary = gpu->fabric == FABRIC_COMPLETED ? HEALTHY : 0;
  return NVML_SUCCESS;
}
