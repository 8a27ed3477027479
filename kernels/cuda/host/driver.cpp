// A driver and a cuBLASLt for machines without a GPU: the entry points that `kernels/src/cuda/driver` calls, over the emulator of this
// directory. Both libraries are one file under two names. What it is strict about is what a real one lets pass unseen:
//
//  * work on a stream is done when somebody waits for it and not before, so memory that is reused too early shows;
//  * memory is NaN until it is written and after it is freed;
//  * copies, launches and products outside of what was allocated end the program with a message;
//  * times are those of events that were made for it, recorded and passed; an event that is recorded into a graph ends the program;
//  * what is still allocated and which handles are open when the last context is released is said (SIMULATED_CUDA_LEDGER).
//
// SIMULATED_CUDA_VERSION (13000), _DEVICES (1), _MEMORY (bytes, 4 GiB), _NAME, _MPS (0), _CAPABILITY (90), _LEDGER (file), _FAIL (entry point that fails),
// _NAN (number of the projection from which on states are not finite), _LEAK (of how many frees one gives nothing back); faults of a GPU: _SMS (multiprocessors, 132), _HANG (entry point that never returns),
// _WRONG (number of the product from which on products are wrong), and in an allocation of more than half of the memory _STUCK (BYTE,BIT: is 1 whatever a
// kernel writes) and _FLIP (N,BYTE,BIT: turns over after N products of its weights) and
// _WEAK (number of the one product of its weights that is wrong), _PEER (1: devices reach each other; 0), _TORN (1: copies between devices lose a bit).

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <unistd.h>

#include "cuda.h"

extern "C" int emulate(const char *kernel, const unsigned grid[3], const unsigned block[3], unsigned shared_bytes, void **args);

namespace {

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, UNKNOWN = 999 };

long setting(const char *name, long otherwise) {
    const char *text = std::getenv(name);
    return text ? std::strtol(text, nullptr, 10) : otherwise;
}

[[noreturn]] void misuse(const char *what) {
    std::fprintf(stderr, "simulated CUDA: %s\n", what);
    std::abort();
}

bool fails(const char *entry) {
    const char *hangs = std::getenv("SIMULATED_CUDA_HANG");
    while (hangs && std::strcmp(hangs, entry) == 0) pause();
    const char *named = std::getenv("SIMULATED_CUDA_FAIL");
    return named && std::strcmp(named, entry) == 0;
}

// --- memory

struct Memory {
    std::map<uintptr_t, size_t> device;
    std::map<uintptr_t, size_t> pinned;
    size_t used = 0;
    size_t most = 0;
    std::mutex lock;

    size_t total() const { return static_cast<size_t>(setting("SIMULATED_CUDA_MEMORY", 4L << 30)); }

    bool inside(uintptr_t at, size_t bytes) {
        std::lock_guard<std::mutex> held(lock);
        auto after = device.upper_bound(at);
        if (after == device.begin()) return false;
        auto it = std::prev(after);
        return at + bytes <= it->first + it->second;
    }
};
Memory memory;

void *aligned(size_t bytes) {
    void *start = nullptr;
    if (posix_memalign(&start, 256, std::max<size_t>(bytes, 1)) != 0) return nullptr;
    std::memset(start, 0xff, bytes);
    return start;
}

// --- faults of a GPU's memory

// The allocation that takes more than half of the memory, if it holds `at` (or whatever `at` is zero).
unsigned char *filler(uintptr_t at) {
    std::lock_guard<std::mutex> held(memory.lock);
    for (const auto &[start, bytes] : memory.device)
        if (bytes > memory.total() / 2 && (at == 0 || (at >= start && at < start + bytes))) return reinterpret_cast<unsigned char *>(start);
    return nullptr;
}

void stick() {
    const char *text = std::getenv("SIMULATED_CUDA_STUCK");
    size_t byte;
    unsigned bit;
    if (!text || std::sscanf(text, "%zu,%u", &byte, &bit) != 2) return;
    if (unsigned char *start = filler(0)) start[byte] |= static_cast<unsigned char>(1u << bit);
}

void flip(uintptr_t weights) {
    static long products = 0;
    const char *text = std::getenv("SIMULATED_CUDA_FLIP");
    long after;
    size_t byte;
    unsigned bit;
    if (!text || std::sscanf(text, "%ld,%zu,%u", &after, &byte, &bit) != 3) return;
    unsigned char *start = filler(weights);
    if (start && products++ == after) start[byte] ^= static_cast<unsigned char>(1u << bit);
}

