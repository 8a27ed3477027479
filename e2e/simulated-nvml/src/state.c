#include "state.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "events.h"
#include "file.h"

enum { HANG_SLICE_MILLIS = 20, MAX_PATH = 4096 };

static struct {
  pthread_mutex_t lock;
  unsigned int initialised; /* nvmlInit minus nvmlShutdown */
  char path[MAX_PATH];
  struct file_identity seen; /* of the last reading, good or bad */
  char *text;                /* of the last reading: the same text twice is no change */
  size_t length;
  struct inventory *newest;
  unsigned int enumerated;
  unsigned char places[MAX_GPUS]; /* index -> place in the file */
  unsigned long long counted_at;
  struct { double energy_millijoules; double throttled_nanoseconds[THROTTLE_BITS]; } counters[MAX_GPUS];
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct nvmlDevice_st devices[MAX_GPUS];

static unsigned long long clock_nanoseconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (unsigned long long)now.tv_sec * 1000000000u + (unsigned long long)now.tv_nsec;
}

unsigned long long realtime_microseconds(void) { return clock_nanoseconds(CLOCK_REALTIME) / 1000; }

static void release(struct inventory *inventory) {
  if (inventory && --inventory->references == 0) free(inventory);
}

/* Adds what passed since the last count, at the rates that the newest inventory shows. */
static void count_time(void) {
  unsigned long long now = clock_nanoseconds(CLOCK_MONOTONIC);
  double passed = (double)(now - state.counted_at);
  state.counted_at = now;
  for (unsigned int place = 0; state.newest && place < MAX_GPUS; place++) {
    const struct gpu *gpu = &state.newest->gpus[place];
    if (!gpu->product || gpu->state != STATE_OK) continue;
    state.counters[place].energy_millijoules += (double)gpu->power_watts * passed / 1e6;
    for (int bit = 0; bit < THROTTLE_BITS; bit++)
      if (gpu->throttle >> bit & 1) state.counters[place].throttled_nanoseconds[bit] += passed;
  }
}

static void complain(const char *path, unsigned int line, const char *reason, bool keeps) {
  fprintf(stderr, "simulated-nvml: %s:%u: %s%s\n", path, line, reason, keeps ? "; the last good state stays" : "");
}

/* Reads the file. True when its text is another one than before; without a text, says why and keeps none. */
static bool read_again(bool keeps, nvmlReturn_t *why) {
  size_t length = 0;
  char *text = file_read(state.path, &length);
  if (!text) {
    *why = errno == ENOENT || errno == ENOTDIR ? NVML_ERROR_DRIVER_NOT_LOADED : NVML_ERROR_OPERATING_SYSTEM;
    complain(state.path, 0, strerror(errno), keeps);
  } else if (state.text && length == state.length && memcmp(text, state.text, length) == 0) {
    free(text);
    return false;
  }
  free(state.text);
  state.text = text;
  state.length = length;
  return text != NULL;
}

/* A fresh inventory from the text that was read, or NULL with a line on stderr. */
static struct inventory *parse(bool keeps, nvmlReturn_t *why) {
  char host[64] = "";
  gethostname(host, sizeof host - 1);
  struct inventory *inventory = malloc(sizeof *inventory);
  struct parse_error error;
  *why = inventory ? NVML_ERROR_UNKNOWN : NVML_ERROR_MEMORY;
  if (!inventory) return NULL;
  if (!inventory_parse(state.text, state.length, host, inventory, &error)) {
    complain(state.path, error.line, error.reason, keeps);
    free(inventory);
    return NULL;
  }
  inventory->references = 1;
  return inventory;
}

static void refresh(void) {
  struct file_identity found = file_identify(state.path);
  bool changed = !file_same(&found, &state.seen);
  if (!changed && state.seen.settled) return;
  state.seen = found;
  nvmlReturn_t why;
  struct inventory *inventory = read_again(true, &why) ? parse(true, &why) : NULL;
  if (!inventory) return;
  count_time();
  events_compare(state.newest, inventory);
  release(state.newest);
  state.newest = inventory;
}

/* NVIDIA_VISIBLE_DEVICES as the container runtime honours it: unset or "all", "none" or "void", or UUIDs and indices. */
static bool visible(const char *list, const struct gpu *gpu, unsigned int index) {
  if (!list || strcmp(list, "all") == 0) return true;
  char number[12];
  snprintf(number, sizeof number, "%u", index);
  for (const char *item = list; item; item = strchr(item, ',') ? strchr(item, ',') + 1 : NULL) {
    size_t length = strcspn(item, ",");
    if ((strlen(gpu->uuid) == length && memcmp(gpu->uuid, item, length) == 0) ||
        (strlen(number) == length && memcmp(number, item, length) == 0))
      return true;
  }
  return false;
}

