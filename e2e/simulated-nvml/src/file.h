/*
 * Reads the GPU file when it changed. Knows files, not GPUs.
 */
#ifndef SIMULATED_NVML_FILE_H
#define SIMULATED_NVML_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

struct file_identity {
  bool exists;
  bool settled; /* old enough that a later write in the same clock tick cannot hide behind an equal time */
  dev_t device;
  ino_t inode;
  off_t size;
  struct timespec modified, changed;
};

const char *file_path(void);
struct file_identity file_identify(const char *path);
bool file_same(const struct file_identity *a, const struct file_identity *b);
/* The text, to be freed; NULL with errno set. Never more than MAX_FILE_BYTES + 1 bytes. */
char *file_read(const char *path, size_t *length);

#endif
