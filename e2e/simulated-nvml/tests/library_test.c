/*
 * The library as a caller sees it: values, faults, events, re-reading. Usage: library_test SAMPLES_DIR SCRATCH_DIR
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "calls.h"

static char path[512];
static const char *samples;

static void write_file(const char *text) {
  char next[600];
  snprintf(next, sizeof next, "%s.next", path);
  FILE *file = fopen(next, "w");
  fputs(text, file);
  fclose(file);
  rename(next, path);
}

static void copy_sample(const char *name) {
  char from[600], text[4096];
  snprintf(from, sizeof from, "%s/%s", samples, name);
  FILE *file = fopen(from, "r");
  text[fread(text, 1, sizeof text - 1, file)] = '\0';
  fclose(file);
  write_file(text);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static nvmlDevice_t device(unsigned int index) {
  nvmlDevice_t out = NULL;
  CHECK(nvmlDeviceGetHandleByIndex_v2(index, &out) == NVML_SUCCESS);
  return out;
}

static unsigned int temperature(unsigned int index) {
  unsigned int out = 0;
  CHECK(nvmlDeviceGetTemperature(device(index), 0, &out) == NVML_SUCCESS);
  return out;
}

static void nothing_works_before_init_and_after_shutdown(void) {
  unsigned int count;
  CHECK(nvmlDeviceGetCount_v2(&count) == NVML_ERROR_UNINITIALIZED);
  CHECK(nvmlShutdown() == NVML_ERROR_UNINITIALIZED);
  CHECK(strcmp(nvmlErrorString(NVML_ERROR_GPU_IS_LOST), "GPU_IS_LOST") == 0);
}

static void init_refuses_missing_and_malformed_files(void) {
  unlink(path);
  CHECK(nvmlInit_v2() == NVML_ERROR_DRIVER_NOT_LOADED);
  write_file("version: 1\ngpu 0: H900\n");
  CHECK(nvmlInit_v2() == NVML_ERROR_UNKNOWN);
  write_file("version: 1\nerror: nvmlInit=LIB_RM_VERSION_MISMATCH\n");
  CHECK(nvmlInit_v2() == 18);
  mkdir("scratch-directory", 0700);
  setenv("SIMULATED_NVML_FILE", "scratch-directory", 1);
  CHECK(nvmlInit_v2() == NVML_ERROR_OPERATING_SYSTEM);
  rmdir("scratch-directory");
  setenv("SIMULATED_NVML_FILE", path, 1);
}

static void a_healthy_node_shows_its_products(void) {
  copy_sample("8xH200.yaml");
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  unsigned int count = 0;
  CHECK(nvmlDeviceGetCount_v2(&count) == NVML_SUCCESS && count == 8);
  char text[96], uuid[96], other[96];
  CHECK(nvmlDeviceGetName(device(7), text, sizeof text) == NVML_SUCCESS && strcmp(text, "NVIDIA H200") == 0);
  CHECK(nvmlDeviceGetName(device(7), text, 5) == NVML_ERROR_INSUFFICIENT_SIZE);
  CHECK(nvmlDeviceGetUUID(device(0), uuid, sizeof uuid) == NVML_SUCCESS && strlen(uuid) == 40);
  CHECK(nvmlDeviceGetUUID(device(1), other, sizeof other) == NVML_SUCCESS && strcmp(uuid, other) != 0);
  nvmlDevice_t found;
  CHECK(nvmlDeviceGetHandleByUUID(uuid, &found) == NVML_SUCCESS && found == device(0));
  CHECK(nvmlDeviceGetHandleByUUID("GPU-0", &found) == NVML_ERROR_NOT_FOUND);
  CHECK(nvmlDeviceGetHandleByPciBusId_v2("0000:19:00.0", &found) == NVML_SUCCESS && found == device(0));
  CHECK(nvmlDeviceGetHandleByIndex_v2(8, &found) == NVML_ERROR_INVALID_ARGUMENT);
  nvmlMemory_v2_t memory = {.version = VERSION_OF(nvmlMemory_v2_t, 2)};
  CHECK(nvmlDeviceGetMemoryInfo_v2(device(0), &memory) == NVML_SUCCESS && memory.total == 143771ull << 20);
  CHECK(memory.total == memory.reserved + memory.used + memory.free);
  memory.version = 7;
  CHECK(nvmlDeviceGetMemoryInfo_v2(device(0), &memory) == NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
  nvmlPciInfo_t pci;
  CHECK(nvmlDeviceGetPciInfo_v3(device(1), &pci) == NVML_SUCCESS && pci.bus == 0x3B && strcmp(pci.busId, "00000000:3B:00.0") == 0);
  CHECK(nvmlDeviceGetTemperature(NULL, 0, &count) == NVML_ERROR_INVALID_ARGUMENT);
  CHECK(nvmlDeviceGetTemperature((nvmlDevice_t)&count, 0, &count) == NVML_ERROR_INVALID_ARGUMENT);
  CHECK(nvmlDeviceGetTemperature(device(0), 0, NULL) == NVML_ERROR_INVALID_ARGUMENT);
  CHECK(nvmlDeviceSetPersistenceMode(device(0), 1) == NVML_ERROR_NO_PERMISSION);
  CHECK(nvmlDeviceGetFanSpeed(device(0), &count) == NVML_ERROR_NOT_SUPPORTED);
  CHECK(nvmlShutdown() == NVML_SUCCESS);
}

static void changes_are_seen_at_the_next_call_and_bad_ones_keep_the_last_good_state(void) {
  write_file("version: 1\ngpu 0:\n  product: H200\n  temperature: 40\n");
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  CHECK(temperature(0) == 40);
  for (unsigned int degrees = 41; degrees < 90; degrees++) {
    char text[100];
    snprintf(text, sizeof text, "version: 1\ngpu 0:\n  product: H200\n  temperature: %u\n", degrees);
    FILE *file = fopen(path, "w"); /* in place: same inode, same size, within one tick of the clock */
    fputs(text, file);
    fclose(file);
    CHECK(temperature(0) == degrees);
  }
  write_file("version: 1\ngpu 0:\n  product: H200\n  temperature: 400\n");
  CHECK(temperature(0) == 89);
  write_file("");
  CHECK(temperature(0) == 89);
  unlink(path);
  CHECK(temperature(0) == 89);
  write_file("version: 1\ngpu 0:\n  product: H200\n  temperature: 50\n");
  CHECK(temperature(0) == 50);
  CHECK(nvmlShutdown() == NVML_SUCCESS);
}

