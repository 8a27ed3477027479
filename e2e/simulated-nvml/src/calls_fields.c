/*
 * nvmlDeviceGetFieldValues: many numbers in one call, each with its own result.
 */
#include "ecc.h"
#include "products.h"
#include "state.h"

enum field {
  FIELD_ECC_CURRENT = 1,
  FIELD_ECC_PENDING = 2,
  FIELD_ECC_SBE_VOLATILE = 3,
  FIELD_ECC_DBE_VOLATILE = 4,
  FIELD_ECC_SBE_AGGREGATE = 5,
  FIELD_ECC_DBE_AGGREGATE = 6,
  FIELD_ECC_SBE_VOLATILE_L2 = 9,
  FIELD_ECC_DBE_VOLATILE_L2 = 10,
  FIELD_ECC_SBE_VOLATILE_DEVICE = 11,
  FIELD_ECC_DBE_VOLATILE_DEVICE = 12,
  FIELD_ECC_SBE_AGGREGATE_L2 = 20,
  FIELD_ECC_DBE_AGGREGATE_L2 = 21,
  FIELD_ECC_SBE_AGGREGATE_DEVICE = 22,
  FIELD_ECC_DBE_AGGREGATE_DEVICE = 23,
  FIELD_NVLINK_CRC_FLIT_TOTAL = 38,
  FIELD_NVLINK_CRC_DATA_TOTAL = 45,
  FIELD_NVLINK_REPLAY_TOTAL = 52,
  FIELD_NVLINK_RECOVERY_TOTAL = 59,
  FIELD_POLICY_POWER = 74,
  FIELD_POLICY_THERMAL = 75,
  FIELD_POLICY_SYNC_BOOST = 76,
  FIELD_POLICY_BOARD_LIMIT = 77,
  FIELD_POLICY_LOW_UTILIZATION = 78,
  FIELD_POLICY_RELIABILITY = 79,
  FIELD_MEMORY_TEMPERATURE = 82,
  FIELD_TOTAL_ENERGY = 83,
  FIELD_NVLINK_SPEED_COMMON = 90,
  FIELD_NVLINK_LINK_COUNT = 91,
  FIELD_PCIE_REPLAY_COUNTER = 94,
  FIELD_PCIE_REPLAY_ROLLOVER = 95,
  FIELD_NVLINK_TX_DATA = 138,
  FIELD_NVLINK_RX_DATA = 139,
  FIELD_NVLINK_TX_RAW = 140,
  FIELD_NVLINK_RX_RAW = 141,
  FIELD_REMAPPED_CORRECTABLE = 142,
  FIELD_REMAPPED_UNCORRECTABLE = 143,
  FIELD_REMAPPED_PENDING = 144,
  FIELD_REMAPPED_FAILURE = 145,
  FIELD_NVSWITCH_LINK_COUNT = 147,
  FIELD_NVLINK_DL_REPLAY = 161,
  FIELD_NVLINK_DL_RECOVERY = 162,
  FIELD_NVLINK_DL_CRC = 163,
  FIELD_NVLINK_SPEED = 164,
  FIELD_NVLINK_STATE = 165,
  FIELD_NVLINK_VERSION = 166,
  FIELD_C2C_LINK_COUNT = 170,
  FIELD_POWER_AVERAGE = 185,
  FIELD_POWER_INSTANT = 186,
  FIELD_POWER_MIN_LIMIT = 187,
  FIELD_POWER_MAX_LIMIT = 188,
  FIELD_POWER_DEFAULT_LIMIT = 189,
  FIELD_POWER_CURRENT_LIMIT = 190,
  FIELD_POWER_REQUESTED_LIMIT = 192,
  FIELD_SHUTDOWN_MARGIN = 193,
  FIELD_SLOWDOWN_MARGIN = 194,
  FIELD_MEMORY_MAX_MARGIN = 195,
  FIELD_GPU_MAX_MARGIN = 196,
  FIELD_RECOVERY_ACTION = 230
};

enum { NVLINK_MBPS = 26562, NVLINK_VERSION_4 = 6, ALL_LINKS = 0xFFFFFFFFu };

static void set_unsigned(nvmlFieldValue_t *value, unsigned long long number) {
  value->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
  value->value.uiVal = (unsigned int)number;
}

static void set_long(nvmlFieldValue_t *value, unsigned long long number) {
  value->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
  value->value.ullVal = number;
}

static void set_signed(nvmlFieldValue_t *value, int number) {
  value->valueType = NVML_VALUE_TYPE_SIGNED_INT;
  value->value.siVal = number;
}

static unsigned int active_links(const struct gpu *gpu) {
  unsigned int active = 0;
  for (unsigned int link = 0; link < NVLINKS; link++) active += !(gpu->nvlink_down >> link & 1);
  return active;
}

