/*
 * Readers, a waiter and a hung call in their own threads while the file changes under them. Usage: threads_test SCRATCH_DIR
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calls.h"
#include "check.h"

enum { ROUNDS = 400 };

static char path[512];
static int stop;

static void write_file(const char *text) {
  char next[600];
  snprintf(next, sizeof next, "%s.next", path);
  FILE *file = fopen(next, "w");
  fputs(text, file);
  fclose(file);
  rename(next, path);
}

/* Temperature and power change together in the file; one call each, so only their own values can be asserted. */
static void *read_sensors(void *argument) {
  (void)argument;
  unsigned long long calls = 0;
  while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
    nvmlDevice_t device;
    unsigned int value;
    char uuid[96];
    unsigned long long energy;
    CHECK(nvmlDeviceGetHandleByIndex_v2(0, &device) == NVML_SUCCESS);
    CHECK(nvmlDeviceGetTemperature(device, 0, &value) == NVML_SUCCESS && value >= 30 && value < 80);
    CHECK(nvmlDeviceGetPowerUsage(device, &value) == NVML_SUCCESS && value % 10000 == 0);
    CHECK(nvmlDeviceGetUUID(device, uuid, sizeof uuid) == NVML_SUCCESS && strlen(uuid) == 40);
    CHECK(nvmlDeviceGetTotalEnergyConsumption(device, &energy) == NVML_SUCCESS);
    calls++;
  }
  CHECK(calls > 0);
  return NULL;
}

static void *wait_for_events(void *argument) {
  unsigned int *seen = argument;
  nvmlEventSet_t set;
  nvmlDevice_t device;
  nvmlEventData_t event;
  CHECK(nvmlEventSetCreate(&set) == NVML_SUCCESS);
  CHECK(nvmlDeviceGetHandleByIndex_v2(0, &device) == NVML_SUCCESS);
  CHECK(nvmlDeviceRegisterEvents(device, 8, set) == NVML_SUCCESS);
  while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
    nvmlReturn_t result = nvmlEventSetWait_v2(set, &event, 30);
    CHECK(result == NVML_SUCCESS || result == NVML_ERROR_TIMEOUT);
    if (result == NVML_SUCCESS) ++*seen;
  }
  CHECK(nvmlEventSetFree(set) == NVML_SUCCESS);
  return NULL;
}

/* Hangs for an hour by the file; the file's next version without the hang ends it. */
static void *hang(void *argument) {
  (void)argument;
  nvmlDevice_t device;
  unsigned int value;
  CHECK(nvmlDeviceGetHandleByIndex_v2(1, &device) == NVML_SUCCESS);
  CHECK(nvmlDeviceGetMinorNumber(device, &value) == NVML_SUCCESS);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  snprintf(path, sizeof path, "%s/gpus.yaml", argv[1]);
  setenv("SIMULATED_NVML_FILE", path, 1);
  write_file("version: 1\ngpu 0-1: H200\ngpu 0:\n  temperature: 30\n  power-watts: 100\ngpu 1:\n  hang: nvmlDeviceGetMinorNumber=3600000\n");
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  pthread_t threads[4];
  unsigned int seen = 0;
  pthread_create(&threads[0], NULL, read_sensors, NULL);
  pthread_create(&threads[1], NULL, read_sensors, NULL);
  pthread_create(&threads[2], NULL, wait_for_events, &seen);
  pthread_create(&threads[3], NULL, hang, NULL);
  nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
  for (unsigned int i = 0; i < ROUNDS; i++) {
    char text[300];
    snprintf(text, sizeof text, "version: 1\ngpu 0-1: H200\ngpu 0:\n  temperature: %u\n  power-watts: %u\n%s", 30 + i % 50, 100 + i % 50 * 10,
             i % 40 == 39 ? "  xid: 31\n" : "");
    write_file(i % 5 == 4 ? "version: 1\ngpu 0: H\n" : text);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    if (i % 40 == 39) nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
  }
  write_file("version: 1\ngpu 0-1: H200\ngpu 0:\n  temperature: 31\n  power-watts: 100\n  xid: 79\n");
  nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
  __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  CHECK(seen >= 1);
  CHECK(nvmlShutdown() == NVML_SUCCESS);
  return FINISH("threads_test");
}
