/*
 * What a product is (never changes) and what a healthy idle one of it shows (what a GPU file may change).
 */
#ifndef SIMULATED_NVML_PRODUCTS_H
#define SIMULATED_NVML_PRODUCTS_H

#include "inventory.h"

struct product {
  const char *word;
  const char *name;
  const char *board_part;
  const char *vbios;
  const char *inforom_image;
  unsigned int pci_device;
  unsigned int pci_subsystem;
  unsigned int memory_mib;
  unsigned int reserved_mib;
  unsigned int bar1_mib;
  unsigned int bus_width;
  unsigned int memory_clock_mhz;
  unsigned int idle_watts;
};

enum {
  MAX_SM_CLOCK_MHZ = 1980,
  IDLE_SM_CLOCK_MHZ = 345,
  VIDEO_CLOCK_MHZ = 1545,
  POWER_LIMIT_MIN_WATTS = 200,
  POWER_LIMIT_MAX_WATTS = 700,
  SHUTDOWN_CELSIUS = 95,
  SLOWDOWN_CELSIUS = 89,
  GPU_MAX_CELSIUS = 87,
  MEMORY_MAX_CELSIUS = 95,
  REMAP_BANKS = 2560,
  CUDA_CORES = 16896
};

const struct product *product_of(const struct gpu *gpu);
/* 1 + place of a product by its word, 0 if there is none. */
unsigned int product_find(const char *word, size_t length);
void product_defaults(struct gpu *gpu, unsigned int product, unsigned int index);
/* Identity that the file did not give: stable, and different for every node and index. */
void identity_defaults(struct gpu *gpu, const char *node, unsigned int index);

#endif