static nvmlReturn_t read_ecc(const struct gpu *gpu, nvmlFieldValue_t *value) {
  static const struct { enum field field; enum ecc_lifetime lifetime; enum ecc_type type; enum ecc_memory memory; } counts[] = {
      {FIELD_ECC_SBE_VOLATILE, ECC_VOLATILE, ECC_CORRECTED, ECC_BOTH},
      {FIELD_ECC_DBE_VOLATILE, ECC_VOLATILE, ECC_UNCORRECTED, ECC_BOTH},
      {FIELD_ECC_SBE_AGGREGATE, ECC_AGGREGATE, ECC_CORRECTED, ECC_BOTH},
      {FIELD_ECC_DBE_AGGREGATE, ECC_AGGREGATE, ECC_UNCORRECTED, ECC_BOTH},
      {FIELD_ECC_SBE_VOLATILE_L2, ECC_VOLATILE, ECC_CORRECTED, ECC_SRAM},
      {FIELD_ECC_DBE_VOLATILE_L2, ECC_VOLATILE, ECC_UNCORRECTED, ECC_SRAM},
      {FIELD_ECC_SBE_VOLATILE_DEVICE, ECC_VOLATILE, ECC_CORRECTED, ECC_DRAM},
      {FIELD_ECC_DBE_VOLATILE_DEVICE, ECC_VOLATILE, ECC_UNCORRECTED, ECC_DRAM},
      {FIELD_ECC_SBE_AGGREGATE_L2, ECC_AGGREGATE, ECC_CORRECTED, ECC_SRAM},
      {FIELD_ECC_DBE_AGGREGATE_L2, ECC_AGGREGATE, ECC_UNCORRECTED, ECC_SRAM},
      {FIELD_ECC_SBE_AGGREGATE_DEVICE, ECC_AGGREGATE, ECC_CORRECTED, ECC_DRAM},
      {FIELD_ECC_DBE_AGGREGATE_DEVICE, ECC_AGGREGATE, ECC_UNCORRECTED, ECC_DRAM}};
  for (unsigned int i = 0; i < sizeof counts / sizeof counts[0]; i++)
    if (counts[i].field == value->fieldId) {
      if (!gpu->ecc) return NVML_ERROR_NOT_SUPPORTED;
      set_long(value, ecc_count(gpu, counts[i].lifetime, counts[i].type, counts[i].memory));
      return NVML_SUCCESS;
    }
  return NVML_ERROR_NOT_SUPPORTED;
}

/* The scope is a link, or all of them; what the file counts per GPU is shown on link 0. */
static nvmlReturn_t read_nvlink(const struct gpu *gpu, nvmlFieldValue_t *value) {
  bool all = value->scopeId == ALL_LINKS;
  if (!all && value->scopeId >= NVLINKS) return NVML_ERROR_INVALID_ARGUMENT;
  bool shown = all || value->scopeId == 0;
  switch (value->fieldId) {
    case FIELD_NVLINK_DL_REPLAY: return set_long(value, shown ? gpu->nvlink_replays : 0), NVML_SUCCESS;
    case FIELD_NVLINK_DL_RECOVERY: return set_long(value, shown ? gpu->nvlink_recoveries : 0), NVML_SUCCESS;
    case FIELD_NVLINK_DL_CRC: return set_long(value, shown ? gpu->nvlink_crc_errors : 0), NVML_SUCCESS;
    case FIELD_NVLINK_SPEED: return set_unsigned(value, NVLINK_MBPS), NVML_SUCCESS;
    case FIELD_NVLINK_VERSION: return set_unsigned(value, NVLINK_VERSION_4), NVML_SUCCESS;
    case FIELD_NVLINK_STATE:
      if (all) return NVML_ERROR_INVALID_ARGUMENT;
      return set_unsigned(value, !(gpu->nvlink_down >> value->scopeId & 1)), NVML_SUCCESS;
    default: return NVML_ERROR_NOT_SUPPORTED;
  }
}

static nvmlReturn_t read_power(const struct gpu *gpu, nvmlFieldValue_t *value) {
  switch (value->fieldId) {
    case FIELD_POWER_AVERAGE:
    case FIELD_POWER_INSTANT: return set_unsigned(value, gpu->power_watts * 1000), NVML_SUCCESS;
    case FIELD_POWER_MIN_LIMIT: return set_unsigned(value, POWER_LIMIT_MIN_WATTS * 1000), NVML_SUCCESS;
    case FIELD_POWER_MAX_LIMIT:
    case FIELD_POWER_DEFAULT_LIMIT: return set_unsigned(value, POWER_LIMIT_MAX_WATTS * 1000), NVML_SUCCESS;
    case FIELD_POWER_CURRENT_LIMIT:
    case FIELD_POWER_REQUESTED_LIMIT: return set_unsigned(value, gpu->power_limit_watts * 1000), NVML_SUCCESS;
    case FIELD_MEMORY_TEMPERATURE: return set_unsigned(value, gpu->memory_temperature), NVML_SUCCESS;
    case FIELD_SHUTDOWN_MARGIN: return set_signed(value, GPU_MAX_CELSIUS - SHUTDOWN_CELSIUS), NVML_SUCCESS;
    case FIELD_SLOWDOWN_MARGIN: return set_signed(value, GPU_MAX_CELSIUS - SLOWDOWN_CELSIUS), NVML_SUCCESS;
    case FIELD_MEMORY_MAX_MARGIN:
    case FIELD_GPU_MAX_MARGIN: return set_signed(value, 0), NVML_SUCCESS;
    default: return NVML_ERROR_NOT_SUPPORTED;
  }
}

