// library.cpp - the kernels as one library for the CPU: each is launched by its name with the arguments the driver would get.

#include "emulator.h"

#include <map>
#include <mutex>
#include <string>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

constexpr unsigned MOST_SHARED = 227 << 10;

struct Kernel {
    void (*call)(void** args);
    unsigned least_threads, most_threads;
};

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> kernels;
    return kernels;
}

// One launch at a time.
std::mutex machine;

}  // namespace

emulator::Registration::Registration(const char* name, void (*call)(void** args), unsigned least_threads, unsigned most_threads) {
    kernels()[name] = {call, least_threads, most_threads};
}

// 0 done, 1 no such kernel, 2 a block of another size than the kernel is for, or with too much shared memory, 3 nothing to launch.
EXPORTED int emulate(const char* kernel, const unsigned grid[3], const unsigned block[3], unsigned shared_bytes, void** args) {
    const auto found = kernels().find(kernel);
    if (found == kernels().end()) {
        return 1;
    }
    const unsigned threads = block[0] * block[1] * block[2];
    if (threads < found->second.least_threads || threads > found->second.most_threads || threads % 32 != 0 || shared_bytes > MOST_SHARED) {
        return 2;
    }
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[1] > 65535 || grid[2] > 65535) {
        return 3;
    }
    const std::lock_guard<std::mutex> alone(machine);
    emulator::launch({found->first.c_str(), found->second.call, args, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared_bytes});
    return 0;
}

EXPORTED void* emulator_allocate(size_t bytes) {
    return emulator::allocate(bytes);
}

EXPORTED void emulator_free(void* memory, size_t bytes) {
    emulator::free(memory, bytes);
}

EXPORTED void emulator_order(unsigned order) {
    const std::lock_guard<std::mutex> alone(machine);
    emulator::set_order(order);
}

EXPORTED unsigned long long emulator_conflicts() {
    const std::lock_guard<std::mutex> alone(machine);
    return emulator::take_conflicts();
}
