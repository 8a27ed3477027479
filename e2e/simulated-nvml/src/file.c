#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inventory.h"

/* Longer than the tick of any kernel's file clock. */
static const long SETTLED_NANOSECONDS = 50000000;

const char *file_path(void) {
  const char *path = getenv("SIMULATED_NVML_FILE");
  return path && path[0] ? path : "/etc/simulated-nvml/gpus.yaml";
}

struct file_identity file_identify(const char *path) {
  struct stat status;
  if (stat(path, &status) != 0) return (struct file_identity){.exists = false, .settled = true};
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  long age = now.tv_sec - status.st_ctim.tv_sec > 1 || now.tv_sec < status.st_ctim.tv_sec
                 ? SETTLED_NANOSECONDS
                 : (now.tv_sec - status.st_ctim.tv_sec) * 1000000000 + now.tv_nsec - status.st_ctim.tv_nsec;
  return (struct file_identity){.exists = true,
                                .settled = age >= SETTLED_NANOSECONDS,
                                .device = status.st_dev,
                                .inode = status.st_ino,
                                .size = status.st_size,
                                .modified = status.st_mtim,
                                .changed = status.st_ctim};
}

static bool same_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

bool file_same(const struct file_identity *a, const struct file_identity *b) {
  return a->exists == b->exists && a->device == b->device && a->inode == b->inode && a->size == b->size &&
         same_time(a->modified, b->modified) && same_time(a->changed, b->changed);
}

char *file_read(const char *path, size_t *length) {
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return NULL;
  char *text = malloc(MAX_FILE_BYTES + 1);
  *length = 0;
  ssize_t got = text ? 1 : -1;
  while (got > 0 && *length <= MAX_FILE_BYTES) {
    got = read(file, text + *length, MAX_FILE_BYTES + 1 - *length);
    if (got < 0 && errno == EINTR) got = 1;
    else if (got > 0) *length += (size_t)got;
    else if (got < 0) {
      int reason = errno;
      free(text);
      text = NULL;
      errno = reason;
    }
  }
  int reason = errno;
  close(file);
  errno = reason;
  return text;
}
