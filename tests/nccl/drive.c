/* Drives the plugin's tables as NCCL does, without a GPU: drive LIBRARY SCENARIO VERSION [NUMBER ...]
 *
 * Descriptors are laid out by the offsets below, which a compiler told of NCCL's own headers, and not by the plugin's
 * declarations. The device's clock is the host's minus DEVICE_BEHIND, and runs DRIFT too fast.
 * What was driven is printed, a line an operation.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

enum { GROUP = 1, COLL = 2, P2P = 4, PROXY_OP = 8, PROXY_STEP = 16, KERNEL = 64, COLL_CALL = 512, P2P_CALL = 1024,
       LAUNCH = 2048, COPY = 4096 };
enum { CHANNELS = 2, RANKS = 4, LARGEST = 128 };
static int own_rank = 1; /* or DRIVE_RANK */
static const int64_t DEVICE_BEHIND = 987654321012;
static const double DRIFT = 20e-6;

/* Where fields are, by version; 0: not there. */
struct offsets {
    int seq, func, count, root, dtype, channels, algorithm, protocol, id; /* of a collective */
    int m_func, m_dtype, m_count, m_peer, m_channels;                     /* of a message */
    bool words, wide;                                                     /* texts, not codes; 64 bits of kind */
};
static const struct offsets places[] = {
    [1] = {40, 48, 72, 80, 84, 104, 106, 107, 32, 40, 56, 64, 72, 0, false, false},
    [2] = {40, 48, 72, 80, 88, 104, 112, 120, 32, 40, 56, 64, 72, 0, true, false},
    [3] = {40, 48, 72, 80, 88, 96, 104, 112, 32, 40, 56, 64, 72, 0, true, false},
    [4] = {24, 32, 56, 64, 72, 80, 88, 96, 0, 24, 40, 48, 56, 60, true, false},
    [5] = {24, 32, 56, 64, 72, 80, 88, 96, 0, 24, 40, 48, 56, 60, true, true},
    [6] = {24, 32, 56, 64, 72, 80, 88, 96, 0, 24, 40, 48, 56, 60, true, true},
    [7] = {24, 32, 56, 64, 72, 80, 88, 96, 0, 24, 40, 48, 56, 60, true, true},
};

struct table {
    const char *name;
    void *init;
    int (*start)(void *, void **, void *);
    int (*stop)(void *);
    int (*record)(void *, int, void *);
    int (*finalize)(void *);
};

static struct table *table;
static const struct offsets *at;
static int version;
static int mask;
static void *library;

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static uint64_t device_time(int64_t host) { return (uint64_t)(host - DEVICE_BEHIND + (int64_t)((double)host * DRIFT)); }

