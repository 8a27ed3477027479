/*
 * ECC counts of one GPU by lifetime, kind and place.
 */
#ifndef SIMULATED_NVML_ECC_H
#define SIMULATED_NVML_ECC_H

#include "inventory.h"

enum ecc_lifetime { ECC_VOLATILE, ECC_AGGREGATE };
enum ecc_type { ECC_CORRECTED, ECC_UNCORRECTED };
enum ecc_memory { ECC_DRAM, ECC_SRAM, ECC_BOTH };

unsigned long long ecc_count(const struct gpu *gpu, enum ecc_lifetime lifetime, enum ecc_type type, enum ecc_memory memory);

#endif
