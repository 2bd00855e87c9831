/* What NCCL tells, on its threads: nothing here waits, allocates or fails. */
#include <string.h>

#include "plugin.h"

/* When this thread last launched a kernel: a task that it then reports began later on the device. */
static _Thread_local int64_t launched_ns;

/* ---- calls: their handle is the time at which they began, so that they need no slot ----
 * kind 4 bits | captured 1 | time 59 */

void *call_started(bool captured) {
    uint64_t time = (uint64_t)now_ns() & ((1ull << 59) - 1);
    return (void *)((uint64_t)HANDLE_CALL << 60 | (uint64_t)captured << 59 | time);
}

static bool call_captured(uint64_t call) { return handle_kind(call) == HANDLE_CALL && call >> 59 & 1; }

void *launch_started(void) {
    launched_ns = now_ns();
    return NULL;
}

/* The latest time at which the device cannot have begun. A captured operation is reported before the graph comes to
 * it; others after they were launched, by the thread that launched them. */
static int64_t not_before(const struct started *started, int64_t now) {
    if (started->copies || started->communicator->table < 5) return 0;
    if (call_captured(started->call)) return now;
    int64_t called = handle_kind(started->call) == HANDLE_CALL ? (int64_t)(started->call & ((1ull << 59) - 1)) : 0;
    return launched_ns > called ? launched_ns : called;
}

/* ---- operations ---- */

static void reset(struct operation *operation, int64_t now) {
    atomic_store_explicit(&operation->noted, false, RELAXED);
    atomic_store_explicit(&operation->open_channels, 0, RELAXED);
    atomic_store_explicit(&operation->device_start, UINT64_MAX, RELAXED);
    atomic_store_explicit(&operation->device_stop, 0, RELAXED);
    atomic_store_explicit(&operation->offset_most, NO_OFFSET, RELAXED);
    atomic_store_explicit(&operation->host_start, INT64_MAX, RELAXED);
    atomic_store_explicit(&operation->host_stop, 0, RELAXED);
    atomic_store_explicit(&operation->touched, now, RELAXED);
    for (int each = 0; each < WAITS; each++) atomic_store_explicit(&operation->waits[each], 0, RELAXED);
    atomic_store_explicit(&operation->sent, 0, RELAXED);
    atomic_store_explicit(&operation->received, 0, RELAXED);
    atomic_store_explicit(&operation->steps, 0, RELAXED);
    atomic_store_explicit(&operation->proxy_ops, 0, RELAXED);
    atomic_store_explicit(&operation->channels_ended, 0, RELAXED);
}

static unsigned flags_of(const struct started *started) {
    unsigned flags = started->message ? FLAG_MESSAGE : 0;
    if (started->sends) flags |= FLAG_SEND;
    if (started->copies) flags |= FLAG_COPY_ENGINE;
    if (call_captured(started->call)) flags |= FLAG_CAPTURED;
    return flags;
}

/* How many channels will report. Version 3 tells the most there can be. */
static int expected_of(const struct started *started) {
    if (started->copies) return EXPECTS_NONE;
    if (started->communicator->table < 3 || !kernels_wanted()) return EXPECTS_NO_KERNELS;
    return started->communicator->table == 3 ? EXPECTS_SOME : (int)started->channels;
}

static void fill(struct operation *operation, const struct started *started, uint64_t order, int64_t now) {
    struct operation_record *fixed = &operation->fixed;
    memset(fixed, 0, sizeof *fixed);
    fixed->communicator = started->communicator->index;
    fixed->flags = (uint16_t)flags_of(started);
    fixed->channels = (uint16_t)started->channels;
    fixed->order = order;
    fixed->seq = started->seq;
    fixed->count = started->count;
    fixed->bytes = started->count * (uint64_t)dtype_bytes(started->dtype);
    fixed->enqueued_ns = now;
    fixed->before_ns = not_before(started, now);
    fixed->peer = started->peer;
    fixed->func = started->func;
    fixed->dtype = started->dtype;
    fixed->algorithm = started->algorithm;
    fixed->protocol = started->protocol;
    atomic_store_explicit(&operation->communicator, started->communicator, RELAXED);
    atomic_store_explicit(&operation->expected, expected_of(started), RELAXED);
}

void *operation_started(const struct started *started) {
    int64_t now = now_ns();
    uint64_t order = atomic_fetch_add_explicit(&started->communicator->order, 1, RELAXED);
    uint32_t generation;
    struct operation *operation = operation_take(&generation);
    count(&tallies.operations);
    if (operation == NULL) {
        count(&tallies.no_slot);
        return NULL;
    }
    reset(operation, now);
    fill(operation, started, order, now);
    return (void *)operation_publish(operation, generation);
}

/* ---- kernels: no slot of their own, the operation keeps the first start and the last stop ---- */

void *kernel_started(void *parent, unsigned channel, uint64_t device_ns) {
    int64_t now = now_ns();
    uint64_t handle = (uint64_t)parent;
    if (handle_kind(handle) != HANDLE_OPERATION || channel >= 64) return NULL;
    struct operation *operation = operation_hold(handle);
    if (operation == NULL) {
        count(&tallies.late);
        return NULL;
    }
    uint64_t bit = 1ull << channel;
    if (atomic_fetch_or(&operation->open_channels, bit) & bit) { /* the same again: the first one counts */
        operation_release(operation, handle_generation(handle));
        return NULL;
    }
    if (device_ns != 0) {
        lower_device(&operation->device_start, device_ns);
        lower_to(&operation->offset_most, now - (int64_t)device_ns);
    }
    lower_to(&operation->host_start, now);
    return (void *)handle_make(HANDLE_KERNEL, handle_slot(handle), channel, handle_generation(handle));
}

static void kernel_state(uint64_t handle, uint64_t device_ns) {
    struct operation *operation = operation_live(handle);
    if (operation == NULL || device_ns == 0) return;
    int64_t now = now_ns();
    raise_device(&operation->device_stop, device_ns);
    lower_to(&operation->offset_most, now - (int64_t)device_ns);
    raise_to(&operation->host_stop, now);
    atomic_store_explicit(&operation->touched, now, RELAXED);
}

static void kernel_stopped(uint64_t handle) {
    struct operation *operation = operation_live(handle);
    if (operation == NULL) return;
    uint64_t bit = 1ull << handle_channel(handle);
    if (!(atomic_fetch_and(&operation->open_channels, ~bit) & bit)) return;
    if (operation->communicator->table < 4) {
        int64_t now = now_ns();
        raise_to(&operation->host_stop, now);
        atomic_store_explicit(&operation->touched, now, RELAXED);
    }
    atomic_fetch_add_explicit(&operation->channels_ended, 1, RELAXED);
    operation_release(operation, handle_generation(handle));
}

/* ---- of any kind ---- */

void event_stopped(void *pointer) {
    uint64_t handle = (uint64_t)pointer;
    switch (handle_kind(handle)) {
    case HANDLE_OPERATION:
        operation_stop(handle);
        break;
    case HANDLE_KERNEL:
        kernel_stopped(handle);
        break;
    case HANDLE_PROXY:
        proxy_stopped(handle);
        break;
    case HANDLE_STEP:
        step_stopped(handle);
        break;
    default: /* groups and calls are only handles */
        break;
    }
}

void event_state(void *pointer, int state, uint64_t argument) {
    uint64_t handle = (uint64_t)pointer;
    if (handle_kind(handle) == HANDLE_KERNEL && state == STATE_KERNEL_STOPPED)
        kernel_state(handle, argument);
    else if (handle_kind(handle) == HANDLE_STEP)
        step_state(handle, state, argument);
}