// --- work

using Work = std::function<void()>;

struct Graph {
    std::vector<Work> steps;
};

// What was recorded last stays alive until it is done, also where its event is destroyed before.
struct Mark {
    bool done = false;
    std::chrono::steady_clock::time_point at;
};

struct Event {
    bool timed = true;
    std::shared_ptr<Mark> mark;
};

struct Stream {
    std::deque<Work> waiting;
    bool capturing = false;
    std::shared_ptr<Graph> captured;

    void put(Work work) {
        if (capturing) captured->steps.push_back(std::move(work));
        else waiting.push_back(std::move(work));
    }
    bool advance() {
        if (waiting.empty()) return false;
        Work next = std::move(waiting.front());
        waiting.pop_front();
        next();
        return true;
    }
    void finish() {
        while (advance()) {
        }
    }
};
std::vector<Stream *> streams;
int contexts = 0;

// Handles that were made and not destroyed.
struct Handles {
    long events = 0, graphs = 0, modules = 0;
};
Handles live;

// --- kernels

// Arguments of each: 8 an address, 4 a size or a number.
const std::map<std::string, std::vector<int>> &signatures() {
    static const std::map<std::string, std::vector<int>> all = [] {
        std::map<std::string, std::vector<int>> m = {
            {"fill_inputs", {8, 8, 4, 4, 4}},
            {"norm", {8, 8, 8, 4, 4}},
            {"add_norm", {8, 8, 8, 8, 4, 4}},
            {"reflect_add_norm", {8, 8, 8, 8, 8, 4, 4}},
            {"head_norm_rope", {8, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4}},
            {"attention_last", {8, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4, 4}},
            {"gather_last", {8, 8, 4, 4}},
            {"swiglu", {8, 8, 4}},
            {"project", {8, 8, 8, 8, 4, 4}},
            {"whole_norm_rope", {8, 8, 8, 4, 4, 4, 4, 4, 4, 4}},
            {"quantize", {8, 8, 8, 4}},
            {"swiglu_quantize", {8, 8, 8, 4, 4}},
            {"grouped_gemm_fp8", {8, 8, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4, 4, 4}},
            {"router", {8, 8, 8, 4, 4, 4}},
            {"route", {8, 8, 8, 8, 4, 4, 4}},
            {"count_routes", {8, 8, 4, 4}},
            {"place_routes", {8, 8, 8, 8, 8, 8, 4, 4, 4}},
            {"combine", {8, 8, 8, 8, 4, 4}},
            {"fill_words", {8, 4, 4, 4, 4}},
            {"check_words", {8, 8, 4, 4, 4, 4}},
            {"multiprocessors", {8}},
            {"v1_norm", {8, 8, 8, 4, 4}},
            {"v1_rope", {8, 8, 4, 4, 4, 4, 4}},
            {"v1_attention", {8, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4}},
            {"v1_swiglu", {8, 8, 4}},
            {"v1_add", {8, 8, 4}},
        };
        for (const char *name : {"attention_16", "attention_32", "attention_64", "attention_128"})
            m[name] = {8, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4};
        return m;
    }();
    return all;
}

struct Function {
    std::string name;
};

void launch(const std::string &name, std::vector<unsigned> grid, std::vector<unsigned> block, unsigned shared, std::vector<uint64_t> words) {
    static long projections = 0;
    const auto &sizes = signatures().at(name);
    std::vector<void *> args;
    for (size_t i = 0; i < words.size(); i++) {
        if (sizes[i] == 8 && words[i] != 0 && !memory.inside(words[i], 1)) misuse((name + ": an argument is no address of ours").c_str());
        args.push_back(&words[i]);
    }
    const long nan = setting("SIMULATED_CUDA_NAN", -1);
    if (name == "project" && nan >= 0 && projections++ >= nan) std::memset(reinterpret_cast<void *>(words[0]), 0xff, 2);
    const int status = emulate(name.c_str(), grid.data(), block.data(), shared, args.data());
    if (status != 0) misuse(("the emulator does not run " + name + ": " + std::to_string(status)).c_str());
    stick();
}

// --- products

