/* What the files of the plugin share. */
#ifndef COMMLENS_NCCL_PLUGIN_H
#define COMMLENS_NCCL_PLUGIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "abi.h"
#include "records.h"

#define EXPORTED __attribute__((visibility("default")))
#define RELAXED memory_order_relaxed

static inline int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* The least and the most of what several threads tell. */

static inline void lower_to(atomic_int_fast64_t *value, int64_t most) {
    int64_t now = atomic_load_explicit(value, RELAXED);
    while (now > most && !atomic_compare_exchange_weak_explicit(value, &now, most, RELAXED, RELAXED)) {
    }
}

static inline void raise_to(atomic_int_fast64_t *value, int64_t least) {
    int64_t now = atomic_load_explicit(value, RELAXED);
    while (now < least && !atomic_compare_exchange_weak_explicit(value, &now, least, RELAXED, RELAXED)) {
    }
}

static inline void lower_device(atomic_uint_fast64_t *value, uint64_t most) {
    uint64_t now = atomic_load_explicit(value, RELAXED);
    while (now > most && !atomic_compare_exchange_weak_explicit(value, &now, most, RELAXED, RELAXED)) {
    }
}

static inline void raise_device(atomic_uint_fast64_t *value, uint64_t least) {
    uint64_t now = atomic_load_explicit(value, RELAXED);
    while (now < least && !atomic_compare_exchange_weak_explicit(value, &now, least, RELAXED, RELAXED)) {
    }
}

/* ---- communicators.c: made by init, kept for the life of the process ---- */

enum { COMMUNICATOR_QUIET, COMMUNICATOR_NAMED, COMMUNICATOR_USED }; /* no operation yet; one is naming it; written */

struct communicator {
    struct communicator *next; /* made before */
    uint32_t index;
    int table, device, nodes, ranks;
    _Atomic int rank;
    uint64_t id;
    char name[128];
    int64_t created_ns;
    atomic_int used;
    bool written;               /* only the drain knows */
    atomic_bool has_proxies;    /* a proxy moved something for it */
    atomic_uint_fast64_t order; /* of its next operation */
    atomic_uint_fast64_t ended; /* one more than the highest order of an operation that ended */
};

extern _Atomic(struct communicator *) communicators; /* the newest */
result communicator_begin(void **context, int *mask, int table, const char *name, uint64_t id, int nodes, int ranks,
                          int rank, logger log);
result communicator_end(void *context);
void communicator_use(struct communicator *communicator, const char *name, uint64_t id, int rank);
extern atomic_int mask_asked; /* -1: what a version has that is needed */
extern atomic_bool paused;
int mask_wanted(int table);
void masks_apply(void);
int communicators_live(void);
bool kernels_wanted(void);
pid_t own_process(void);
void say(const char *what, int error); /* one line by NCCL's logger */

/* ---- names.c: NCCL's words, each as a number from 1 ---- */

enum { NAMES = 256, NAME_BYTES = 64 };
uint8_t name_of(const char *text);
const char *name_text(int id); /* NULL where there is none */
int dtype_bytes(uint8_t id);

/* ---- pool.c: slots of operations and of the steps of proxies; handles name a slot and its generation ---- */

enum { OPERATIONS = 16384, STEPS = 16384 };
enum { HANDLE_GROUP = 1, HANDLE_CALL, HANDLE_OPERATION, HANDLE_KERNEL, HANDLE_PROXY, HANDLE_STEP };

/* handle: kind 4 bits | slot 20 | channel 8 | generation 32 */
static inline uint64_t handle_make(unsigned kind, unsigned slot, unsigned channel, uint32_t generation) {
    return (uint64_t)kind << 60 | (uint64_t)slot << 40 | (uint64_t)channel << 32 | generation;
}
static inline unsigned handle_kind(uint64_t handle) { return (unsigned)(handle >> 60); }
static inline unsigned handle_slot(uint64_t handle) { return (unsigned)(handle >> 40) & 0xFFFFF; }
static inline unsigned handle_channel(uint64_t handle) { return (unsigned)(handle >> 32) & 0xFF; }
static inline uint32_t handle_generation(uint64_t handle) { return (uint32_t)handle; }

