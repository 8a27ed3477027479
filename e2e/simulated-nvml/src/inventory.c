#include "inventory.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "products.h"
#include "values.h"

/* A key with its value, found in a first pass; applied in a second one, so that the order of lines in a section does not matter. */
struct assignment {
  unsigned int line;
  unsigned int from, to; /* GPUs */
  const struct key *key;
  struct span value;
};

struct section {
  bool open;   /* its lines may follow */
  bool single; /* "gpu 1" and "gpu 1-1" are different keys to YAML */
  unsigned int from, to;
  unsigned int indent; /* 0 until its first line */
  uint64_t given;      /* keys seen */
};

struct parse {
  struct inventory *out;
  struct parse_error *error;
  unsigned int line;
  uint64_t given; /* keys of the file seen */
  struct section section;
  unsigned int section_count, count;
  struct section sections[MAX_GPUS * 2];
  struct assignment assignments[MAX_ASSIGNMENTS];
};

static bool fail(struct parse *parse, const char *reason, struct span what) {
  parse->error->line = parse->line;
  if (what.text)
    snprintf(parse->error->reason, sizeof parse->error->reason, reason, (int)(what.length < 60 ? what.length : 60), what.text);
  else
    snprintf(parse->error->reason, sizeof parse->error->reason, "%s", reason);
  return false;
}

static const struct span nothing = {NULL, 0};

/* For reasons that name no text of the file. */
#define REFUSE(parse, ...) (snprintf((parse)->error->reason, sizeof (parse)->error->reason, __VA_ARGS__), false)

