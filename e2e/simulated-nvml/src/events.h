/*
 * Event sets: who listens to what, and what has happened. Every function is called with the state's lock held.
 */
#ifndef SIMULATED_NVML_EVENTS_H
#define SIMULATED_NVML_EVENTS_H

#include "abi.h"
#include "inventory.h"

nvmlReturn_t events_create(nvmlEventSet_t *set);
nvmlReturn_t events_free(nvmlEventSet_t set);
nvmlReturn_t events_register(nvmlEventSet_t set, unsigned int place, unsigned long long types);
/* NVML_ERROR_TIMEOUT: nothing has happened yet. NVML_ERROR_GPU_IS_LOST: said once per GPU that was lost. */
nvmlReturn_t events_take(nvmlEventSet_t set, nvmlEventData_t *data);
/* Queues what changed between two readings of the file. */
void events_compare(const struct inventory *before, const struct inventory *now);
void events_free_all(void);

#endif
