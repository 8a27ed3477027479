// emulator.cpp - a block of CUDA threads as fibers on one core: barriers, operations of a warp, shared memory, late copies.
//
// A thread runs until it waits for others. Which thread goes first is a parameter: a result that depends on it misses a barrier.
// Misuse ends the process with a message, because there is no result to give.

#include "emulator.h"

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#ifndef __x86_64__
#error "the emulator switches fibers in x86-64 assembly"
#endif

// Saves what a call must preserve on the old stack, and continues on the new one.
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch, . - emulator_switch
)");
extern "C" void emulator_switch(void** old_stack, void* new_stack);

extern "C" __attribute__((visibility("hidden"))) unsigned char __start_shared_memory[], __stop_shared_memory[];

namespace emulator {

Thread self;

namespace {

constexpr unsigned WARP = 32, MOST_THREADS = 1024;
constexpr size_t STACK = 64 << 10, PAGE = 4096, MOST_SHARED = 228 << 10;

enum class State { Ready, InWarp, AtBarrier, Done };

struct Copy {
    void* to;
    const void* from;
    unsigned bytes, filled, group;
};

struct Fiber {
    void* stack;
    State state;
    Thread self;
    // What it brought to an operation of its warp, and which.
    void* brought;
    const char* operation;
    std::vector<Copy> copies;
    unsigned groups;
};

struct Block {
    const Launch* launch;
    Fiber fibers[MOST_THREADS];
    unsigned threads;
    Fiber* running;
    void* scheduler;
    unsigned char *stacks, *shared;
};

Block block;
unsigned order_of_threads;
unsigned long long conflicts;

void fault(int, siginfo_t* info, void*) {
    // Not safe in general; the process ends here, and the message is worth it.
    if (info->si_signo == SIGILL) {
        die("%s: an index outside of its array", block.launch->name);
    }
    die("%s: access to %p, outside of what was allocated", block.launch->name, info->si_addr);
}

unsigned char* map(size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        die("no memory for %zu bytes", bytes);
    }
    return static_cast<unsigned char*>(at);
}

void forbid(unsigned char* at) {
    if (mprotect(at, PAGE, PROT_NONE) != 0) {
        die("cannot protect a page");
    }
}

void prepare() {
    static bool prepared = false;
    if (prepared) {
        return;
    }
    prepared = true;
    // A page without access below each stack and on both sides of shared memory.
    block.stacks = map(MOST_THREADS * STACK);
    for (unsigned thread = 0; thread < MOST_THREADS; ++thread) {
        forbid(block.stacks + thread * STACK);
    }
    block.shared = map(MOST_SHARED + 2 * PAGE);
    forbid(block.shared);
    forbid(block.shared + PAGE + MOST_SHARED);
    struct sigaction action {};
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO;
    for (int signal : {SIGSEGV, SIGBUS, SIGILL}) {
        sigaction(signal, &action, nullptr);
    }
}

void wait(State state) {
    Fiber& fiber = *block.running;
    fiber.state = state;
    emulator_switch(&fiber.stack, block.scheduler);
    self = fiber.self;
}

void begin() {
    self = block.running->self;
    block.launch->call(block.launch->args);
    if (!block.running->copies.empty()) {
        die("thread %u ended with copies it did not wait for", self.thread.x);
    }
    wait(State::Done);
}

void run(Fiber& fiber) {
    block.running = &fiber;
    emulator_switch(&block.scheduler, fiber.stack);
}

void start(Fiber& fiber, unsigned thread, const Index& at) {
    const Index size = block.launch->block;
    fiber.state = State::Ready;
    fiber.groups = 0;
    fiber.copies.clear();
    fiber.self = {{thread % size.x, thread / size.x % size.y, thread / size.x / size.y}, at, size, block.launch->grid};
    // Six registers, where to begin, and nowhere to return to; the stack as after a call.
    void** top = reinterpret_cast<void**>(block.stacks + (thread + 1) * STACK) - 8;
    std::memset(top, 0, 8 * sizeof *top);
    top[6] = reinterpret_cast<void*>(&begin);
    fiber.stack = top;
}

// The place in order `turn` of `count`: ascending, descending, or from the middle.
unsigned place(unsigned turn, unsigned count) {
    switch (order_of_threads) {
        case 0: return turn;
        case 1: return count - 1 - turn;
        default: return (turn + count / 2) % count;
    }
}

void release_barrier() {
    for (unsigned thread = 0; thread < block.threads; ++thread) {
        Fiber& fiber = block.fibers[thread];
        if (fiber.state != State::AtBarrier) {
            die("%s: thread 0 of block (%u, %u, %u) and others wait at a barrier, thread %u %s%s", block.launch->name,
                self.block.x, self.block.y, self.block.z, thread,
                fiber.state == State::Done ? "has ended" : "waits for its warp in ",
                fiber.state == State::InWarp ? fiber.operation : "");
        }
        fiber.state = State::Ready;
    }
}

// Runs every thread of a warp until it waits for other warps.
bool run_warp(unsigned warp) {
    bool ran = false;
    for (bool again = true; again;) {
        again = false;
        for (unsigned turn = 0; turn < WARP; ++turn) {
            const unsigned lane = place(turn, WARP);
            Fiber& fiber = block.fibers[warp * WARP + lane];
            if (fiber.state == State::Ready) {
                run(fiber);
                again = ran = true;
            }
        }
    }
    return ran;
}

void run_block(const Index& at) {
    // Rubbish that is NaN as any number.
    std::memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
    std::memset(dynamic_shared(), 0xff, block.launch->shared);
    for (unsigned thread = 0; thread < block.threads; ++thread) {
        start(block.fibers[thread], thread, at);
    }
    const unsigned warps = block.threads / WARP;
    for (;;) {
        bool ran = false, done = true;
        for (unsigned turn = 0; turn < warps; ++turn) {
            ran |= run_warp(place(turn, warps));
        }
        for (unsigned thread = 0; thread < block.threads; ++thread) {
            done &= block.fibers[thread].state == State::Done;
        }
        if (done) {
            return;
        }
        if (!ran) {
            release_barrier();
        }
    }
}

}  // namespace

