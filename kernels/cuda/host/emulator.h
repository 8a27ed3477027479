// emulator.h - what library.cpp asks of emulator.cpp.
#pragma once

#include "cuda.h"

namespace emulator {

struct Launch {
    const char* name;
    void (*call)(void** args);
    void** args;
    Index grid, block;
    unsigned shared;
};

void launch(const Launch& what);

// Memory that ends at a page without access, so that reaching beyond it is noticed.
void* allocate(size_t bytes);
void free(void* memory, size_t bytes);

// In which order threads run, and blocks: 0 ascending, 1 descending, others from the middle.
void set_order(unsigned order);

// Passes that shared memory's banks cost beyond one for each access counted, since the last call.
unsigned long long take_conflicts();

}  // namespace emulator
