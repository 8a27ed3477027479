#include "products.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define KEY(scope, member, text, kind, low, high)
#define WORD(set, text, value)
#define RETURN(name, value)
#define FUNCTION(name)
#define PRODUCT(text, mib) PLACE_##mib,
enum product_memory {
#include "../format.def"
  PRODUCTS
};
#undef PRODUCT
#define PRODUCT(text, mib) [PLACE_##mib] = {.word = text, .memory_mib = mib, FACTS_##mib},
#define FACTS_81559                                                                                                  \
  .name = "NVIDIA H100 80GB HBM3", .board_part = "692-2G520-0200-000", .vbios = "96.00.74.00.01",                    \
  .inforom_image = "G520.0200.00.05", .pci_device = 0x233010DE, .pci_subsystem = 0x16C110DE, .reserved_mib = 551,    \
  .bar1_mib = 131072, .bus_width = 5120, .memory_clock_mhz = 2619, .idle_watts = 71
#define FACTS_143771                                                                                                 \
  .name = "NVIDIA H200", .board_part = "692-2G520-0280-001", .vbios = "96.00.BC.00.01",                              \
  .inforom_image = "G520.0280.00.03", .pci_device = 0x233510DE, .pci_subsystem = 0x18BE10DE, .reserved_mib = 606,    \
  .bar1_mib = 262144, .bus_width = 6144, .memory_clock_mhz = 3201, .idle_watts = 77
static const struct product products[PRODUCTS] = {
#include "../format.def"
};

/* Bus numbers of the eight GPUs of an HGX board; further boards are further PCI domains. */
static const unsigned int hgx_buses[8] = {0x19, 0x3B, 0x4C, 0x5D, 0x9B, 0xBB, 0xCB, 0xDB};

const struct product *product_of(const struct gpu *gpu) { return &products[gpu->product - 1]; }

unsigned int product_find(const char *word, size_t length) {
  for (unsigned int i = 0; i < PRODUCTS; i++)
    if (strlen(products[i].word) == length && memcmp(products[i].word, word, length) == 0) return i + 1;
  return 0;
}

void product_defaults(struct gpu *gpu, unsigned int product, unsigned int index) {
  const struct product *p = &products[product - 1];
  gpu->product = product;
  strcpy(gpu->vbios, p->vbios);
  gpu->numa = index % 8 / 4;
  gpu->persistence = 1;
  gpu->ecc = 1;
  gpu->temperature = 32;
  gpu->memory_temperature = 38;
  gpu->power_watts = p->idle_watts;
  gpu->power_limit_watts = POWER_LIMIT_MAX_WATTS;
  gpu->sm_clock_mhz = IDLE_SM_CLOCK_MHZ;
  gpu->memory_clock_mhz = p->memory_clock_mhz;
  gpu->throttle = 1; /* gpu-idle */
  gpu->fabric = 3;   /* completed */
  gpu->pcie_generation = 5;
  gpu->pcie_width = 16;
}

/* FNV-1a over "simulated-gpu/NODE/INDEX/SALT", then the 64-bit finaliser of MurmurHash3. The device plugin computes the same. */
static uint64_t identity_hash(const char *node, unsigned int index, char salt) {
  char text[128];
  snprintf(text, sizeof text, "simulated-gpu/%s/%u/%c", node, index, salt);
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char *c = text; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdu;
  hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53u;
  return hash ^ (hash >> 33);
}

void identity_defaults(struct gpu *gpu, const char *node, unsigned int index) {
  if (!gpu->uuid[0]) {
    uint64_t high = identity_hash(node, index, 'a'), low = identity_hash(node, index, 'b');
    snprintf(gpu->uuid, sizeof gpu->uuid, "GPU-%08x-%04x-%04x-%04x-%012llx", (unsigned)(high >> 32),
             (unsigned)(high >> 16) & 0xffff, (unsigned)high & 0xffff, (unsigned)(low >> 48),
             (unsigned long long)low & 0xffffffffffffu);
  }
  if (!gpu->serial[0])
    snprintf(gpu->serial, sizeof gpu->serial, "165%010llu",
             (unsigned long long)identity_hash(node, index, 's') % 10000000000u);
  if (!gpu->pci_bus_id[0])
    snprintf(gpu->pci_bus_id, sizeof gpu->pci_bus_id, "%08X:%02X:00.0", index / 8, hgx_buses[index % 8]);
}
