/*
 * The library's one mutable state: the newest good inventory, who initialised, counters that grow with time, and the
 * beginning and end of every call (faults included). Everything else reads an immutable inventory.
 */
#ifndef SIMULATED_NVML_STATE_H
#define SIMULATED_NVML_STATE_H

#include "abi.h"
#include "inventory.h"

struct nvmlDevice_st {
  char place; /* its address is the handle */
};

struct call {
  struct inventory *inventory; /* held until call_end */
  const struct gpu *gpu;       /* of a device call */
  unsigned int place;          /* of that GPU in the file */
};

nvmlReturn_t state_init(void);
nvmlReturn_t state_shutdown(void);

nvmlReturn_t call_begin(struct call *call, enum function function);
nvmlReturn_t call_begin_device(struct call *call, enum function function, nvmlDevice_t device);
void call_end(struct call *call);

#define SYSTEM_CALL(name)                                                                                            \
  __attribute__((cleanup(call_end))) struct call call = {0};                                                         \
  nvmlReturn_t begun = call_begin(&call, FN_##name);                                                                 \
  if (begun != NVML_SUCCESS) return begun

#define DEVICE_CALL(name)                                                                                            \
  __attribute__((cleanup(call_end))) struct call call = {0};                                                         \
  nvmlReturn_t begun = call_begin_device(&call, FN_##name, device);                                                  \
  if (begun != NVML_SUCCESS) return begun;                                                                           \
  const struct gpu *gpu = call.gpu;                                                                                  \
  (void)gpu

#define REQUIRE(condition)                                                                                           \
  do {                                                                                                               \
    if (!(condition)) return NVML_ERROR_INVALID_ARGUMENT;                                                            \
  } while (0)

/* Devices as NVML counts them: what was there, and visible to this process, when it initialised. */
unsigned int device_count(void);
nvmlDevice_t device_at(unsigned int index);
/* Place in the file of a handle, or MAX_GPUS. */
unsigned int device_place(nvmlDevice_t device);
nvmlDevice_t device_of_place(unsigned int place);
unsigned int device_index(unsigned int place);

struct counters {
  unsigned long long energy_millijoules;
  unsigned long long throttled_nanoseconds[THROTTLE_BITS];
};
/* Grown with time by what the file said since this process initialised. */
struct counters device_counters(unsigned int place);

nvmlReturn_t copy_text(char *out, unsigned int length, const char *text);
unsigned long long realtime_microseconds(void);

#endif