/* Plain, "double" or 'single' quoted scalar up to an optional comment: the part of YAML that both languages read alike. */
static bool read_scalar(struct parse *parse, struct span rest, struct span *value) {
  while (rest.length > 0 && rest.text[0] == ' ') rest.text++, rest.length--;
  if (rest.length > 0 && (rest.text[0] == '"' || rest.text[0] == '\'')) {
    const char *end = memchr(rest.text + 1, rest.text[0], rest.length - 1);
    if (!end) return fail(parse, "a quote is not closed", nothing);
    *value = (struct span){rest.text + 1, (size_t)(end - rest.text) - 1};
    if (memchr(value->text, '\\', value->length)) return fail(parse, "a quoted value may not contain \\", nothing);
    const char *after = end + 1, *stop = rest.text + rest.length;
    while (after < stop && *after == ' ') after++;
    if (after < stop && (*after != '#' || after == end + 1)) return fail(parse, "text after a closing quote", nothing);
    return true;
  }
  size_t length = 0;
  while (length < rest.length && !(rest.text[length] == '#' && (length == 0 || rest.text[length - 1] == ' '))) length++;
  while (length > 0 && rest.text[length - 1] == ' ') length--;
  *value = (struct span){rest.text, length};
  char first = length ? rest.text[0] : 'a';
  if (!((first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z') || (first >= '0' && first <= '9') || first == '/'))
    return fail(parse, "a value that begins with a sign must be quoted", nothing);
  for (size_t i = 0; i < length; i++)
    if (rest.text[i] == ':' && (i + 1 == length || rest.text[i + 1] == ' '))
      return fail(parse, "a value with a colon must be quoted", nothing);
  return true;
}

static bool read_index(struct span text, unsigned int *out) {
  if (text.length == 0 || text.length > 2 || (text.length == 2 && text.text[0] == '0')) return false;
  *out = 0;
  for (size_t i = 0; i < text.length; i++) {
    if (text.text[i] < '0' || text.text[i] > '9') return false;
    *out = *out * 10 + (unsigned int)(text.text[i] - '0');
  }
  return *out < MAX_GPUS;
}

/* "gpu 3" or "gpu 0-7". */
static bool read_header(struct parse *parse, struct span name, struct section *section) {
  struct span from = {name.text + 4, name.length - 4}, to = from;
  const char *dash = memchr(from.text, '-', from.length);
  if (dash) {
    to = (struct span){dash + 1, from.length - (size_t)(dash - from.text) - 1};
    from.length = (size_t)(dash - from.text);
  }
  *section = (struct section){.open = true, .single = !dash};
  if (!read_index(from, &section->from) || !read_index(to, &section->to) || section->from > section->to)
    return fail(parse, "a section is \"gpu N\" or \"gpu FIRST-LAST\" with numbers below 64, not \"%.*s\"", name);
  for (unsigned int i = 0; i < parse->section_count; i++)
    if (parse->sections[i].from == section->from && parse->sections[i].to == section->to &&
        parse->sections[i].single == section->single)
      return fail(parse, "\"%.*s\" is given twice", name);
  if (parse->section_count == sizeof parse->sections / sizeof parse->sections[0])
    return fail(parse, "the file has too many sections", nothing);
  parse->sections[parse->section_count++] = *section;
  return true;
}

static bool assign(struct parse *parse, const struct key *key, struct span value) {
  if (parse->count == MAX_ASSIGNMENTS) return fail(parse, "the file has too many lines", nothing);
  parse->assignments[parse->count++] =
      (struct assignment){parse->line, parse->section.from, parse->section.to, key, value};
  return true;
}

static bool read_file_line(struct parse *parse, struct span name, struct span value) {
  parse->section = (struct section){0};
  if (name.length > 4 && memcmp(name.text, "gpu ", 4) == 0) {
    struct section section;
    if (!read_header(parse, name, &section)) return false;
    parse->section = section;
    if (value.length == 0) return true;
    parse->section.open = false;
    return assign(parse, key_find(SCOPE_GPU, (struct span){"product", 7}), value);
  }
  const struct key *key = key_find(SCOPE_FILE, name);
  if (!key) return fail(parse, "unknown key \"%.*s\"", name);
  uint64_t bit = 1ull << (key - keys);
  if (parse->given & bit) return fail(parse, "\"%.*s\" is given twice", name);
  parse->given |= bit;
  if (value.length == 0) return fail(parse, "\"%.*s\" needs a value", name);
  return assign(parse, key, value);
}

static bool read_section_line(struct parse *parse, unsigned int indent, struct span name, struct span value) {
  struct section *section = &parse->section;
  if (!section->open) return fail(parse, "an indented line outside of a gpu section", nothing);
  if (section->indent == 0) section->indent = indent;
  if (section->indent != indent) return fail(parse, "the lines of a section must be indented alike", nothing);
  const struct key *key = key_find(SCOPE_GPU, name);
  if (!key) return fail(parse, "unknown key \"%.*s\"", name);
  uint64_t bit = 1ull << (key - keys);
  if (section->given & bit) return fail(parse, "\"%.*s\" is given twice", name);
  section->given |= bit;
  if (value.length == 0) return fail(parse, "\"%.*s\" needs a value", name);
  return assign(parse, key, value);
}

static bool read_line(struct parse *parse, struct span line) {
  if (line.length > 0 && line.text[line.length - 1] == '\r') line.length--;
  if (line.length > MAX_LINE_BYTES) return fail(parse, "the line is too long", nothing);
  for (size_t i = 0; i < line.length; i++)
    if (line.text[i] < 0x20 || line.text[i] > 0x7e) return fail(parse, "a byte that is not printable ASCII", nothing);
  unsigned int indent = 0;
  while (indent < line.length && line.text[indent] == ' ') indent++;
  if (indent == line.length || line.text[indent] == '#') return true;
  struct span name = {line.text + indent, 0};
  size_t left = line.length - indent;
  while (name.length < left && !(name.text[name.length] == ':' && (name.length + 1 == left || name.text[name.length + 1] == ' ')))
    name.length++;
  if (name.length == left || name.length == 0) return fail(parse, "expected \"key: value\"", nothing);
  struct span value;
  if (!read_scalar(parse, (struct span){name.text + name.length + 1, left - name.length - 1}, &value)) return false;
  return indent == 0 ? read_file_line(parse, name, value) : read_section_line(parse, indent, name, value);
}

static bool read_lines(struct parse *parse, const char *text, size_t length) {
  while (length > 0) {
    const char *newline = memchr(text, '\n', length);
    size_t line = newline ? (size_t)(newline - text) : length;
    parse->line++;
    if (!read_line(parse, (struct span){text, line})) return false;
    if (!newline) break;
    text += line + 1;
    length -= line + 1;
  }
  return true;
}

static bool apply_products(struct parse *parse) {
  for (unsigned int i = 0; i < parse->count; i++) {
    struct assignment *a = &parse->assignments[i];
    if (a->key->scope != SCOPE_GPU || strcmp(a->key->text, "product") != 0) continue;
    unsigned long long product;
    parse->error->line = a->line;
    if (!a->key->read(a->key, a->value, &product, parse->error->reason)) return false;
    for (unsigned int gpu = a->from; gpu <= a->to; gpu++) {
      memset(&parse->out->gpus[gpu], 0, sizeof(struct gpu));
      product_defaults(&parse->out->gpus[gpu], (unsigned int)product, gpu);
    }
  }
  return true;
}

static bool apply_to_gpu(struct parse *parse, const struct assignment *a, unsigned int index) {
  struct gpu *gpu = &parse->out->gpus[index];
  if (!gpu->product) return REFUSE(parse, "gpu %u has no product", index);
  if (!a->key->read(a->key, a->value, (char *)gpu + a->key->offset, parse->error->reason)) return false;
  unsigned int memory = product_of(gpu)->memory_mib;
  if (gpu->memory_used_mib > memory) return REFUSE(parse, "gpu %u has only %u MiB of memory", index, memory);
  return true;
}

static bool apply_rest(struct parse *parse) {
  for (unsigned int i = 0; i < parse->count; i++) {
    const struct assignment *a = &parse->assignments[i];
    parse->error->line = a->line;
    if (a->key->scope == SCOPE_FILE) {
      if (!a->key->read(a->key, a->value, (char *)parse->out + a->key->offset, parse->error->reason)) return false;
    } else if (strcmp(a->key->text, "product") != 0) {
      for (unsigned int gpu = a->from; gpu <= a->to; gpu++)
        if (!apply_to_gpu(parse, a, gpu)) return false;
    }
  }
  return true;
}

static bool check_whole(struct parse *parse, const char *host) {
  struct inventory *out = parse->out;
  parse->error->line = 1;
  if (!out->version) return REFUSE(parse, "the file must say \"version: 1\"");
  if (!out->node[0]) snprintf(out->node, sizeof out->node, "%.63s", host);
  for (unsigned int i = 0; i < parse->section_count; i++)
    for (unsigned int gpu = parse->sections[i].from; gpu <= parse->sections[i].to; gpu++)
      if (!out->gpus[gpu].product)
        return REFUSE(parse, "gpu %u has no product", gpu);
  for (unsigned int i = 0; i < MAX_GPUS; i++) {
    struct gpu *gpu = &out->gpus[i];
    if (!gpu->product) continue;
    identity_defaults(gpu, out->node, i);
    for (unsigned int j = 0; j < i; j++) {
      const struct gpu *other = &out->gpus[j];
      if (!other->product) continue;
      const char *same = strcmp(gpu->uuid, other->uuid) == 0               ? "uuid"
                         : strcmp(gpu->pci_bus_id, other->pci_bus_id) == 0 ? "pci-bus-id"
                         : strcmp(gpu->serial, other->serial) == 0         ? "serial"
                                                                           : NULL;
      if (same) return REFUSE(parse, "gpu %u has the %s of gpu %u", i, same, j);
    }
  }
  return true;
}

bool inventory_parse(const char *text, size_t length, const char *host, struct inventory *out, struct parse_error *error) {
  memset(out, 0, sizeof *out);
  memset(error, 0, sizeof *error);
  strcpy(out->driver, "570.133.20");
  out->cuda = 12080;
  struct parse *parse = calloc(1, sizeof *parse);
  if (!parse) return snprintf(error->reason, sizeof error->reason, "out of memory"), false;
  parse->out = out;
  parse->error = error;
  parse->line = 1;
  bool ok = length <= MAX_FILE_BYTES || fail(parse, "the file is too large", nothing);
  parse->line = 0;
  ok = ok && read_lines(parse, text, length) && apply_products(parse) && apply_rest(parse) && check_whole(parse, host);
  free(parse);
  return ok;
}
