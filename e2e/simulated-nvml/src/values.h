/*
 * One value of a GPU file: text in, member of the inventory or reason out. Pure.
 */
#ifndef SIMULATED_NVML_VALUES_H
#define SIMULATED_NVML_VALUES_H

#include "inventory.h"

struct span {
  const char *text;
  size_t length;
};

enum scope { SCOPE_FILE, SCOPE_GPU };

struct key {
  enum scope scope;
  const char *text;
  bool (*read)(const struct key *key, struct span value, void *member, char reason[160]);
  size_t offset; /* into struct inventory or struct gpu */
  unsigned long long low;
  unsigned long long high;
  const char *set; /* name of its words */
};

extern const struct key keys[];
extern const unsigned int key_count;

const struct key *key_find(enum scope scope, struct span text);
bool span_is(struct span span, const char *text);

#endif