float widened(uint16_t bits, bool half) {
    if (half) return emulator::from_half(bits);
    uint32_t word = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
}

uint16_t narrowed(float value, bool half) {
    if (half) return emulator::to_half(value);
    uint32_t word;
    std::memcpy(&word, &value, 4);
    if ((word & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(word >> 16 | 0x40);
    return static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

struct Matrix {
    uint64_t rows, columns;
    int64_t stride;
    bool half;
    size_t bytes() const { return 2 * ((columns - 1) * static_cast<size_t>(stride) + rows); }
};

struct Description {
    bool transposed = false;
};

void multiply(const uint16_t *a, Matrix am, const uint16_t *b, Matrix bm, uint16_t *d, Matrix dm) {
    const size_t inner = am.rows;
    std::vector<float> row(inner), column(inner);
    std::vector<float> weights(am.columns * inner);
    for (size_t o = 0; o < am.columns; o++)
        for (size_t i = 0; i < inner; i++) weights[o * inner + i] = widened(a[o * am.stride + i], am.half);
    for (size_t r = 0; r < bm.columns; r++) {
        for (size_t i = 0; i < inner; i++) row[i] = widened(b[r * bm.stride + i], am.half);
        for (size_t o = 0; o < am.columns; o++) {
            float lanes[8] = {};
            const float *w = &weights[o * inner];
            size_t i = 0;
            for (; i + 8 <= inner; i += 8)
                for (size_t lane = 0; lane < 8; lane++) lanes[lane] += w[i + lane] * row[i + lane];
            for (; i < inner; i++) lanes[0] += w[i] * row[i];
            float sum = 0;
            for (float lane : lanes) sum += lane;
            d[r * dm.stride + o] = narrowed(sum, am.half);
        }
    }
}

} // namespace

#define ENTRY(name) \
    if (fails(#name)) return UNKNOWN

#pragma GCC visibility push(default)
extern "C" {

typedef int CUresult;

CUresult cuInit(unsigned) {
    return setting("SIMULATED_CUDA_DEVICES", 1) > 0 ? SUCCESS : NO_DEVICE;
}
CUresult cuDriverGetVersion(int *version) {
    *version = static_cast<int>(setting("SIMULATED_CUDA_VERSION", 13000));
    return SUCCESS;
}
CUresult cuDeviceGetCount(int *count) {
    *count = static_cast<int>(setting("SIMULATED_CUDA_DEVICES", 1));
    return SUCCESS;
}
CUresult cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return SUCCESS;
}
static CUresult uuid(unsigned char *bytes, int device) {
    for (int i = 0; i < 16; i++) bytes[i] = static_cast<unsigned char>(i);
    bytes[15] = static_cast<unsigned char>(device);
    return SUCCESS;
}
CUresult cuDeviceGetUuid(unsigned char *bytes, int device) { return uuid(bytes, device); }
CUresult cuDeviceGetUuid_v2(unsigned char *bytes, int device) { return uuid(bytes, device); }
CUresult cuDeviceGetName(char *name, int length, int) {
    const char *given = std::getenv("SIMULATED_CUDA_NAME");
    std::snprintf(name, static_cast<size_t>(length), "%s", given ? given : "Simulated H200");
    return SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, int attribute, int) {
    const long capability = setting("SIMULATED_CUDA_CAPABILITY", 90);
    switch (attribute) {
        case 16: *value = static_cast<int>(setting("SIMULATED_CUDA_SMS", 132)); break;
        case 75: *value = static_cast<int>(capability / 10); break;
        case 76: *value = static_cast<int>(capability % 10); break;
        case 115: *value = 1; break;
        case 133: *value = static_cast<int>(setting("SIMULATED_CUDA_MPS", 0)); break;
        default: *value = 0;
    }
    return SUCCESS;
}
CUresult cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = memory.total();
    return SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(void **context, int) {
    ENTRY(cuDevicePrimaryCtxRetain);
    contexts++;
    *context = &memory;
    return SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(int) {
    const char *file = std::getenv("SIMULATED_CUDA_LEDGER");
    if (--contexts == 0 && file) {
        if (FILE *out = std::fopen(file, "a")) {
            std::fprintf(out, "device %zu allocations %zu bytes, pinned %zu, handles %ld, most %zu bytes\n", memory.device.size(), memory.used, memory.pinned.size(),
                         live.events + live.graphs + live.modules + static_cast<long>(streams.size()), memory.most);
            std::fclose(out);
        }
    }
    return SUCCESS;
}
CUresult cuCtxSetCurrent(void *) { return SUCCESS; }
CUresult cuCtxGetCurrent(void **context) {
    *context = &memory;
    return SUCCESS;
}
CUresult cuCtxSynchronize(void) {
    for (Stream *stream : streams) stream->finish();
    return SUCCESS;
}
CUresult cuCtxSynchronize_v2(void *) { return cuCtxSynchronize(); }

CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    *total = memory.total();
    *free = *total - std::min(*total, memory.used);
    return SUCCESS;
}
CUresult cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    ENTRY(cuMemAlloc);
    std::lock_guard<std::mutex> held(memory.lock);
    if (memory.used + bytes > memory.total()) return OUT_OF_MEMORY;
    void *start = aligned(bytes);
    if (!start) return OUT_OF_MEMORY;
    *address = reinterpret_cast<uint64_t>(start);
    memory.device[*address] = bytes;
    memory.used += bytes;
    memory.most = std::max(memory.most, memory.used);
    return SUCCESS;
}
CUresult cuMemFree_v2(uint64_t address) {
    std::lock_guard<std::mutex> held(memory.lock);
    auto it = memory.device.find(address);
    if (it == memory.device.end()) misuse("cuMemFree of what was not allocated");
    static long frees = 0;
    const long leak = setting("SIMULATED_CUDA_LEAK", 0);
    if (leak == 0 || ++frees % leak != 0) memory.used -= it->second;
    std::memset(reinterpret_cast<void *>(address), 0xff, it->second);
    std::free(reinterpret_cast<void *>(address));
    memory.device.erase(it);
    return SUCCESS;
}
CUresult cuMemHostAlloc(void **start, size_t bytes, unsigned) {
    *start = aligned(bytes);
    memory.pinned[reinterpret_cast<uintptr_t>(*start)] = bytes;
    return SUCCESS;
}
CUresult cuMemFreeHost(void *start) {
    if (memory.pinned.erase(reinterpret_cast<uintptr_t>(start)) != 1) misuse("cuMemFreeHost of what was not allocated");
    std::free(start);
    return SUCCESS;
}
CUresult cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) {
    if (!memory.inside(to, bytes)) misuse("cuMemcpyHtoD outside of an allocation");
    std::memcpy(reinterpret_cast<void *>(to), from, bytes);
    return SUCCESS;
}
CUresult cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, Stream *stream) {
    if (!memory.inside(to, bytes)) misuse("cuMemcpyHtoDAsync outside of an allocation");
    stream->put([=] { std::memcpy(reinterpret_cast<void *>(to), from, bytes); });
    return SUCCESS;
}
CUresult cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, Stream *stream) {
    if (!memory.inside(from, bytes)) misuse("cuMemcpyDtoHAsync outside of an allocation");
    stream->put([=] { std::memcpy(to, reinterpret_cast<void *>(from), bytes); });
    return SUCCESS;
}