static void logger(int level, unsigned long flags, const char *file, int line, const char *format, ...) {
    (void)level, (void)flags, (void)file, (void)line;
    va_list arguments;
    __builtin_va_start(arguments, format);
    fputs("LOG ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
    __builtin_va_end(arguments);
}

static bool wanted(int event) { return __atomic_load_n(&mask, __ATOMIC_RELAXED) & event; }

static void fail(const char *what) {
    fprintf(stderr, "drive: %s\n", what);
    exit(3);
}

static void *begin(uint64_t id, const char *name, int nodes, int ranks, int rank) {
    void *context = NULL;
    int result;
    if (version < 4)
        result = ((int (*)(void **, int *))table->init)(&context, &mask);
    else if (version == 4)
        result = ((int (*)(void **, int *, const char *, uint64_t, int, int, int, void *))table->init)(
            &context, &mask, name, id, nodes, ranks, rank, (void *)logger);
    else
        result = ((int (*)(void **, uint64_t, int *, const char *, int, int, int, void *))table->init)(
            &context, id, &mask, name, nodes, ranks, rank, (void *)logger);
    if (result != 0) fail("init did not succeed");
    return context;
}

struct event {
    uint8_t bytes[LARGEST];
};
static void put8(struct event *event, int place, uint8_t value) { event->bytes[place] = value; }
static void put32(struct event *event, int place, uint32_t value) { memcpy(event->bytes + place, &value, 4); }
static void put64(struct event *event, int place, uint64_t value) { memcpy(event->bytes + place, &value, 8); }
static void put_text(struct event *event, int place, const char *text) { put64(event, place, (uint64_t)text); }

static struct event event_of(uint64_t kind, void *parent) {
    struct event event = {{0}};
    if (at->wide)
        put64(&event, 0, kind);
    else
        put8(&event, 0, (uint8_t)kind);
    put64(&event, 8, (uint64_t)parent);
    put32(&event, 16, own_rank);
    return event;
}

static void *start(void *context, struct event *event) {
    void *handle = (void *)1;
    if (table->start(context, &handle, event) != 0) fail("start did not succeed");
    return handle;
}

static void stop(void *handle) {
    if (handle != NULL && table->stop(handle) != 0) fail("stop did not succeed");
}

static void *call_begins(void *context, bool message, bool captured) {
    if (version < 5) return NULL;
    struct event event = event_of(message ? P2P_CALL : COLL_CALL, NULL);
    put8(&event, message ? 56 : 64, captured);
    return start(context, &event);
}

static void launch(void *context) {
    if (version < 5 || !wanted(LAUNCH)) return;
    struct event event = event_of(LAUNCH, NULL);
    stop(start(context, &event));
}

static const char *const funcs[] = {"Broadcast", "Reduce", "AllGather", "ReduceScatter", "AllReduce", "SendRecv", "Send", "Recv"};
static const char *const dtypes[] = {"ncclInt8", "ncclUint8", "ncclInt32", "ncclUint32", "ncclInt64", "ncclUint64", "ncclFloat16", "ncclFloat32"};
static const char *const algorithms[] = {"TREE", "RING"};
static const char *const protocols[] = {"LL", "LL128", "SIMPLE"};

static void put_word(struct event *event, int place, const char *const *words, int code) {
    if (at->words)
        put_text(event, place, words[code]);
    else
        put8(event, place, (uint8_t)code);
}

static void *collective_begins(void *context, void *call, uint64_t id, int func, uint64_t seq, uint64_t number, int root) {
    struct event event = event_of(COLL, call);
    put64(&event, at->seq, seq);
    put_word(&event, at->func, funcs, func);
    put64(&event, at->count, number);
    put32(&event, at->root, (uint32_t)root);
    put_word(&event, at->dtype, dtypes, 7);
    put8(&event, at->channels, CHANNELS);
    put_word(&event, at->algorithm, algorithms, (int)(seq % 2));
    put_word(&event, at->protocol, protocols, (int)(seq % 3));
    if (at->id) {
        put_text(&event, 24, "by the event");
        put64(&event, at->id, id);
    }
    return start(context, &event);
}

static void *message_begins(void *context, void *call, uint64_t id, bool sends, int peer, uint64_t number) {
    struct event event = event_of(P2P, call);
    put_word(&event, at->m_func, funcs, sends ? 6 : 7);
    put_word(&event, at->m_dtype, dtypes, 6);
    put64(&event, at->m_count, number);
    put32(&event, at->m_peer, (uint32_t)peer);
    if (at->m_channels) put8(&event, at->m_channels, CHANNELS);
    if (at->id) put64(&event, at->id, id);
    return start(context, &event);
}

static void *kernel_begins(void *context, void *parent, int channel, int64_t host) {
    if (version < 3 || parent == NULL) return NULL; /* a task keeps the mask it began with */
    struct event event = event_of(KERNEL, parent);
    put8(&event, 24, (uint8_t)channel);
    if (version >= 4) put64(&event, 32, device_time(host));
    return start(context, &event);
}

static void kernel_ends(void *handle, int64_t host) {
    if (handle == NULL) return;
    uint64_t argument = device_time(host);
    if (version >= 4 && table->record(handle, 22, &argument) != 0) fail("record did not succeed");
    stop(handle);
}

static void *proxy_begins(void *context, void *parent, int channel, bool sends, int pid) {
    struct event event = event_of(PROXY_OP, parent);
    put32(&event, 24, (uint32_t)pid);
    put8(&event, 28, (uint8_t)channel);
    put32(&event, 44, sends);
    return start(context, &event);
}

static void pass_time(int64_t ns) {
    for (int64_t until = now() + ns; now() < until;) {
    }
}

static int64_t step_runs(void *context, void *proxy, bool sends, uint64_t bytes, int64_t ns) {
    static const int ways[2][3] = {{10, 11, 12}, {8, 20, 9}};
    struct event event = event_of(PROXY_STEP, proxy);
    void *handle = start(context, &event);
    if (handle == NULL) return 0;
    int64_t began = now();
    for (int each = 0; each < 3; each++) {
        uint64_t argument = bytes;
        table->record(handle, ways[sends][each], &argument);
        pass_time(ns);
    }
    stop(handle);
    return now() - began;
}

/* ---- scenarios ---- */

struct shape {
    int func; /* 5: a message */
    bool sends, captured, copies;
    int root;
    uint64_t number;
    int proxies;
};

static void copy_runs(void *context, void *call, const struct shape *shape, uint64_t seq) {
    struct event event = event_of(COPY, call);
    put64(&event, 24, seq);
    put_text(&event, 32, funcs[shape->func]);
    put64(&event, 56, shape->number);
    put32(&event, 64, (uint32_t)shape->root);
    put_text(&event, 72, dtypes[7]);
    stop(start(context, &event));
}

/* One operation, its kernels on two channels of which the second ends last; prints what it was. */
static void operation_runs(void *context, uint64_t id, const struct shape *shape, uint64_t seq) {
    bool message = shape->func == 5;
    void *call = call_begins(context, message, shape->captured), *kernels[CHANNELS];
    if (shape->copies) {
        copy_runs(context, call, shape, seq);
        printf("{\"id\": %lu, \"func\": \"%s\", \"copies\": true}\n", id, funcs[shape->func]);
        return;
    }
    launch(context);
    int64_t began = now();
    struct event group_event = event_of(GROUP, NULL);
    void *group = start(context, &group_event);
    if (version < 4 && group == NULL) fail("no group, no tasks");
    void *own = message ? message_begins(context, call, id, shape->sends, shape->root, shape->number)
                        : collective_begins(context, call, id, shape->func, seq, shape->number, shape->root);
    stop(own);
    stop(group);
    if (shape->captured) began = now();
    int64_t waited = 0;
    pass_time(100 * CHANNELS); /* what is read has happened */
    for (int each = 0; each < CHANNELS; each++) kernels[each] = kernel_begins(context, own, each, began + 100 * each);
    for (int each = 0; each < shape->proxies; each++) {
        void *proxy = proxy_begins(context, own, each, each % 2, getpid());
        waited += step_runs(context, proxy, each % 2, 4096, 20000);
        stop(proxy);
    }
    pass_time(30000);
    int64_t ended = now();
    for (int each = 0; each < CHANNELS; each++) kernel_ends(kernels[each], ended - 1000 * (CHANNELS - 1 - each));
    stop(call);
    printf("{\"id\": %lu, \"func\": \"%s\", \"message\": %d, \"captured\": %d, \"count\": %lu, \"seq\": %lu, \"peer\": %d, "
           "\"began_ns\": %ld, \"ended_ns\": %ld, \"waited_ns\": %ld, \"proxies\": %d}\n",
           id, message ? (shape->sends ? "Send" : "Recv") : funcs[shape->func], message, shape->captured, shape->number,
           seq, shape->root, began, ended, waited, shape->proxies);
}

static void plain(int rounds) {
    static const struct shape shapes[] = {
        {4, false, false, false, -1, 1000, 0}, {2, false, false, false, -1, 2000, 0}, {3, false, false, false, -1, 500, 2},
        {0, false, false, false, 2, 64, 0},    {5, true, false, false, 0, 128, 1},    {5, false, false, false, 3, 256, 2},
        {4, false, true, false, -1, 4000, 0},  {2, false, false, true, -1, 32, 0},
    };
    void *world = begin(0xAB01, "default_pg", 1, RANKS, own_rank), *pair = begin(0xAB02, "pair", 2, 2, 0);
    begin(0xAB03, "never used", 1, RANKS, own_rank);
    uint64_t seqs[2][8] = {{0}};
    for (int round = 0; round < rounds; round++)
        for (unsigned each = 0; each < sizeof shapes / sizeof *shapes; each++) {
            const struct shape *shape = &shapes[each];
            if ((shape->captured && version < 5) || (shape->copies && version < 6)) continue;
            operation_runs(world, 0xAB01, shape, seqs[0][shape->copies ? 7 : shape->func]++); /* copies count apart */
            if (each < 2) operation_runs(pair, 0xAB02, shape, seqs[1][shape->func]++);
        }
    table->finalize(world);
    table->finalize(pair);
}

/* ---- threads: one operation after another, each thread with a communicator of its own ---- */

struct load {
    int64_t cpu_ns;
    void *context;
    uint64_t id;
    int operations, pace_us;
    atomic_long *lost;
};

static long one_quick(void *context, uint64_t id, uint64_t seq) {
    int64_t host = now();
    void *own = collective_begins(context, NULL, id, 4, seq, 1024, -1);
    stop(own);
    if (own == NULL) return 1;
    void *kernels[CHANNELS];
    for (int each = 0; each < CHANNELS; each++) kernels[each] = kernel_begins(context, own, each, host);
    for (int each = 0; each < CHANNELS; each++) kernel_ends(kernels[each], host + 1000);
    return 0;
}

static int64_t cpu_time(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void *run_load(void *pointer) {
    struct load *load = pointer;
    int64_t began = cpu_time();
    for (int each = 0; each < load->operations; each++) {
        if (wanted(COLL))
            atomic_fetch_add(load->lost, one_quick(load->context, load->id, (uint64_t)each));
        if (load->pace_us && each % 64 == 0) usleep((useconds_t)load->pace_us);
    }
    load->cpu_ns = cpu_time() - began;
    return NULL;
}

static void *toggle(void *pointer) {
    atomic_bool *done = pointer;
    void (*pause)(void) = (void (*)(void))dlsym(library, "commlens_nccl_pause");
    void (*resume)(void) = (void (*)(void))dlsym(library, "commlens_nccl_resume");
    while (!atomic_load(done)) {
        pause();
        usleep(200);
        resume();
        usleep(200);
    }
    return NULL;
}

static void threads(int number, int operations, int pace_us, bool toggles) {
    pthread_t own[64], other;
    struct load loads[64];
    atomic_long lost = 0;
    atomic_bool done = false;
    for (int each = 0; each < number; each++)
        loads[each] = (struct load){0, begin(0xCD00 + (uint64_t)each, "load", 1, RANKS, own_rank),
                                    0xCD00 + (uint64_t)each, operations, pace_us, &lost};
    int64_t began = now();
    if (toggles) pthread_create(&other, NULL, toggle, &done);
    for (int each = 0; each < number; each++) pthread_create(&own[each], NULL, run_load, &loads[each]);
    for (int each = 0; each < number; each++) pthread_join(own[each], NULL);
    int64_t ended = now(), cpu_ns = 0;
    for (int each = 0; each < number; each++) cpu_ns += loads[each].cpu_ns;
    atomic_store(&done, true);
    if (toggles) pthread_join(other, NULL);
    for (int each = 0; each < number; each++) table->finalize(loads[each].context);
    long calls = (long)number * operations * (2 + CHANNELS * (version >= 4 ? 3 : version == 3 ? 2 : 0));
    printf("{\"operations\": %ld, \"no_slot\": %ld, \"calls\": %ld, \"ns\": %ld, \"cpu_ns\": %ld}\n",
           (long)number * operations, lost, calls, ended - began, cpu_ns);
}

/* More operations under way than there are slots; then all end. */
static void exhaust(int operations) {
    void **own = calloc((size_t)operations, sizeof *own);
    void *context = begin(0xEF01, "many", 1, RANKS, own_rank);
    int none = 0;
    for (int each = 0; each < operations; each++) {
        own[each] = collective_begins(context, NULL, 0xEF01, 4, (uint64_t)each, 8, -1);
        stop(own[each]);
        none += own[each] == NULL;
    }
    for (int each = 0; each < operations; each++)
        for (int channel = 0; channel < CHANNELS; channel++)
            kernel_ends(kernel_begins(context, own[each], channel, now()), now());
    if (one_quick(context, 0xEF01, (uint64_t)operations)) fail("no slot came back");
    table->finalize(context);
    free(own);
    printf("{\"operations\": %d, \"none\": %d}\n", operations + 1, none);
}

/* A communicator ends with events under way; what comes afterwards finds nothing. */
static void cut_off(void) {
    void *context = begin(0xBB01, "short", 1, RANKS, own_rank), *other = begin(0xBB02, "long", 1, RANKS, own_rank);
    void *own = collective_begins(context, NULL, 0xBB01, 4, 0, 16, -1);
    void *kept = collective_begins(other, NULL, 0xBB02, 4, 0, 16, -1);
    void *kernel = kernel_begins(context, own, 0, now());
    void *proxy = proxy_begins(context, own, 0, true, getpid());
    struct event event = event_of(PROXY_STEP, proxy);
    void *step = start(context, &event);
    table->finalize(context);
    void *again = collective_begins(other, NULL, 0xBB02, 4, 1, 32, -1);
    uint64_t argument = 512;
    table->record(step, 8, &argument);
    stop(step);
    stop(step);
    stop(proxy);
    kernel_ends(kernel, now());
    stop(own);
    if (kernel_begins(context, own, 1, now()) != NULL) fail("an old handle was taken for a new one");
    if (proxy_begins(other, again, 0, true, getpid() + 1) != NULL) fail("another process's operation was touched");
    if (proxy_begins(other, NULL, 0, true, getpid()) != NULL)
        fail("a child without a parent");
    void *twice = kernel_begins(other, again, 0, now());
    if (version >= 3 && kernel_begins(other, again, 0, now()) != NULL) fail("a channel twice");
    stop(kept);
    stop(again);
    kernel_ends(kernel_begins(other, kept, 0, now()), now());
    kernel_ends(twice, now());
    stop(twice);
    kernel_ends(kernel_begins(other, kept, 1, now()), now());
    kernel_ends(kernel_begins(other, again, 1, now()), now());
    table->finalize(other);
    printf("{}\n");
}

/* Finalize while other threads still tell of the communicator. */
static void *children_of(void *pointer) {
    struct load *load = pointer;
    for (int each = 0; each < load->operations; each++) one_quick(load->context, load->id, (uint64_t)each);
    return NULL;
}

static void race(void) {
    pthread_t own[3];
    atomic_long lost = 0;
    struct load load = {0, begin(0xAA01, "raced", 1, RANKS, own_rank), 0xAA01, 20000, 0, &lost};
    void *other = begin(0xAA02, "stays", 1, RANKS, own_rank);
    for (int each = 0; each < 3; each++) pthread_create(&own[each], NULL, children_of, &load);
    usleep(2000);
    table->finalize(load.context);
    for (int each = 0; each < 3; each++) pthread_join(own[each], NULL);
    table->finalize(other);
    printf("{}\n");
}

static void forks(void) {
    void *context = begin(0xFF01, "parent", 1, RANKS, own_rank);
    one_quick(context, 0xFF01, 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        void *own = begin(0xFF02, "child", 1, RANKS, own_rank);
        one_quick(own, 0xFF02, 0);
        one_quick(own, 0xFF02, 1);
        table->finalize(own);
        printf("{\"child\": %d}\n", (int)getpid());
        exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (status != 0) fail("the child did not end well");
    one_quick(context, 0xFF01, 1);
    table->finalize(context);
    printf("{\"parent\": %d}\n", (int)getpid());
}

/* Runs until it is killed, or leaves without ending its communicator. */
static void hang(bool leaves) {
    void *context = begin(0x1101, "hangs", 1, RANKS, own_rank);
    one_quick(context, 0x1101, 0);
    void *own = collective_begins(context, NULL, 0x1101, 4, 1, 16, -1);
    stop(own);
    kernel_begins(context, own, 0, now());
    printf("{\"pid\": %d}\n", (int)getpid());
    fflush(stdout);
    if (leaves) exit(0);
    for (;;) pause();
}

static void full_disk(long limit, int operations) {
    struct rlimit most = {(rlim_t)limit, (rlim_t)limit};
    setrlimit(RLIMIT_FSIZE, &most);
    threads(1, operations, 100, false);
    struct {
        uint64_t counts[8];
        int32_t error, mask, communicators, reserved;
    } statistics;
    ((void (*)(void *))dlsym(library, "commlens_nccl_stats"))(&statistics);
    printf("{\"error\": %d, \"mask\": %d}\n", statistics.error, mask);
}

static void later(const char *folder) {
    ((void (*)(void))dlsym(library, "commlens_nccl_hold"))();
    void *context = begin(0x2201, "later", 1, RANKS, own_rank);
    for (int each = 0; each < 100; each++) one_quick(context, 0x2201, (uint64_t)each);
    usleep(300000);
    int (*open)(const char *) = (int (*)(const char *))dlsym(library, "commlens_nccl_open");
    if (open(folder) != 0) fail("open failed");
    for (int each = 0; each < 100; each++) one_quick(context, 0x2201, (uint64_t)each);
    table->finalize(context);
    context = begin(0x2202, "again", 1, RANKS, own_rank);
    one_quick(context, 0x2202, 0);
    table->finalize(context);
    printf("{}\n");
}

/* One process with two devices, each a rank of the same communicators. */
static void devices(int rounds) {
    static const struct shape shape = {4, false, false, false, -1, 1000, 0};
    void *world[2], *again[2];
    for (int each = 0; each < 2; each++) world[each] = begin(0xDD01, "world", 1, RANKS, each);
    for (int each = 0; each < 2; each++) again[each] = begin(0xDD02, "again", 1, RANKS, each);
    for (int round = 0; round < rounds; round++)
        for (int each = 0; each < 2; each++) {
            operation_runs(world[each], 0xDD01, &shape, (uint64_t)round);
            operation_runs(again[each], 0xDD02, &shape, (uint64_t)round);
        }
    for (int each = 0; each < 2; each++) table->finalize(world[each]);
    for (int each = 0; each < 2; each++) table->finalize(again[each]);
}

static long number(int count, char **words, int place, long otherwise) {
    return place < count ? strtol(words[place], NULL, 10) : otherwise;
}

int main(int count, char **words) {
    if (count < 4) fail("LIBRARY SCENARIO VERSION [NUMBER ...]");
    library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) fail(dlerror());
    version = atoi(words[3]);
    at = &places[version];
    char name[32];
    snprintf(name, sizeof name, "ncclProfiler_v%d", version);
    table = dlsym(library, name);
    if (table == NULL) fail("no such table");
    const char *scenario = words[2], *rank = getenv("DRIVE_RANK");
    if (rank != NULL) own_rank = atoi(rank);
    if (!strcmp(scenario, "plain")) plain((int)number(count, words, 4, 3));
    else if (!strcmp(scenario, "threads"))
        threads((int)number(count, words, 4, 4), (int)number(count, words, 5, 1000), (int)number(count, words, 6, 0), false);
    else if (!strcmp(scenario, "toggled"))
        threads((int)number(count, words, 4, 4), (int)number(count, words, 5, 1000), 100, true);
    else if (!strcmp(scenario, "exhaust")) exhaust((int)number(count, words, 4, 20000));
    else if (!strcmp(scenario, "cut_off")) cut_off();
    else if (!strcmp(scenario, "race")) race();
    else if (!strcmp(scenario, "forks")) forks();
    else if (!strcmp(scenario, "hang")) hang(false);
    else if (!strcmp(scenario, "leave")) hang(true);
    else if (!strcmp(scenario, "full_disk")) full_disk(number(count, words, 4, 4096), (int)number(count, words, 5, 2000));
    else if (!strcmp(scenario, "later")) later(words[4]);
    else if (!strcmp(scenario, "devices")) devices((int)number(count, words, 4, 5));
    else fail("no such scenario");
    return 0;
}