static void faults_hit_what_they_name(void) {
  copy_sample("faults.yaml");
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  unsigned int number, other;
  CHECK(nvmlDeviceGetCount_v2(&number) == NVML_SUCCESS && number == 5); /* gpu 5 is absent */
  CHECK(nvmlDeviceGetTemperature(device(0), 0, &number) == NVML_ERROR_UNKNOWN);
  CHECK(nvmlDeviceGetPowerUsage(device(0), &number) == NVML_ERROR_NOT_SUPPORTED);
  CHECK(nvmlDeviceGetNumGpuCores(device(0), &number) == NVML_SUCCESS);
  nvmlDevice_t found;
  CHECK(nvmlDeviceGetHandleByIndex_v2(1, &found) == 16);
  nvmlUtilization_t rates;
  double begun = seconds();
  CHECK(nvmlDeviceGetUtilizationRates(device(2), &rates) == NVML_SUCCESS && seconds() - begun >= 0.24);
  unsigned int pending, failure;
  CHECK(nvmlDeviceGetRemappedRows(device(3), &number, &other, &pending, &failure) == NVML_SUCCESS && other == 512 && failure == 1);
  CHECK(nvmlDeviceGetNvLinkState(device(4), 3, &number) == NVML_SUCCESS && number == 0);
  CHECK(nvmlDeviceGetNvLinkState(device(4), 4, &number) == NVML_SUCCESS && number == 1);
  CHECK(nvmlDeviceGetNvLinkState(device(4), 18, &number) == NVML_ERROR_INVALID_ARGUMENT);
  CHECK(nvmlShutdown() == NVML_SUCCESS);
}

