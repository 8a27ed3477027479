#include "values.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "products.h"

#define KEY(scope, member, text, kind, low, high)
#define PRODUCT(text, mib)
#define RETURN(name, value)
#define FUNCTION(name)
#define WORD(set, text, value) {#set, text, value},
static const struct word {
  const char *set;
  const char *text;
  unsigned long long value;
} words[] = {
#include "../format.def"
};
#undef WORD
#undef RETURN
#undef FUNCTION
#define WORD(set, text, value)
#define RETURN(name, value) {#name, value},
#define FUNCTION(name)
static const struct {
  const char *name;
  unsigned short value;
} returns[] = {
#include "../format.def"
};
#undef RETURN
#undef FUNCTION
#define RETURN(name, value)
#define FUNCTION(name) #name,
static const char *const functions[] = {
#include "../format.def"
};
#undef FUNCTION
#undef KEY
#define FUNCTION(name)

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool fail(char reason[160], const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, 160, format, arguments);
  va_end(arguments);
  return false;
}

bool span_is(struct span span, const char *text) {
  return strlen(text) == span.length && memcmp(text, span.text, span.length) == 0;
}

/* Decimal digits only, no sign, no leading zero, at most 15 of them. */
static bool read_number(struct span value, unsigned long long *out) {
  if (value.length == 0 || value.length > 15 || (value.length > 1 && value.text[0] == '0')) return false;
  *out = 0;
  for (size_t i = 0; i < value.length; i++) {
    if (value.text[i] < '0' || value.text[i] > '9') return false;
    *out = *out * 10 + (unsigned long long)(value.text[i] - '0');
  }
  return true;
}

static struct span trim(struct span span) {
  while (span.length > 0 && span.text[0] == ' ') span.text++, span.length--;
  while (span.length > 0 && span.text[span.length - 1] == ' ') span.length--;
  return span;
}

/* Takes the part before the next comma off *rest; false when nothing is left. "none" is the empty list. */
static bool next_item(struct span *rest, struct span *item) {
  if (!rest->text) return false;
  const char *comma = memchr(rest->text, ',', rest->length);
  size_t length = comma ? (size_t)(comma - rest->text) : rest->length;
  *item = trim((struct span){rest->text, length});
  *rest = comma ? (struct span){comma + 1, rest->length - length - 1} : (struct span){NULL, 0};
  return true;
}

static bool split(struct span item, char at, struct span *left, struct span *right) {
  const char *found = memchr(item.text, at, item.length);
  if (!found) return false;
  *left = trim((struct span){item.text, (size_t)(found - item.text)});
  *right = trim((struct span){found + 1, item.length - (size_t)(found - item.text) - 1});
  return true;
}

static bool read_INT(const struct key *key, struct span value, void *member, char reason[160]) {
  unsigned long long number;
  if (!read_number(value, &number) || number < key->low || number > key->high)
    return fail(reason, "\"%s\" must be a whole number between %llu and %llu", key->text, key->low, key->high);
  *(unsigned long long *)member = number;
  return true;
}

/* Its limit depends on the product: checked when the whole file is known. */
static bool read_MEMORY(const struct key *key, struct span value, void *member, char reason[160]) {
  return read_INT(key, value, member, reason);
}

static bool read_FLAG(const struct key *key, struct span value, void *member, char reason[160]) {
  bool yes = span_is(value, "true");
  if (!yes && !span_is(value, "false")) return fail(reason, "\"%s\" must be true or false", key->text);
  *(unsigned long long *)member = yes;
  return true;
}

static bool read_PRODUCT(const struct key *key, struct span value, void *member, char reason[160]) {
  unsigned int product = product_find(value.text, value.length);
  if (!product) return fail(reason, "unknown product \"%.*s\"", (int)(value.length < 60 ? value.length : 60), value.text);
  *(unsigned long long *)member = product;
  (void)key;
  return true;
}

static bool find_word(const struct key *key, struct span value, unsigned long long *out, char reason[160]) {
  for (size_t i = 0; i < COUNT(words); i++)
    if (strcmp(words[i].set, key->set) == 0 && span_is(value, words[i].text)) {
      *out = words[i].value;
      return true;
    }
  return fail(reason, "\"%s\" has no word \"%.*s\"", key->text, (int)(value.length < 60 ? value.length : 60), value.text);
}

static bool read_WORD(const struct key *key, struct span value, void *member, char reason[160]) {
  return find_word(key, value, member, reason);
}

static bool read_REASONS(const struct key *key, struct span value, void *member, char reason[160]) {
  unsigned long long mask = 0, bit;
  struct span item;
  if (!span_is(value, "none"))
    while (next_item(&value, &item)) {
      if (!find_word(key, item, &bit, reason)) return false;
      mask |= bit;
    }
  *(unsigned long long *)member = mask;
  return true;
}

static bool read_LINKS(const struct key *key, struct span value, void *member, char reason[160]) {
  unsigned long long mask = 0, link;
  struct span item;
  if (!span_is(value, "none"))
    while (next_item(&value, &item)) {
      if (!read_INT(key, item, &link, reason)) return false;
      mask |= 1ull << link;
    }
  *(unsigned long long *)member = mask;
  return true;
}

static bool read_TEXT(const struct key *key, struct span value, void *member, char reason[160]) {
  if (value.length < key->low || value.length > key->high)
    return fail(reason, "\"%s\" must have %llu to %llu characters", key->text, key->low, key->high);
  memset(member, 0, MAX_TEXT);
  memcpy(member, value.text, value.length);
  return true;
}

