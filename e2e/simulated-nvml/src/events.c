#include "events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

enum { MAX_SETS = 64, MAX_QUEUED = 256 };

struct nvmlEventSet_st {
  unsigned long long types[MAX_GPUS];
  bool lost_reported[MAX_GPUS];
  bool lost[MAX_GPUS];
  unsigned int first, count;
  nvmlEventData_t queue[MAX_QUEUED];
};

static struct nvmlEventSet_st *sets[MAX_SETS];

static int find(nvmlEventSet_t set) {
  for (int i = 0; i < MAX_SETS; i++)
    if (set && sets[i] == set) return i;
  return -1;
}

nvmlReturn_t events_create(nvmlEventSet_t *set) {
  for (int i = 0; i < MAX_SETS; i++)
    if (!sets[i]) {
      sets[i] = calloc(1, sizeof *sets[i]);
      if (!sets[i]) return NVML_ERROR_MEMORY;
      *set = sets[i];
      return NVML_SUCCESS;
    }
  return NVML_ERROR_INSUFFICIENT_RESOURCES;
}

nvmlReturn_t events_free(nvmlEventSet_t set) {
  int i = find(set);
  if (i < 0) return NVML_ERROR_INVALID_ARGUMENT;
  free(sets[i]);
  sets[i] = NULL;
  return NVML_SUCCESS;
}

void events_free_all(void) {
  for (int i = 0; i < MAX_SETS; i++) {
    free(sets[i]);
    sets[i] = NULL;
  }
}

nvmlReturn_t events_register(nvmlEventSet_t set, unsigned int place, unsigned long long types) {
  if (find(set) < 0) return NVML_ERROR_INVALID_ARGUMENT;
  if (types & ~(unsigned long long)EVENTS_SUPPORTED) return NVML_ERROR_NOT_SUPPORTED;
  set->types[place] |= types;
  return NVML_SUCCESS;
}

nvmlReturn_t events_take(nvmlEventSet_t set, nvmlEventData_t *data) {
  if (find(set) < 0) return NVML_ERROR_INVALID_ARGUMENT;
  if (set->count > 0) {
    *data = set->queue[set->first];
    set->first = (set->first + 1) % MAX_QUEUED;
    set->count--;
    return NVML_SUCCESS;
  }
  for (unsigned int place = 0; place < MAX_GPUS; place++)
    if (set->types[place] && set->lost[place] && !set->lost_reported[place]) {
      set->lost_reported[place] = true;
      return NVML_ERROR_GPU_IS_LOST;
    }
  return NVML_ERROR_TIMEOUT;
}

static void emit(struct nvmlEventSet_st *set, unsigned int place, unsigned long long type, unsigned long long data) {
  if (!(set->types[place] & type)) return;
  if (set->count == MAX_QUEUED) {
    fprintf(stderr, "simulated-nvml: event queue full, event 0x%llx of gpu %u dropped\n", type, place);
    return;
  }
  set->queue[(set->first + set->count++) % MAX_QUEUED] = (nvmlEventData_t){.device = device_of_place(place),
                                                                           .eventType = type,
                                                                           .eventData = data,
                                                                           .gpuInstanceId = NO_INSTANCE,
                                                                           .computeInstanceId = NO_INSTANCE};
}

/* "xid" is a log: entries beyond the part that the old and the new log share have happened since. */
static void emit_xids(struct nvmlEventSet_st *set, unsigned int place, const xids *before, const xids *now) {
  unsigned int shared = 0;
  while (shared < before->count && shared < now->count && before->code[shared] == now->code[shared]) shared++;
  for (unsigned int i = shared; i < now->count; i++) emit(set, place, EVENT_XID, now->code[i]);
}

static bool gone(const struct gpu *gpu) { return !gpu->product || gpu->state != STATE_OK; }

static void compare_gpu(struct nvmlEventSet_st *set, unsigned int place, const struct gpu *before, const struct gpu *now) {
  if (now->product) emit_xids(set, place, &before->xids, &now->xids);
  set->lost[place] = gone(now);
  if (gone(now)) return;
  set->lost_reported[place] = false;
  if (now->ecc_volatile_dram_corrected > before->ecc_volatile_dram_corrected ||
      now->ecc_volatile_sram_corrected > before->ecc_volatile_sram_corrected)
    emit(set, place, EVENT_SINGLE_BIT_ECC, 0);
  if (now->ecc_volatile_dram_uncorrected > before->ecc_volatile_dram_uncorrected ||
      now->ecc_volatile_sram_uncorrected > before->ecc_volatile_sram_uncorrected)
    emit(set, place, EVENT_DOUBLE_BIT_ECC, 0);
  if (now->pstate != before->pstate) emit(set, place, EVENT_PSTATE, 0);
  if (now->sm_clock_mhz != before->sm_clock_mhz || now->throttle != before->throttle) emit(set, place, EVENT_CLOCK, 0);
}

void events_compare(const struct inventory *before, const struct inventory *now) {
  for (int i = 0; i < MAX_SETS; i++)
    for (unsigned int place = 0; sets[i] && place < MAX_GPUS; place++)
      compare_gpu(sets[i], place, &before->gpus[place], &now->gpus[place]);
}