static void fields_answer_one_by_one(void) {
  copy_sample("lost-gpu.yaml");
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  nvmlFieldValue_t fields[] = {{.fieldId = 144}, {.fieldId = 82}, {.fieldId = 165, .scopeId = 17}, {.fieldId = 165, .scopeId = 18},
                               {.fieldId = 9999}, {.fieldId = 6}, {.fieldId = 194}, {.fieldId = 230}};
  CHECK(nvmlDeviceGetFieldValues(device(5), 8, fields) == NVML_SUCCESS);
  CHECK(fields[0].nvmlReturn == NVML_SUCCESS && fields[0].value.uiVal == 1 && fields[0].valueType == 1 && fields[0].timestamp > 0);
  CHECK(fields[1].nvmlReturn == NVML_SUCCESS && fields[1].value.uiVal == 38);
  CHECK(fields[2].nvmlReturn == NVML_SUCCESS && fields[2].value.uiVal == 1);
  CHECK(fields[3].nvmlReturn == NVML_ERROR_INVALID_ARGUMENT);
  CHECK(fields[4].nvmlReturn == NVML_ERROR_NOT_SUPPORTED);
  CHECK(fields[5].nvmlReturn == NVML_SUCCESS && fields[5].value.ullVal == 1 && fields[5].valueType == 3);
  CHECK(fields[6].nvmlReturn == NVML_SUCCESS && fields[6].value.siVal == -2);
  CHECK(fields[7].nvmlReturn == NVML_SUCCESS && fields[7].value.uiVal == 1);
  nvmlDevice_t found;
  CHECK(nvmlDeviceGetHandleByIndex_v2(3, &found) == NVML_ERROR_GPU_IS_LOST);
  CHECK(nvmlShutdown() == NVML_SUCCESS);
}

static void energy_and_throttle_times_grow(void) {
  write_file("version: 1\ngpu 0:\n  product: H200\n  power-watts: 700\n  throttle: hw-thermal\n");
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  unsigned long long before, after;
  nvmlViolationTime_t thermal, power;
  CHECK(nvmlDeviceGetTotalEnergyConsumption(device(0), &before) == NVML_SUCCESS);
  nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
  CHECK(nvmlDeviceGetTotalEnergyConsumption(device(0), &after) == NVML_SUCCESS);
  CHECK(after - before >= 69000 && after - before < 700000);
  CHECK(nvmlDeviceGetViolationStatus(device(0), 1, &thermal) == NVML_SUCCESS && thermal.violationTime >= 99000000);
  CHECK(nvmlDeviceGetViolationStatus(device(0), 0, &power) == NVML_SUCCESS && power.violationTime == 0);
  CHECK(nvmlShutdown() == NVML_SUCCESS);
}

static void events_tell_what_changed_since_registration(void) {
  write_file("version: 1\ngpu 0-1: H200\ngpu 0:\n  xid: 31\n");
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  nvmlEventSet_t set;
  nvmlEventData_t event;
  CHECK(nvmlEventSetCreate(&set) == NVML_SUCCESS);
  CHECK(nvmlDeviceRegisterEvents(device(0), 0xB, set) == NVML_SUCCESS);
  CHECK(nvmlDeviceRegisterEvents(device(1), 0xB, set) == NVML_SUCCESS);
  CHECK(nvmlDeviceRegisterEvents(device(1), 0x8000, set) == NVML_ERROR_NOT_SUPPORTED);
  double begun = seconds();
  CHECK(nvmlEventSetWait_v2(set, &event, 60) == NVML_ERROR_TIMEOUT && seconds() - begun >= 0.06);
  write_file("version: 1\ngpu 0-1: H200\ngpu 0:\n  xid: 31, 43, 31\ngpu 1:\n  ecc-volatile-dram-uncorrected: 1\n");
  CHECK(nvmlEventSetWait_v2(set, &event, 1000) == NVML_SUCCESS && event.eventType == 8 && event.eventData == 43);
  CHECK(event.device == device(0) && event.gpuInstanceId == 0xFFFFFFFF);
  CHECK(nvmlEventSetWait_v2(set, &event, 1000) == NVML_SUCCESS && event.eventType == 8 && event.eventData == 31);
  CHECK(nvmlEventSetWait_v2(set, &event, 1000) == NVML_SUCCESS && event.eventType == 2 && event.device == device(1));
  CHECK(nvmlEventSetWait_v2(set, &event, 0) == NVML_ERROR_TIMEOUT);
  write_file("version: 1\ngpu 0-1: H200\ngpu 0:\n  xid: 79\n  state: lost\n");
  CHECK(nvmlEventSetWait_v2(set, &event, 1000) == NVML_SUCCESS && event.eventData == 79);
  CHECK(nvmlEventSetWait_v2(set, &event, 1000) == NVML_ERROR_GPU_IS_LOST);
  CHECK(nvmlEventSetWait_v2(set, &event, 0) == NVML_ERROR_TIMEOUT);
  CHECK(nvmlEventSetFree(set) == NVML_SUCCESS);
  CHECK(nvmlEventSetFree(set) == NVML_ERROR_INVALID_ARGUMENT);
  CHECK(nvmlEventSetWait_v2(set, &event, 0) == NVML_ERROR_INVALID_ARGUMENT);
  CHECK(nvmlShutdown() == NVML_SUCCESS);
}

