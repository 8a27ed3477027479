/*
 * CHECK says which expectation failed, where, and goes on; the program's exit status says whether any did.
 */
#ifndef SIMULATED_NVML_CHECK_H
#define SIMULATED_NVML_CHECK_H

#include <stdio.h>

static int failures;

#define CHECK(condition)                                                                                             \
  do {                                                                                                               \
    if (!(condition)) {                                                                                              \
      __atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);                                                            \
      fprintf(stderr, "%s:%d: in %s: not so: %s\n", __FILE__, __LINE__, __func__, #condition);                       \
    }                                                                                                                \
  } while (0)

#define FINISH(name) (printf("%s: %s\n", name, failures ? "FAILED" : "ok"), failures ? 1 : 0)

#endif