CUresult cuDeviceCanAccessPeer(int *can, int, int) {
    *can = static_cast<int>(setting("SIMULATED_CUDA_PEER", 1));
    return SUCCESS;
}
CUresult cuCtxEnablePeerAccess(void *, unsigned) { return SUCCESS; }
CUresult cuMemcpyPeerAsync(uint64_t to, void *, uint64_t from, void *, size_t bytes, Stream *stream) {
    if (!memory.inside(to, bytes) || !memory.inside(from, bytes)) misuse("cuMemcpyPeerAsync outside of an allocation");
    stream->put([=] {
        std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
        if (setting("SIMULATED_CUDA_TORN", 0)) *reinterpret_cast<unsigned char *>(to) ^= 4;
    });
    return SUCCESS;
}

CUresult cuStreamCreate(Stream **stream, unsigned) {
    *stream = new Stream;
    streams.push_back(*stream);
    return SUCCESS;
}
CUresult cuStreamSynchronize(Stream *stream) {
    ENTRY(cuStreamSynchronize);
    if (stream->capturing) misuse("cuStreamSynchronize while the stream captures");
    stream->finish();
    return SUCCESS;
}
CUresult cuStreamDestroy_v2(Stream *stream) {
    stream->finish();
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    delete stream;
    return SUCCESS;
}
CUresult cuStreamBeginCapture_v2(Stream *stream, int) {
    if (stream->capturing) misuse("cuStreamBeginCapture twice");
    stream->capturing = true;
    stream->captured = std::make_shared<Graph>();
    return SUCCESS;
}
CUresult cuStreamEndCapture(Stream *stream, std::shared_ptr<Graph> **graph) {
    stream->capturing = false;
    *graph = new std::shared_ptr<Graph>(std::move(stream->captured));
    live.graphs++;
    return SUCCESS;
}
static CUresult instantiate(std::shared_ptr<Graph> **exec, std::shared_ptr<Graph> *graph) {
    if (fails("cuGraphInstantiate")) return UNKNOWN;
    *exec = new std::shared_ptr<Graph>(*graph);
    live.graphs++;
    return SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(std::shared_ptr<Graph> **exec, std::shared_ptr<Graph> *graph, unsigned long long) { return instantiate(exec, graph); }
CUresult cuGraphInstantiate_v2(std::shared_ptr<Graph> **exec, std::shared_ptr<Graph> *graph, void *, char *, size_t) { return instantiate(exec, graph); }
CUresult cuGraphUpload(std::shared_ptr<Graph> *, Stream *) { return SUCCESS; }
CUresult cuGraphLaunch(std::shared_ptr<Graph> *exec, Stream *stream) {
    ENTRY(cuGraphLaunch);
    std::shared_ptr<Graph> graph = *exec;
    stream->put([graph] {
        for (const Work &step : graph->steps) step();
    });
    return SUCCESS;
}
CUresult cuGraphExecDestroy(std::shared_ptr<Graph> *exec) {
    delete exec;
    live.graphs--;
    return SUCCESS;
}
CUresult cuGraphDestroy(std::shared_ptr<Graph> *graph) {
    delete graph;
    live.graphs--;
    return SUCCESS;
}

CUresult cuEventCreate(Event **event, unsigned flags) {
    ENTRY(cuEventCreate);
    *event = new Event;
    (*event)->timed = (flags & 2) == 0;
    live.events++;
    return SUCCESS;
}
CUresult cuEventDestroy_v2(Event *event) {
    delete event;
    live.events--;
    return SUCCESS;
}
CUresult cuEventRecord(Event *event, Stream *stream) {
    ENTRY(cuEventRecord);
    if (stream->capturing) misuse("cuEventRecord while the stream captures: a replay would not record it");
    auto mark = std::make_shared<Mark>();
    event->mark = mark;
    stream->put([mark] {
        mark->done = true;
        mark->at = std::chrono::steady_clock::now();
    });
    return SUCCESS;
}
CUresult cuEventSynchronize(Event *event) {
    for (Stream *stream : streams)
        while (event->mark && !event->mark->done && stream->advance()) {
        }
    return event->mark && !event->mark->done ? UNKNOWN : SUCCESS;
}
CUresult cuEventQuery(Event *event) { return event->mark && !event->mark->done ? NOT_READY : SUCCESS; }
CUresult cuEventElapsedTime_v2(float *milliseconds, Event *begun, Event *ended) {
    ENTRY(cuEventElapsedTime);
    if (!begun->timed || !ended->timed || !begun->mark || !ended->mark) return INVALID_HANDLE;
    if (!begun->mark->done || !ended->mark->done) return NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(ended->mark->at - begun->mark->at).count();
    return SUCCESS;
}

CUresult cuModuleLoadData(void **module, const void *image) {
    const auto *bytes = static_cast<const unsigned char *>(image);
    const bool cubin = std::memcmp(bytes, "\x7f" "ELF", 4) == 0;
    if (!cubin && !std::strstr(static_cast<const char *>(image), ".version")) misuse("cuModuleLoadData of neither a cubin nor PTX");
    *module = new std::string;
    live.modules++;
    return SUCCESS;
}
CUresult cuModuleUnload(void *module) {
    delete static_cast<std::string *>(module);
    live.modules--;
    return SUCCESS;
}
CUresult cuModuleGetFunction(Function **function, void *, const char *name) {
    static std::map<std::string, Function> functions;
    if (!signatures().count(name)) return NOT_FOUND;
    *function = &(functions[name] = Function{name});
    return SUCCESS;
}
CUresult cuFuncSetAttribute(Function *, int, int) { return SUCCESS; }
CUresult cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, Stream *stream, void **args, void **) {
    std::vector<uint64_t> words;
    for (int size : signatures().at(function->name)) {
        uint64_t word = 0;
        std::memcpy(&word, args[words.size()], static_cast<size_t>(size));
        words.push_back(word);
    }
    const std::string name = function->name;
    stream->put([=] { launch(name, {gx, gy, gz}, {bx, by, bz}, shared, words); });
    return SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char **name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_UNKNOWN";
    return SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : error == NO_DEVICE ? "no CUDA-capable device is detected" : "unknown error";
    return SUCCESS;
}

