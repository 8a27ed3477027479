/*
 * The parser: samples are read, every malformed file is refused with the line and reason that its first line names,
 * and no prefix or corruption of any of them does harm. Usage: parse_test SAMPLES_DIR MALFORMED_DIR
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "../src/inventory.h"
#include "check.h"

static struct inventory inventory;
static struct parse_error error;

static char *read_whole(const char *dir, const char *name, size_t *length) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  char *text = malloc(MAX_FILE_BYTES + 1);
  *length = fread(text, 1, MAX_FILE_BYTES + 1, file);
  fclose(file);
  return text;
}

static void parse_text(const char *text, bool expected) {
  bool ok = inventory_parse(text, strlen(text), "host", &inventory, &error);
  if (ok != expected) fprintf(stderr, "line %u: %s\nof\n%s\n", error.line, error.reason, text);
  CHECK(ok == expected);
}

/* An exact-size heap copy, so that a sanitizer sees a read past the end. */
static void parse_copy(const char *text, size_t length) {
  char *copy = malloc(length ? length : 1);
  memcpy(copy, text, length);
  (void)inventory_parse(copy, length, "host", &inventory, &error);
  free(copy);
}

static void survives_prefixes_and_corruptions(const char *text, size_t length) {
  if (length > 1500) return;
  for (size_t cut = 0; cut <= length; cut++) parse_copy(text, cut);
  static const char odd[] = {'\0', '\t', ' ', ':', '#', '"', '-', ',', '=', '9', '\n', '\x80'};
  char *copy = malloc(length ? length : 1);
  for (size_t at = 0; at < length; at++) {
    memcpy(copy, text, length);
    copy[at] = odd[at % sizeof odd];
    parse_copy(copy, length);
  }
  free(copy);
}

static int samples_are_accepted(const char *dir) {
  int count = 0;
  DIR *handle = opendir(dir);
  for (struct dirent *entry; handle && (entry = readdir(handle));) {
    if (entry->d_name[0] == '.') continue;
    size_t length;
    char *text = read_whole(dir, entry->d_name, &length);
    bool ok = text && inventory_parse(text, length, "host", &inventory, &error);
    if (!ok) fprintf(stderr, "%s:%u: %s\n", entry->d_name, error.line, error.reason);
    CHECK(ok);
    if (text) survives_prefixes_and_corruptions(text, length);
    free(text);
    count++;
  }
  if (handle) closedir(handle);
  return count;
}

static int malformed_files_are_refused(const char *dir) {
  int count = 0;
  DIR *handle = opendir(dir);
  for (struct dirent *entry; handle && (entry = readdir(handle));) {
    if (entry->d_name[0] == '.') continue;
    size_t length;
    char *text = read_whole(dir, entry->d_name, &length), expected[256], found[256];
    const char *end = text ? memchr(text, '\n', length) : NULL;
    CHECK(end && text[0] == '#');
    snprintf(expected, sizeof expected, "%.*s", end ? (int)(end - text - 2) : 0, text ? text + 2 : "");
    bool ok = inventory_parse(text, length, "host", &inventory, &error);
    snprintf(found, sizeof found, "line %u: %s", error.line, error.reason);
    if (ok || strcmp(found, expected) != 0)
      fprintf(stderr, "%s: expected \"%s\", found \"%s\"\n", entry->d_name, expected, ok ? "no error" : found);
    CHECK(!ok && strcmp(found, expected) == 0);
    survives_prefixes_and_corruptions(text, length);
    free(text);
    count++;
  }
  if (handle) closedir(handle);
  return count;
}

static void later_lines_win_and_order_inside_a_section_does_not_matter(void) {
  parse_text("version: 1\ngpu 0-3: H200\ngpu 1:\n  temperature: 80\n  product: H100\n", true);
  CHECK(strcmp(inventory.node, "host") == 0);
  CHECK(inventory.gpus[1].temperature == 80 && inventory.gpus[1].product == 1);
  CHECK(inventory.gpus[0].temperature == 32 && inventory.gpus[0].product == 2);
  CHECK(inventory.gpus[3].product == 2 && inventory.gpus[4].product == 0);
}

static void identities_are_stable_and_differ_by_node_and_index(void) {
  parse_text("version: 1\nnode: n1\ngpu 0-1: H200\n", true);
  char first[MAX_TEXT], second[MAX_TEXT];
  strcpy(first, inventory.gpus[0].uuid);
  strcpy(second, inventory.gpus[1].uuid);
  CHECK(strcmp(first, second) != 0);
  CHECK(strcmp(first, "GPU-5dba76b3-2ea8-42ec-4d35-20495d327952") == 0);
  parse_text("version: 1\nnode: n1\ngpu 0: H100\n", true);
  CHECK(strcmp(first, inventory.gpus[0].uuid) == 0);
  parse_text("version: 1\nnode: n2\ngpu 0: H200\n", true);
  CHECK(strcmp(first, inventory.gpus[0].uuid) != 0);
}

static void yaml_forms_are_understood(void) {
  parse_text("# c\r\n\r\nversion: 1 # one\r\ndriver: '1.2' # q\r\ngpu 0: # a section\r\n    product: \"H200\"\r\n    xid: 31 , 43\r\n", true);
  CHECK(strcmp(inventory.driver, "1.2") == 0);
  CHECK(inventory.gpus[0].xids.count == 2 && inventory.gpus[0].xids.code[1] == 43);
  parse_text("version: 1", true);
  parse_text("version: 1\ngpu 0: H200\ngpu 0-0:\n  throttle: none\n  xid: none\n  error: none\n  hang: 5\n", true);
  CHECK(inventory.gpus[0].throttle == 0 && inventory.gpus[0].hangs.millis[FUNCTIONS] == 5);
  parse_text("version: 1\ngpu 0:\n  product: H200\n  error: nvmlDeviceGetMemoryInfo_v2=NO_DATA, TIMEOUT\n", true);
  CHECK(inventory.gpus[0].errors.code[FN_nvmlDeviceGetMemoryInfo] == 21 && inventory.gpus[0].errors.code[FUNCTIONS] == 10);
}

static void empty_and_oversized_files_are_refused(void) {
  parse_text("", false);
  CHECK(error.line == 1 && strcmp(error.reason, "the file must say \"version: 1\"") == 0);
  char *big = malloc(MAX_FILE_BYTES + 1);
  memset(big, '\n', MAX_FILE_BYTES + 1);
  CHECK(!inventory_parse(big, MAX_FILE_BYTES + 1, "host", &inventory, &error));
  CHECK(strcmp(error.reason, "the file is too large") == 0);
  memcpy(big, "version: 1", 10);
  CHECK(inventory_parse(big, MAX_FILE_BYTES, "host", &inventory, &error));
  free(big);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  CHECK(samples_are_accepted(argv[1]) >= 5);
  CHECK(malformed_files_are_refused(argv[2]) >= 50);
  later_lines_win_and_order_inside_a_section_does_not_matter();
  identities_are_stable_and_differ_by_node_and_index();
  yaml_forms_are_understood();
  empty_and_oversized_files_are_refused();
  return FINISH("parse_test");
}