static nvmlReturn_t read_time(unsigned int place, nvmlFieldValue_t *value) {
  struct counters counters = device_counters(place);
  const unsigned long long *held = counters.throttled_nanoseconds; /* by bit of the reason */
  switch (value->fieldId) {
    case FIELD_TOTAL_ENERGY: return set_long(value, counters.energy_millijoules), NVML_SUCCESS;
    case FIELD_POLICY_POWER: return set_long(value, held[2] + held[7]), NVML_SUCCESS;
    case FIELD_POLICY_THERMAL: return set_long(value, held[5] + held[6]), NVML_SUCCESS;
    case FIELD_POLICY_SYNC_BOOST: return set_long(value, held[4]), NVML_SUCCESS;
    case FIELD_POLICY_BOARD_LIMIT: return set_long(value, 0), NVML_SUCCESS;
    case FIELD_POLICY_LOW_UTILIZATION: return set_long(value, held[0]), NVML_SUCCESS;
    case FIELD_POLICY_RELIABILITY: return set_long(value, held[3]), NVML_SUCCESS;
    default: return NVML_ERROR_NOT_SUPPORTED;
  }
}

static nvmlReturn_t read_state(const struct gpu *gpu, nvmlFieldValue_t *value) {
  switch (value->fieldId) {
    case FIELD_ECC_CURRENT:
    case FIELD_ECC_PENDING: return set_unsigned(value, gpu->ecc), NVML_SUCCESS;
    case FIELD_NVLINK_CRC_FLIT_TOTAL: return set_long(value, gpu->nvlink_crc_errors), NVML_SUCCESS;
    case FIELD_NVLINK_CRC_DATA_TOTAL: return set_long(value, 0), NVML_SUCCESS;
    case FIELD_NVLINK_REPLAY_TOTAL: return set_long(value, gpu->nvlink_replays), NVML_SUCCESS;
    case FIELD_NVLINK_RECOVERY_TOTAL: return set_long(value, gpu->nvlink_recoveries), NVML_SUCCESS;
    case FIELD_NVLINK_SPEED_COMMON: return set_unsigned(value, NVLINK_MBPS), NVML_SUCCESS;
    case FIELD_NVLINK_LINK_COUNT: return set_unsigned(value, NVLINKS), NVML_SUCCESS;
    case FIELD_NVSWITCH_LINK_COUNT: return set_unsigned(value, active_links(gpu)), NVML_SUCCESS;
    case FIELD_NVLINK_TX_DATA:
    case FIELD_NVLINK_RX_DATA:
    case FIELD_NVLINK_TX_RAW:
    case FIELD_NVLINK_RX_RAW: return set_long(value, 0), NVML_SUCCESS;
    case FIELD_PCIE_REPLAY_COUNTER: return set_unsigned(value, gpu->pcie_replays), NVML_SUCCESS;
    case FIELD_PCIE_REPLAY_ROLLOVER: return set_unsigned(value, 0), NVML_SUCCESS;
    case FIELD_REMAPPED_CORRECTABLE: return set_unsigned(value, gpu->remapped_correctable), NVML_SUCCESS;
    case FIELD_REMAPPED_UNCORRECTABLE: return set_unsigned(value, gpu->remapped_uncorrectable), NVML_SUCCESS;
    case FIELD_REMAPPED_PENDING: return set_unsigned(value, gpu->remap_pending), NVML_SUCCESS;
    case FIELD_REMAPPED_FAILURE: return set_unsigned(value, gpu->remap_failure), NVML_SUCCESS;
    case FIELD_C2C_LINK_COUNT: return set_unsigned(value, 0), NVML_SUCCESS;
    case FIELD_RECOVERY_ACTION: return set_unsigned(value, gpu->recovery_action), NVML_SUCCESS;
    default: return NVML_ERROR_NOT_SUPPORTED;
  }
}

static nvmlReturn_t read_field(const struct call *call, nvmlFieldValue_t *value) {
  nvmlReturn_t result = read_state(call->gpu, value);
  if (result == NVML_ERROR_NOT_SUPPORTED) result = read_ecc(call->gpu, value);
  if (result == NVML_ERROR_NOT_SUPPORTED) result = read_nvlink(call->gpu, value);
  if (result == NVML_ERROR_NOT_SUPPORTED) result = read_power(call->gpu, value);
  if (result == NVML_ERROR_NOT_SUPPORTED) result = read_time(call->place, value);
  return result;
}

API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
  DEVICE_CALL(nvmlDeviceGetFieldValues);
  REQUIRE(values && count > 0);
  for (int i = 0; i < count; i++) {
    unsigned long long begun = realtime_microseconds();
    values[i].value.ullVal = 0;
    values[i].nvmlReturn = read_field(&call, &values[i]);
    values[i].timestamp = (long long)realtime_microseconds();
    values[i].latencyUsec = values[i].timestamp - (long long)begun;
  }
  return NVML_SUCCESS;
}
