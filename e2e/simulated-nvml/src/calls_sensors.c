/*
 * Calls that ask how one GPU fares now: temperature, power, clocks and what holds them back.
 */
#include "products.h"
#include "state.h"

#define NUMBER_OF(name, type, number)                                                                                \
  API nvmlReturn_t name(nvmlDevice_t device, type *out) {                                                            \
    DEVICE_CALL(name);                                                                                               \
    REQUIRE(out);                                                                                                    \
    *out = (type)(number);                                                                                           \
    return NVML_SUCCESS;                                                                                             \
  }

enum { SUPPORTED_REASONS = 0x1FF };

NUMBER_OF(nvmlDeviceGetPowerUsage, unsigned int, gpu->power_watts * 1000)
NUMBER_OF(nvmlDeviceGetPowerManagementMode, unsigned int, 1)
NUMBER_OF(nvmlDeviceGetPowerManagementLimit, unsigned int, gpu->power_limit_watts * 1000)
NUMBER_OF(nvmlDeviceGetPowerManagementDefaultLimit, unsigned int, POWER_LIMIT_MAX_WATTS * 1000)
NUMBER_OF(nvmlDeviceGetEnforcedPowerLimit, unsigned int, gpu->power_limit_watts * 1000)
NUMBER_OF(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, device_counters(call.place).energy_millijoules)
NUMBER_OF(nvmlDeviceGetPerformanceState, unsigned int, gpu->pstate)
NUMBER_OF(nvmlDeviceGetPowerState, unsigned int, gpu->pstate)
NUMBER_OF(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, gpu->throttle)
NUMBER_OF(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, gpu->throttle)
NUMBER_OF(nvmlDeviceGetSupportedClocksEventReasons, unsigned long long, SUPPORTED_REASONS)
NUMBER_OF(nvmlDeviceGetSupportedClocksThrottleReasons, unsigned long long, SUPPORTED_REASONS)
NUMBER_OF(nvmlDeviceGetSupportedEventTypes, unsigned long long, EVENTS_SUPPORTED)

API nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *low, unsigned int *high) {
  DEVICE_CALL(nvmlDeviceGetPowerManagementLimitConstraints);
  REQUIRE(low && high);
  *low = POWER_LIMIT_MIN_WATTS * 1000;
  *high = POWER_LIMIT_MAX_WATTS * 1000;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor, unsigned int *out) {
  DEVICE_CALL(nvmlDeviceGetTemperature);
  REQUIRE(out && sensor == 0);
  *out = (unsigned int)gpu->temperature;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_v1_t *out) {
  DEVICE_CALL(nvmlDeviceGetTemperatureV);
  REQUIRE(out);
  if (out->version != VERSION_OF(*out, 1)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  REQUIRE(out->sensorType == 0);
  out->temperature = (int)gpu->temperature;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, unsigned int type, unsigned int *out) {
  DEVICE_CALL(nvmlDeviceGetTemperatureThreshold);
  REQUIRE(out && type < 8);
  static const unsigned int thresholds[] = {SHUTDOWN_CELSIUS, SLOWDOWN_CELSIUS, MEMORY_MAX_CELSIUS, GPU_MAX_CELSIUS};
  if (type >= sizeof thresholds / sizeof thresholds[0]) return NVML_ERROR_NOT_SUPPORTED;
  *out = thresholds[type];
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_v1_t *out) {
  DEVICE_CALL(nvmlDeviceGetMarginTemperature);
  REQUIRE(out);
  if (out->version != VERSION_OF(*out, 1)) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  out->marginTemperature = GPU_MAX_CELSIUS - (int)gpu->temperature;
  return NVML_SUCCESS;
}

static unsigned int clock_now(const struct gpu *gpu, unsigned int type) {
  switch (type) {
    case CLOCK_MEMORY: return (unsigned int)gpu->memory_clock_mhz;
    case CLOCK_VIDEO: return (unsigned int)(gpu->sm_clock_mhz * VIDEO_CLOCK_MHZ / MAX_SM_CLOCK_MHZ);
    default: return (unsigned int)gpu->sm_clock_mhz;
  }
}

static unsigned int clock_max(const struct gpu *gpu, unsigned int type) {
  switch (type) {
    case CLOCK_MEMORY: return product_of(gpu)->memory_clock_mhz;
    case CLOCK_VIDEO: return VIDEO_CLOCK_MHZ;
    default: return MAX_SM_CLOCK_MHZ;
  }
}

#define CLOCK_OF(name, clock)                                                                                        \
  API nvmlReturn_t name(nvmlDevice_t device, unsigned int type, unsigned int *out) {                                 \
    DEVICE_CALL(name);                                                                                               \
    REQUIRE(out && type < CLOCKS);                                                                                   \
    *out = clock(gpu, type);                                                                                         \
    return NVML_SUCCESS;                                                                                             \
  }
CLOCK_OF(nvmlDeviceGetClockInfo, clock_now)
CLOCK_OF(nvmlDeviceGetMaxClockInfo, clock_max)
CLOCK_OF(nvmlDeviceGetApplicationsClock, clock_max)
CLOCK_OF(nvmlDeviceGetDefaultApplicationsClock, clock_max)
CLOCK_OF(nvmlDeviceGetMaxCustomerBoostClock, clock_max)

API nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, unsigned int type, unsigned int id, unsigned int *out) {
  DEVICE_CALL(nvmlDeviceGetClock);
  REQUIRE(out && type < CLOCKS && id < 4);
  *out = id == 0 ? clock_now(gpu, type) : clock_max(gpu, type);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMinMaxClockOfPState(nvmlDevice_t device, unsigned int type, unsigned int pstate, unsigned int *low,
                                                  unsigned int *high) {
  DEVICE_CALL(nvmlDeviceGetMinMaxClockOfPState);
  REQUIRE(low && high && type < CLOCKS);
  if (pstate != 0) return NVML_ERROR_NOT_SUPPORTED;
  *low = type == CLOCK_MEMORY ? clock_max(gpu, type) : IDLE_SM_CLOCK_MHZ;
  *high = clock_max(gpu, type);
  return NVML_SUCCESS;
}

/* P0 alone, as the boards do; the rest is NVML_PSTATE_UNKNOWN. */
API nvmlReturn_t nvmlDeviceGetSupportedPerformanceStates(nvmlDevice_t device, unsigned int *out, unsigned int bytes) {
  DEVICE_CALL(nvmlDeviceGetSupportedPerformanceStates);
  REQUIRE(out && bytes >= sizeof *out);
  for (unsigned int i = 0; i < bytes / sizeof *out; i++) out[i] = i == 0 ? 0 : 32;
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned int *count, unsigned int *out) {
  DEVICE_CALL(nvmlDeviceGetSupportedMemoryClocks);
  REQUIRE(count);
  bool room = *count >= 1 && out;
  *count = 1;
  if (!room) return NVML_ERROR_INSUFFICIENT_SIZE;
  out[0] = product_of(gpu)->memory_clock_mhz;
  return NVML_SUCCESS;
}

/* From the highest to the lowest in steps of 15 MHz. */
API nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, unsigned int memory_clock, unsigned int *count,
                                                      unsigned int *out) {
  DEVICE_CALL(nvmlDeviceGetSupportedGraphicsClocks);
  REQUIRE(count);
  if (memory_clock != product_of(gpu)->memory_clock_mhz) return NVML_ERROR_NOT_FOUND;
  unsigned int steps = (MAX_SM_CLOCK_MHZ - IDLE_SM_CLOCK_MHZ) / 15 + 1, room = out ? *count : 0;
  *count = steps;
  if (room < steps) return NVML_ERROR_INSUFFICIENT_SIZE;
  for (unsigned int i = 0; i < steps; i++) out[i] = MAX_SM_CLOCK_MHZ - i * 15;
  return NVML_SUCCESS;
}

/* By nvmlPerfPolicyType_t: the reasons whose time it adds up. */
API nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, unsigned int policy, nvmlViolationTime_t *out) {
  DEVICE_CALL(nvmlDeviceGetViolationStatus);
  REQUIRE(out);
  static const unsigned int reasons[] = {0x4 | 0x80, 0x20 | 0x40, 0x10, 0, 0x1, 0x8, [10] = SUPPORTED_REASONS & ~0x1, [11] = 0};
  REQUIRE(policy < sizeof reasons / sizeof reasons[0]);
  if (policy > 5 && policy < 10) return NVML_ERROR_INVALID_ARGUMENT;
  struct counters counters = device_counters(call.place);
  *out = (nvmlViolationTime_t){.referenceTime = realtime_microseconds()};
  for (int bit = 0; bit < THROTTLE_BITS; bit++)
    if (reasons[policy] >> bit & 1) out->violationTime += counters.throttled_nanoseconds[bit];
  return NVML_SUCCESS;
}
