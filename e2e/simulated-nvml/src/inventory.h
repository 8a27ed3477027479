/*
 * What a GPU file says: the parsed value and the function that parses it. Pure: text in, value or reason out; no files, clock or environment.
 */
#ifndef SIMULATED_NVML_INVENTORY_H
#define SIMULATED_NVML_INVENTORY_H

#include <stdbool.h>
#include <stddef.h>

enum {
  MAX_GPUS = 64,
  MAX_FILE_BYTES = 262144,
  MAX_LINE_BYTES = 1000,
  MAX_ASSIGNMENTS = 4096,
  MAX_TEXT = 64,
  MAX_XIDS = 64,
  MAX_PROCESSES = 32,
  NVLINKS = 18
};

enum function {
#define KEY(scope, member, text, kind, low, high)
#define WORD(set, text, value)
#define PRODUCT(text, mib)
#define RETURN(name, value)
#define FUNCTION(name) FN_##name,
#include "../format.def"
#undef FUNCTION
  FUNCTIONS
};

enum state { STATE_OK, STATE_LOST, STATE_ABSENT };

/* Indexed by function; 0 = no fault. The last entry holds for every function of the scope. */
typedef struct { unsigned short code[FUNCTIONS + 1]; } errors;
typedef struct { unsigned int millis[FUNCTIONS + 1]; } hangs;
typedef struct { unsigned int count; unsigned short code[MAX_XIDS]; } xids;
typedef struct { unsigned int pid; unsigned int mib; } process;
typedef struct { unsigned int count; process list[MAX_PROCESSES]; } processes;

typedef unsigned long long type_INT;
typedef unsigned long long type_FLAG;
typedef unsigned long long type_WORD;
typedef unsigned long long type_PRODUCT; /* 1 + place in the product table; 0 = there is no such GPU */
typedef unsigned long long type_MEMORY;
typedef unsigned long long type_REASONS;
typedef unsigned long long type_LINKS;
typedef char type_TEXT[MAX_TEXT];
typedef char type_UUID[MAX_TEXT];
typedef char type_PCI[MAX_TEXT];
typedef xids type_XIDS;
typedef processes type_PROCESSES;
typedef errors type_ERRORS;
typedef hangs type_HANGS;

#define FUNCTION(name)
#undef KEY
#define KEY(scope, member, text, kind, low, high) MEMBER_##scope(type_##kind member;)

struct gpu {
#define MEMBER_GPU(declaration) declaration
#define MEMBER_FILE(declaration)
#include "../format.def"
#undef MEMBER_GPU
#undef MEMBER_FILE
};

struct inventory {
#define MEMBER_GPU(declaration)
#define MEMBER_FILE(declaration) declaration
#include "../format.def"
#undef MEMBER_GPU
#undef MEMBER_FILE
  unsigned int references; /* kept by state.c */
  struct gpu gpus[MAX_GPUS];
};

#undef KEY
#undef WORD
#undef PRODUCT
#undef RETURN
#undef FUNCTION

struct parse_error {
  unsigned int line;
  char reason[160];
};

/* Fills *out, with `host` in place of a missing `node`. On failure says why in *error; *out then means nothing. */
bool inventory_parse(const char *text, size_t length, const char *host, struct inventory *out, struct parse_error *error);

#endif