/* state of a slot: generation 32 bits | LIVE | STOPPED | children that run */
#define STATE_LIVE (1u << 31)
#define STATE_STOPPED (1u << 30)
#define STATE_CHILDREN ((1u << 24) - 1)

enum { EXPECTS_SOME = 0, EXPECTS_NONE = -1, EXPECTS_NO_KERNELS = -2 }; /* how many is not known; its stop is its end */

struct operation {
    atomic_uint_fast64_t state;
    atomic_uint next_free;
    _Atomic(struct communicator *) communicator;
    struct operation_record fixed; /* what is known when it starts */
    atomic_int expected;           /* channels that will report, or one of the below */
    atomic_bool noted;             /* written as under way */
    atomic_uint_fast64_t open_channels;
    atomic_uint_fast64_t device_start, device_stop;
    atomic_int_fast64_t offset_most, host_start, host_stop, touched;
    atomic_uint_fast64_t waits[WAITS], sent, received;
    atomic_uint steps, proxy_ops, channels_ended;
};

struct step {
    atomic_uint generation; /* odd while in use */
    atomic_uint next_free;
    atomic_uint_fast64_t owner; /* handle of its operation, which it holds */
    atomic_int wait;
    atomic_int_fast64_t since;
};

struct operation *operation_take(uint32_t *generation); /* NULL: no slot is free */
uint64_t operation_publish(struct operation *operation, uint32_t generation);
struct operation *operation_hold(uint64_t handle); /* NULL: it has ended */
struct operation *operation_live(uint64_t handle); /* the same without holding it */
void operation_free(struct operation *operation);
struct operation *operation_at(unsigned slot);
unsigned operation_slot(const struct operation *operation);
unsigned operations_touched(void);
struct step *step_take(uint64_t *handle);
struct step *step_at(uint64_t handle); /* NULL: it has ended */
bool step_end(struct step *step, uint64_t handle);
void pool_forget(void);

/* ---- operations.c: an operation's life from its slot to its record ---- */

void operation_stop(uint64_t handle);
void operation_release(struct operation *operation, uint32_t generation);
void operations_cut_off(const struct communicator *communicator);
void operations_forget(void);
void operations_settle(int64_t now); /* ends those that nothing will end, notes those that take long */

/* ---- events.c, proxies.c: what NCCL tells, whatever its version ---- */

struct started {
    struct communicator *communicator;
    uint64_t call; /* handle of the call that it comes from, 0: none */
    bool message, sends, copies;
    uint64_t seq, count;
    uint8_t func, dtype, algorithm, protocol;
    int peer;
    unsigned channels;
};

void *operation_started(const struct started *started);
void *call_started(bool captured);
void *launch_started(void);
void *proxy_started(void *parent, const struct abi_proxy_op *proxy);
void proxy_stopped(uint64_t handle);
void *step_started(void *parent);
void step_state(uint64_t handle, int state, uint64_t bytes);
void step_stopped(uint64_t handle);
void *kernel_started(void *parent, unsigned channel, uint64_t device_ns);
void event_stopped(void *handle);
void event_state(void *handle, int state, uint64_t argument);

/* ---- ring.c: finished records on their way to the file ---- */

bool ring_push(const union record *record); /* false: full */
bool ring_pop(union record *record);
bool ring_ready(void);
void ring_forget(void);

/* ---- drain.c: the thread that writes ---- */

void drain_start(void);
void drain_finish(void); /* writes all there is, for two seconds at most */
void drain_wake(void);
void drain_forget(void);
void drain_hold(void);
int drain_open(const char *folder);

/* ---- log.c: the file ---- */

bool log_is_open(void);
bool log_open(const char *folder); /* NULL: the one the environment names */
bool log_write(union record *records, int count);
void log_forget(void);
int log_error(void);
uint64_t log_bytes(void);
bool log_refused(void); /* the environment asks for no recording, or writing failed */

/* ---- counters of what was lost, since the process began ---- */

struct tallies {
    atomic_uint_fast64_t operations, no_slot, no_room, no_step, late, foreign, cut_off;
};
extern struct tallies tallies;

static inline void count(atomic_uint_fast64_t *counter) { atomic_fetch_add_explicit(counter, 1, RELAXED); }

#endif
