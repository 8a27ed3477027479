/*
 * Prints what the parser makes of each file named on standard input: its GPUs' identities, or line and reason.
 */
#include <stdio.h>
#include <string.h>

#include "../src/inventory.h"

static struct inventory inventory;
static char text[MAX_FILE_BYTES + 1];

int main(void) {
  char path[4096];
  while (fgets(path, sizeof path, stdin)) {
    path[strcspn(path, "\n")] = '\0';
    FILE *file = fopen(path, "rb");
    if (!file) return 1;
    size_t length = fread(text, 1, sizeof text, file);
    fclose(file);
    struct parse_error error;
    if (!inventory_parse(text, length, "n1", &inventory, &error)) {
      printf("line %u: %s\n", error.line, error.reason);
      continue;
    }
    printf("ok %s", inventory.node);
    for (int i = 0; i < MAX_GPUS; i++)
      if (inventory.gpus[i].product)
        printf(" %d %s %s %s %llu", i, inventory.gpus[i].uuid, inventory.gpus[i].serial, inventory.gpus[i].pci_bus_id,
               inventory.gpus[i].state);
    printf("\n");
  }
  return 0;
}