void die(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::fputs("emulator: ", stderr);
    std::vfprintf(stderr, format, arguments);
    std::fputs("\n", stderr);
    va_end(arguments);
    std::abort();
}

unsigned char* dynamic_shared() {
    // It ends where the forbidden page begins.
    return block.shared + PAGE + MOST_SHARED - (block.launch->shared + 127) / 128 * 128;
}

unsigned shared_offset(const void* pointer, size_t bytes) {
    const unsigned char* at = static_cast<const unsigned char*>(pointer);
    const unsigned char* first = dynamic_shared();
    if (at < first || at + bytes > first + block.launch->shared) {
        die("%s: %zu bytes at offset %td of %u bytes of shared memory", block.launch->name, bytes, at - first, block.launch->shared);
    }
    return static_cast<unsigned>(at - first);
}

void barrier() {
    wait(State::AtBarrier);
}

void together(const char* name, Operation operation, void* mine) {
    Fiber& fiber = *block.running;
    const unsigned thread = static_cast<unsigned>(&fiber - block.fibers), warp = thread / WARP;
    fiber.brought = mine;
    fiber.operation = name;
    void* lanes[WARP];
    for (unsigned lane = 0; lane < WARP; ++lane) {
        Fiber& other = block.fibers[warp * WARP + lane];
        if (&other != &fiber && other.state != State::InWarp) {
            if (other.state != State::Ready) {
                die("%s: thread %u is at %s, thread %u of its warp %s", block.launch->name, thread, name, warp * WARP + lane,
                    other.state == State::Done ? "has ended" : "waits at a barrier");
            }
            return wait(State::InWarp);
        }
        if (other.operation != name) {
            die("%s: thread %u is at %s, thread %u of its warp at %s", block.launch->name, thread, name, warp * WARP + lane, other.operation);
        }
        lanes[lane] = other.brought;
    }
    operation(lanes);
    for (unsigned lane = 0; lane < WARP; ++lane) {
        Fiber& other = block.fibers[warp * WARP + lane];
        other.state = State::Ready;
    }
}

void copy_later(void* to, const void* from, unsigned bytes, unsigned filled) {
    shared_offset(to, bytes);
    assert_aligned(to, bytes, "cp.async");
    assert_aligned(from, bytes, "cp.async");
    Fiber& fiber = *block.running;
    // Until it is waited for, neither the old content nor the new can be relied on.
    std::memset(to, 0xff, bytes);
    fiber.copies.push_back({to, from, bytes, filled, fiber.groups});
}

void commit_copies() {
    ++block.running->groups;
}

void wait_for_copies(unsigned but_newest) {
    Fiber& fiber = *block.running;
    size_t done = 0;
    for (const Copy& copy : fiber.copies) {
        if (copy.group + but_newest >= fiber.groups) {
            break;
        }
        std::memcpy(copy.to, copy.from, copy.filled);
        std::memset(static_cast<unsigned char*>(copy.to) + copy.filled, 0, copy.bytes - copy.filled);
        ++done;
    }
    fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + static_cast<ptrdiff_t>(done));
}

void count_conflicts(const unsigned (&offsets)[8]) {
    unsigned passes = 1;
    for (unsigned bank = 0; bank < 8; ++bank) {
        unsigned lines[8], different = 0;
        for (unsigned offset : offsets) {
            if (offset / 16 % 8 == bank) {
                bool seen = false;
                for (unsigned i = 0; i < different; ++i) {
                    seen |= lines[i] == offset / 128;
                }
                if (!seen) {
                    lines[different++] = offset / 128;
                }
            }
        }
        passes = different > passes ? different : passes;
    }
    conflicts += passes - 1;
}

void* allocate(size_t bytes) {
    const size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
    unsigned char* at = map(pages + PAGE);
    forbid(at + pages);
    return at + pages - bytes;
}

void free(void* memory, size_t bytes) {
    const size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
    munmap(static_cast<unsigned char*>(memory) + bytes - pages, pages + PAGE);
}

void set_order(unsigned order) {
    order_of_threads = order;
}

unsigned long long take_conflicts() {
    const unsigned long long counted = conflicts;
    conflicts = 0;
    return counted;
}

void launch(const Launch& what) {
    prepare();
    block.launch = &what;
    block.threads = what.block.x * what.block.y * what.block.z;
    // Blocks too: what one writes must not depend on which came before.
    const unsigned blocks = what.grid.x * what.grid.y * what.grid.z;
    for (unsigned turn = 0; turn < blocks; ++turn) {
        const unsigned number = place(turn, blocks);
        run_block({number % what.grid.x, number / what.grid.x % what.grid.y, number / what.grid.x / what.grid.y});
    }
}

}  // namespace emulator