// --- cuBLASLt

size_t cublasLtGetVersion(void) { return 130000; }
int cublasLtCreate(void **handle) {
    *handle = &memory;
    return SUCCESS;
}
int cublasLtDestroy(void *) { return SUCCESS; }
int cublasLtMatrixLayoutCreate(Matrix **matrix, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    if (type != 14 && type != 2) misuse("a product of something else than bf16 or halves");
    *matrix = new Matrix{rows, columns, stride, type == 2};
    return SUCCESS;
}
int cublasLtMatrixLayoutDestroy(Matrix *matrix) {
    delete matrix;
    return SUCCESS;
}
int cublasLtMatmulDescCreate(Description **description, int compute, int scale) {
    if (compute != 68 || scale != 0) misuse("a product that does not accumulate in single precision");
    *description = new Description;
    return SUCCESS;
}
int cublasLtMatmulDescDestroy(Description *description) {
    delete description;
    return SUCCESS;
}
int cublasLtMatmulDescSetAttribute(Description *description, int attribute, const void *value, size_t size) {
    if (attribute == 3 && size == 4) description->transposed = *static_cast<const int32_t *>(value) == 1;
    return SUCCESS;
}
int cublasLtMatmulPreferenceCreate(void **preference) {
    *preference = &memory;
    return SUCCESS;
}
int cublasLtMatmulPreferenceDestroy(void *) { return SUCCESS; }
int cublasLtMatmulPreferenceSetAttribute(void *, int, const void *, size_t) { return SUCCESS; }