/* `shape`: 'x' stands for a lower-case hex digit, 'X' for an upper-case one, anything else for itself. */
static bool has_shape(struct span value, const char *shape) {
  if (value.length != strlen(shape)) return false;
  for (size_t i = 0; i < value.length; i++) {
    char c = value.text[i];
    bool digit = c >= '0' && c <= '9';
    if (shape[i] == 'x' ? !digit && !(c >= 'a' && c <= 'f')
        : shape[i] == 'X' ? !digit && !(c >= 'A' && c <= 'F')
                          : c != shape[i])
      return false;
  }
  return true;
}

static bool read_UUID(const struct key *key, struct span value, void *member, char reason[160]) {
  if (!has_shape(value, "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"))
    return fail(reason, "\"%s\" must look like GPU-01234567-89ab-cdef-0123-456789abcdef", key->text);
  return read_TEXT(key, value, member, reason);
}

static bool read_PCI(const struct key *key, struct span value, void *member, char reason[160]) {
  if (!has_shape(value, "XXXXXXXX:XX:00.0"))
    return fail(reason, "\"%s\" must look like 00000000:1B:00.0", key->text);
  return read_TEXT(key, value, member, reason);
}

static bool read_XIDS(const struct key *key, struct span value, void *member, char reason[160]) {
  xids log = {0};
  struct span item;
  unsigned long long code;
  if (!span_is(value, "none"))
    while (next_item(&value, &item)) {
      if (log.count == MAX_XIDS) return fail(reason, "\"%s\" has more than %d entries", key->text, MAX_XIDS);
      if (!read_INT(key, item, &code, reason)) return false;
      log.code[log.count++] = (unsigned short)code;
    }
  *(xids *)member = log;
  return true;
}

static bool read_PROCESSES(const struct key *key, struct span value, void *member, char reason[160]) {
  processes running = {0};
  struct span item, pid_text, mib_text;
  unsigned long long pid, mib;
  if (!span_is(value, "none"))
    while (next_item(&value, &item)) {
      if (running.count == MAX_PROCESSES) return fail(reason, "\"%s\" has more than %d entries", key->text, MAX_PROCESSES);
      if (!split(item, '=', &pid_text, &mib_text) || !read_number(pid_text, &pid) || pid == 0 || pid > 4194304 ||
          !read_number(mib_text, &mib) || mib < key->low || mib > key->high)
        return fail(reason, "\"%s\" must be PID=MIB, PID=MIB, ...", key->text);
      running.list[running.count++] = (process){(unsigned int)pid, (unsigned int)mib};
    }
  *(processes *)member = running;
  return true;
}

/* Finds the function that an "error" or "hang" names, whatever version suffix it carries. */
static bool find_function(struct span name, unsigned int *out, char reason[160]) {
  struct span base = name;
  if (base.length > 3 && base.text[base.length - 3] == '_' && base.text[base.length - 2] == 'v') base.length -= 3;
  for (unsigned int i = 0; i < FUNCTIONS; i++)
    if (span_is(base, functions[i])) {
      *out = i;
      return true;
    }
  return fail(reason, "unknown function \"%.*s\"", (int)(name.length < 60 ? name.length : 60), name.text);
}

static bool read_ERRORS(const struct key *key, struct span value, void *member, char reason[160]) {
  errors faults = {0};
  struct span item, name, code;
  unsigned int function;
  (void)key;
  if (!span_is(value, "none"))
    while (next_item(&value, &item)) {
      if (!split(item, '=', &name, &code)) {
        function = FUNCTIONS;
        code = item;
      } else if (!find_function(name, &function, reason)) {
        return false;
      }
      size_t i = 0;
      while (i < COUNT(returns) && !span_is(code, returns[i].name)) i++;
      if (i == COUNT(returns))
        return fail(reason, "unknown error \"%.*s\"", (int)(code.length < 60 ? code.length : 60), code.text);
      faults.code[function] = returns[i].value;
    }
  *(errors *)member = faults;
  return true;
}

static bool read_HANGS(const struct key *key, struct span value, void *member, char reason[160]) {
  hangs faults = {0};
  struct span item, name, millis_text;
  unsigned int function;
  unsigned long long millis;
  if (!span_is(value, "none"))
    while (next_item(&value, &item)) {
      if (!split(item, '=', &name, &millis_text)) {
        function = FUNCTIONS;
        millis_text = item;
      } else if (!find_function(name, &function, reason)) {
        return false;
      }
      if (!read_INT(key, millis_text, &millis, reason)) return false;
      faults.millis[function] = (unsigned int)millis;
    }
  *(hangs *)member = faults;
  return true;
}

#undef WORD
#undef RETURN
#define WORD(set, text, value)
#define RETURN(name, value)
#define OFFSET_FILE(member) offsetof(struct inventory, member)
#define OFFSET_GPU(member) offsetof(struct gpu, member)
#define KEY(scope, member, text, kind, low, high) {SCOPE_##scope, text, read_##kind, OFFSET_##scope(member), low, high, #member},
const struct key keys[] = {
#include "../format.def"
};
const unsigned int key_count = COUNT(keys);

const struct key *key_find(enum scope scope, struct span text) {
  for (size_t i = 0; i < COUNT(keys); i++)
    if (keys[i].scope == scope && span_is(text, keys[i].text)) return &keys[i];
  return NULL;
}
_Static_assert(COUNT(keys) <= 64, "inventory.c keeps the keys it has seen in the bits of one word");