static void enumerate(void) {
  const char *list = getenv("NVIDIA_VISIBLE_DEVICES");
  unsigned int index = 0;
  state.enumerated = 0;
  for (unsigned int place = 0; place < MAX_GPUS; place++) {
    const struct gpu *gpu = &state.newest->gpus[place];
    if (!gpu->product || gpu->state == STATE_ABSENT) continue;
    if (visible(list, gpu, index)) state.places[state.enumerated++] = (unsigned char)place;
    index++;
  }
}

static nvmlReturn_t first_init(void) {
  snprintf(state.path, sizeof state.path, "%s", file_path());
  state.seen = file_identify(state.path);
  free(state.text);
  state.text = NULL;
  nvmlReturn_t why = NVML_SUCCESS;
  struct inventory *inventory = read_again(false, &why) ? parse(false, &why) : NULL;
  if (!inventory) return why;
  release(state.newest);
  state.newest = inventory;
  memset(state.counters, 0, sizeof state.counters);
  state.counted_at = clock_nanoseconds(CLOCK_MONOTONIC);
  enumerate();
  return NVML_SUCCESS;
}

/* The fault of the function itself, else the one of its whole scope. */
static nvmlReturn_t error_of(const errors *faults, enum function function) {
  return faults->code[function] ? faults->code[function] : faults->code[FUNCTIONS];
}

static unsigned int millis_of(const hangs *faults, enum function function) {
  return faults->millis[function] ? faults->millis[function] : faults->millis[FUNCTIONS];
}

/* Sleeps, without the lock, for as long as the newest inventory wants this function to hang: ending the hang in the file ends it here. */
static void hang(enum function function, unsigned int place) {
  unsigned long long begun = clock_nanoseconds(CLOCK_MONOTONIC);
  while (state.newest) {
    unsigned int wanted = millis_of(&state.newest->hangs, function);
    if (place < MAX_GPUS && millis_of(&state.newest->gpus[place].hangs, function) > wanted)
      wanted = millis_of(&state.newest->gpus[place].hangs, function);
    unsigned long long passed = (clock_nanoseconds(CLOCK_MONOTONIC) - begun) / 1000000;
    if (passed >= wanted) return;
    unsigned long long slice = wanted - passed < HANG_SLICE_MILLIS ? wanted - passed : HANG_SLICE_MILLIS;
    pthread_mutex_unlock(&state.lock);
    nanosleep(&(struct timespec){.tv_nsec = (long)slice * 1000000}, NULL);
    pthread_mutex_lock(&state.lock);
    refresh();
  }
}

static nvmlReturn_t begin_locked(struct call *call, enum function function, unsigned int place) {
  if (!state.initialised) return NVML_ERROR_UNINITIALIZED;
  refresh();
  hang(function, place);
  if (!state.initialised) return NVML_ERROR_UNINITIALIZED;
  nvmlReturn_t error = error_of(&state.newest->errors, function);
  if (error) return error;
  if (place < MAX_GPUS) {
    const struct gpu *gpu = &state.newest->gpus[place];
    if (!gpu->product || gpu->state != STATE_OK) return NVML_ERROR_GPU_IS_LOST;
    error = error_of(&gpu->errors, function);
    if (error) return error;
    call->gpu = gpu;
    call->place = place;
  }
  state.newest->references++;
  call->inventory = state.newest;
  return NVML_SUCCESS;
}

nvmlReturn_t call_begin(struct call *call, enum function function) {
  pthread_mutex_lock(&state.lock);
  nvmlReturn_t result = begin_locked(call, function, MAX_GPUS);
  pthread_mutex_unlock(&state.lock);
  return result;
}

nvmlReturn_t call_begin_device(struct call *call, enum function function, nvmlDevice_t device) {
  unsigned int place = device_place(device);
  pthread_mutex_lock(&state.lock);
  nvmlReturn_t result = !state.initialised  ? NVML_ERROR_UNINITIALIZED
                        : place == MAX_GPUS ? NVML_ERROR_INVALID_ARGUMENT
                                            : begin_locked(call, function, place);
  pthread_mutex_unlock(&state.lock);
  return result;
}

void call_end(struct call *call) {
  if (!call->inventory) return;
  pthread_mutex_lock(&state.lock);
  release(call->inventory);
  pthread_mutex_unlock(&state.lock);
}