static void a_container_sees_only_the_gpus_it_was_given(void) {
  copy_sample("8xH200.yaml");
  char second[96], sixth[96], list[256], text[96];
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  CHECK(nvmlDeviceGetUUID(device(2), second, sizeof second) == NVML_SUCCESS);
  CHECK(nvmlDeviceGetUUID(device(6), sixth, sizeof sixth) == NVML_SUCCESS);
  CHECK(nvmlShutdown() == NVML_SUCCESS);
  snprintf(list, sizeof list, "%s,%s", sixth, second);
  setenv("NVIDIA_VISIBLE_DEVICES", list, 1);
  unsigned int count = 0;
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  CHECK(nvmlDeviceGetCount_v2(&count) == NVML_SUCCESS && count == 2);
  CHECK(nvmlDeviceGetUUID(device(0), text, sizeof text) == NVML_SUCCESS && strcmp(text, second) == 0);
  CHECK(nvmlDeviceGetUUID(device(1), text, sizeof text) == NVML_SUCCESS && strcmp(text, sixth) == 0);
  CHECK(nvmlDeviceGetIndex(device(1), &count) == NVML_SUCCESS && count == 1);
  CHECK(nvmlShutdown() == NVML_SUCCESS);
  setenv("NVIDIA_VISIBLE_DEVICES", "void", 1);
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  CHECK(nvmlDeviceGetCount_v2(&count) == NVML_SUCCESS && count == 0);
  CHECK(nvmlShutdown() == NVML_SUCCESS);
  unsetenv("NVIDIA_VISIBLE_DEVICES");
}

static void processes_need_room(void) {
  copy_sample("8xH100.yaml");
  CHECK(nvmlInit_v2() == NVML_SUCCESS);
  unsigned int count = 0;
  nvmlProcessInfo_t processes[8];
  CHECK(nvmlDeviceGetComputeRunningProcesses_v3(device(0), &count, NULL) == NVML_ERROR_INSUFFICIENT_SIZE && count == 2);
  count = 8;
  CHECK(nvmlDeviceGetComputeRunningProcesses_v3(device(0), &count, processes) == NVML_SUCCESS && count == 2);
  CHECK(processes[1].pid == 4102 && processes[1].usedGpuMemory == 36700ull << 20);
  count = 0;
  CHECK(nvmlDeviceGetComputeRunningProcesses_v3(device(7), &count, NULL) == NVML_SUCCESS && count == 0);
  CHECK(nvmlShutdown() == NVML_SUCCESS);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  samples = argv[1];
  snprintf(path, sizeof path, "%s/gpus.yaml", argv[2]);
  setenv("SIMULATED_NVML_FILE", path, 1);
  nothing_works_before_init_and_after_shutdown();
  init_refuses_missing_and_malformed_files();
  a_healthy_node_shows_its_products();
  changes_are_seen_at_the_next_call_and_bad_ones_keep_the_last_good_state();
  faults_hit_what_they_name();
  fields_answer_one_by_one();
  energy_and_throttle_times_grow();
  events_tell_what_changed_since_registration();
  a_container_sees_only_the_gpus_it_was_given();
  processes_need_room();
  nothing_works_before_init_and_after_shutdown();
  return FINISH("library_test");
}