struct Heuristic {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
int cublasLtMatmulAlgoGetHeuristic(void *, Description *, Matrix *, Matrix *, Matrix *, Matrix *, void *, int wanted, Heuristic *found, int *count) {
    *count = std::min(wanted, 2);
    for (int i = 0; i < *count; i++) {
        found[i] = Heuristic{};
        found[i].algorithm[0] = static_cast<uint64_t>(i) + 1;
    }
    return SUCCESS;
}
int cublasLtMatmul(void *, Description *description, const float *alpha, const uint16_t *a, Matrix *am, const uint16_t *b, Matrix *bm, const float *beta, const uint16_t *, Matrix *, uint16_t *d,
                   Matrix *dm, const uint64_t *algorithm, void *, size_t, Stream *stream) {
    const Matrix A = *am, B = *bm, D = *dm;
    if (!description->transposed || *alpha != 1.0f || *beta != 0.0f || algorithm[0] == 0) misuse("a product of another form than the plan's");
    if (A.half != B.half || A.half != D.half) misuse("a product of different numbers");
    if (A.rows != B.rows || D.rows != A.columns || D.columns != B.columns) misuse("a product of matrices that do not match");
    for (auto operand : {std::make_pair(reinterpret_cast<uintptr_t>(a), A.bytes()), std::make_pair(reinterpret_cast<uintptr_t>(b), B.bytes()),
                         std::make_pair(reinterpret_cast<uintptr_t>(d), D.bytes())})
        if (!memory.inside(operand.first, operand.second)) misuse("a product outside of an allocation");
    stream->put([=] {
        static long products = 0;
        multiply(a, A, b, B, d, D);
        const long wrong = setting("SIMULATED_CUDA_WRONG", -1);
        if (wrong >= 0 && products++ >= wrong)
            for (uint64_t i = 0; i < D.rows; i++) d[i] ^= 0x8000;
        static long filled = 0;
        if (filler(reinterpret_cast<uintptr_t>(a)) && filled++ == setting("SIMULATED_CUDA_WEAK", -1)) d[0] ^= 0x8000;
        flip(reinterpret_cast<uintptr_t>(a));
    });
    return SUCCESS;
}

} // extern "C"
#pragma GCC visibility pop