nvmlReturn_t state_init(void) {
  pthread_mutex_lock(&state.lock);
  nvmlReturn_t result = state.initialised ? NVML_SUCCESS : first_init();
  if (result == NVML_SUCCESS) {
    hang(FN_nvmlInit, MAX_GPUS);
    result = error_of(&state.newest->errors, FN_nvmlInit);
  }
  if (result == NVML_SUCCESS) state.initialised++;
  pthread_mutex_unlock(&state.lock);
  return result;
}

nvmlReturn_t state_shutdown(void) {
  pthread_mutex_lock(&state.lock);
  nvmlReturn_t result = state.initialised ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
  if (result == NVML_SUCCESS && --state.initialised == 0) events_free_all();
  pthread_mutex_unlock(&state.lock);
  return result;
}

unsigned int device_place(nvmlDevice_t device) {
  for (unsigned int place = 0; place < MAX_GPUS; place++)
    if (device == &devices[place]) return place;
  return MAX_GPUS;
}

nvmlDevice_t device_of_place(unsigned int place) { return &devices[place]; }

unsigned int device_count(void) {
  pthread_mutex_lock(&state.lock);
  unsigned int count = state.enumerated;
  pthread_mutex_unlock(&state.lock);
  return count;
}

nvmlDevice_t device_at(unsigned int index) {
  pthread_mutex_lock(&state.lock);
  nvmlDevice_t device = index < state.enumerated ? &devices[state.places[index]] : NULL;
  pthread_mutex_unlock(&state.lock);
  return device;
}

unsigned int device_index(unsigned int place) {
  pthread_mutex_lock(&state.lock);
  unsigned int index = 0;
  while (index < state.enumerated && state.places[index] != place) index++;
  pthread_mutex_unlock(&state.lock);
  return index;
}

struct counters device_counters(unsigned int place) {
  struct counters out;
  pthread_mutex_lock(&state.lock);
  count_time();
  out.energy_millijoules = (unsigned long long)state.counters[place].energy_millijoules;
  for (int bit = 0; bit < THROTTLE_BITS; bit++)
    out.throttled_nanoseconds[bit] = (unsigned long long)state.counters[place].throttled_nanoseconds[bit];
  pthread_mutex_unlock(&state.lock);
  return out;
}

nvmlReturn_t copy_text(char *out, unsigned int length, const char *text) {
  if (!out) return NVML_ERROR_INVALID_ARGUMENT;
  if (strlen(text) >= length) return NVML_ERROR_INSUFFICIENT_SIZE;
  strcpy(out, text);
  return NVML_SUCCESS;
}

API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
  SYSTEM_CALL(nvmlEventSetCreate);
  REQUIRE(set);
  pthread_mutex_lock(&state.lock);
  nvmlReturn_t result = events_create(set);
  pthread_mutex_unlock(&state.lock);
  return result;
}

API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
  pthread_mutex_lock(&state.lock);
  nvmlReturn_t result = state.initialised ? events_free(set) : NVML_ERROR_UNINITIALIZED;
  pthread_mutex_unlock(&state.lock);
  return result;
}

API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
  DEVICE_CALL(nvmlDeviceRegisterEvents);
  pthread_mutex_lock(&state.lock);
  nvmlReturn_t result = events_register(set, call.place, types);
  pthread_mutex_unlock(&state.lock);
  return result;
}

API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_millis) {
  {
    SYSTEM_CALL(nvmlEventSetWait);
    REQUIRE(data);
  }
  unsigned long long begun = clock_nanoseconds(CLOCK_MONOTONIC);
  for (;;) {
    pthread_mutex_lock(&state.lock);
    nvmlReturn_t result = NVML_ERROR_UNINITIALIZED;
    if (state.initialised) {
      refresh();
      result = events_take(set, data);
    }
    pthread_mutex_unlock(&state.lock);
    unsigned long long passed = (clock_nanoseconds(CLOCK_MONOTONIC) - begun) / 1000000;
    if (result != NVML_ERROR_TIMEOUT || passed >= timeout_millis) return result;
    unsigned long long slice = timeout_millis - passed < HANG_SLICE_MILLIS ? timeout_millis - passed : HANG_SLICE_MILLIS;
    nanosleep(&(struct timespec){.tv_nsec = (long)slice * 1000000}, NULL);
  }
}

API nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_millis) {
  return nvmlEventSetWait_v2(set, data, timeout_millis);
}
