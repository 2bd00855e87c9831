/* An operation ends when all its channels have; NCCL's own stop only says that it was handed over. */
#include <pthread.h>

#include "plugin.h"

enum { QUIET_NS = 50000000, SLOW_NS = 1000000000, CROWD = OPERATIONS / 4 * 3 };

static pthread_mutex_t settling = PTHREAD_MUTEX_INITIALIZER; /* of threads that go through all slots */
static bool crowded; /* more are under way than a device has room for: NCCL does not tell of their kernels */

/* Proxies may tell of an operation after its kernel ended: such operations end a little later, see `settle`. */
static bool lingers(struct operation *operation) {
    struct communicator *own = operation->communicator;
    return own->nodes > 1 || atomic_load_explicit(&own->has_proxies, RELAXED);
}

static bool all_ended(struct operation *operation) {
    int expected = atomic_load_explicit(&operation->expected, RELAXED);
    int ended = (int)atomic_load_explicit(&operation->channels_ended, RELAXED);
    return expected == EXPECTS_NONE || (expected > 0 && ended >= expected);
}

static void describe(struct operation *operation, union record *record, unsigned flags) {
    struct operation_record *into = &record->operation;
    *into = operation->fixed;
    into->kind = RECORD_OPERATION;
    into->flags |= (uint16_t)flags;
    into->device_start_ns = atomic_load_explicit(&operation->device_start, RELAXED);
    into->device_stop_ns = atomic_load_explicit(&operation->device_stop, RELAXED);
    into->offset_most_ns = atomic_load_explicit(&operation->offset_most, RELAXED);
    into->host_start_ns = atomic_load_explicit(&operation->host_start, RELAXED);
    into->host_stop_ns = atomic_load_explicit(&operation->host_stop, RELAXED);
    for (int each = 0; each < WAITS; each++)
        into->waits_ns[each] = atomic_load_explicit(&operation->waits[each], RELAXED);
    into->sent_bytes = atomic_load_explicit(&operation->sent, RELAXED);
    into->received_bytes = atomic_load_explicit(&operation->received, RELAXED);
    into->steps = atomic_load_explicit(&operation->steps, RELAXED);
    into->proxy_ops = atomic_load_explicit(&operation->proxy_ops, RELAXED);
    into->channels_ended = (uint16_t)atomic_load_explicit(&operation->channels_ended, RELAXED);
    if (into->device_start_ns == UINT64_MAX) into->device_start_ns = 0;
    if (into->host_start_ns == INT64_MAX) into->host_start_ns = 0;
}

static void emit(struct operation *operation, unsigned flags) {
    union record record;
    describe(operation, &record, flags);
    if (flags & FLAG_COMPLETE) raise_device(&operation->communicator->ended, record.operation.order + 1);
    operation_free(operation);
    if (flags & FLAG_CUT_OFF) count(&tallies.cut_off);
    if (!ring_push(&record)) count(&tallies.no_room);
}

/* From `state` to the end of this generation; false where another thread was quicker. */
static bool end(struct operation *operation, uint64_t state, unsigned flags) {
    uint64_t ended = (state >> 32) << 32;
    if (!atomic_compare_exchange_strong(&operation->state, &state, ended)) return false;
    emit(operation, flags);
    return true;
}

static void leave(struct operation *operation, uint32_t generation, bool stops) {
    uint64_t state = atomic_load_explicit(&operation->state, memory_order_acquire), next;
    bool last;
    do {
        if (state >> 32 != generation || !(state & STATE_LIVE)) return; /* its communicator ended */
        next = stops ? state | STATE_STOPPED : state;
        if (next & STATE_CHILDREN) next--;
        last = !(next & STATE_CHILDREN) && next & STATE_STOPPED && all_ended(operation) && !lingers(operation);
        if (last) next = (state >> 32) << 32;
    } while (!atomic_compare_exchange_weak_explicit(&operation->state, &state, next, memory_order_acq_rel,
                                                    memory_order_acquire));
    if (last) emit(operation, FLAG_COMPLETE);
}

void operation_release(struct operation *operation, uint32_t generation) { leave(operation, generation, false); }

void operation_stop(uint64_t handle) {
    struct operation *operation = operation_hold(handle);
    if (operation != NULL) leave(operation, handle_generation(handle), true);
}

/* The operation in a slot, held, and its state then; NULL where there is none. */
static struct operation *hold_slot(unsigned slot, uint64_t *state) {
    struct operation *operation = operation_at(slot);
    uint64_t found = atomic_load_explicit(&operation->state, memory_order_acquire);
    if (!(found & STATE_LIVE)) return NULL;
    if (operation_hold(handle_make(HANDLE_OPERATION, slot, 0, (uint32_t)(found >> 32))) == NULL) return NULL;
    *state = atomic_load_explicit(&operation->state, memory_order_acquire);
    return operation;
}

/* Whether it was handed over and nothing but the caller holds it. */
static bool is_idle(uint64_t state) { return state & STATE_STOPPED && (state & STATE_CHILDREN) == 1; }

/* Whether nothing more is to come of an idle operation. */
static bool is_over(struct operation *operation, int64_t now, unsigned *flags) {
    int64_t quiet = now - atomic_load_explicit(&operation->touched, RELAXED);
    int expected = atomic_load_explicit(&operation->expected, RELAXED);
    bool ended = atomic_load_explicit(&operation->channels_ended, RELAXED) > 0;
    bool moved = atomic_load_explicit(&operation->proxy_ops, RELAXED) > 0;
    bool passed = atomic_load_explicit(&operation->communicator->ended, RELAXED) > operation->fixed.order + 1;
    *flags = FLAG_COMPLETE;
    if (all_ended(operation)) return quiet > QUIET_NS;
    if (expected <= 0 && (ended || (expected == EXPECTS_NO_KERNELS && moved))) return quiet > QUIET_NS;
    *flags = 0;
    return quiet > SLOW_NS && (passed || crowded || expected == EXPECTS_NO_KERNELS);
}

static void cut_off(struct operation *operation, uint64_t state) {
    while (state & STATE_LIVE) {
        unsigned flags = FLAG_CUT_OFF;
        if (!is_idle(state) || !is_over(operation, INT64_MAX / 2, &flags)) flags = FLAG_CUT_OFF;
        if (end(operation, state, flags)) break;
        state = atomic_load_explicit(&operation->state, memory_order_acquire);
    }
}

void operations_cut_off(const struct communicator *communicator) {
    uint64_t state;
    pthread_mutex_lock(&settling);
    for (unsigned slot = 0; slot < operations_touched(); slot++) {
        struct operation *operation = hold_slot(slot, &state);
        if (operation == NULL) continue;
        if (operation->communicator == communicator)
            cut_off(operation, state);
        else
            operation_release(operation, (uint32_t)(state >> 32));
    }
    pthread_mutex_unlock(&settling);
}

static void note(struct operation *operation) {
    union record record;
    describe(operation, &record, FLAG_UNDER_WAY);
    if (!ring_push(&record)) count(&tallies.no_room);
    atomic_store_explicit(&operation->noted, true, RELAXED);
}

static bool takes_long(struct operation *operation, int64_t now) {
    return !atomic_load_explicit(&operation->noted, RELAXED) && now - operation->fixed.enqueued_ns > SLOW_NS;
}

void operations_settle(int64_t now) {
    uint64_t state;
    unsigned live = 0;
    pthread_mutex_lock(&settling);
    for (unsigned slot = 0; slot < operations_touched(); slot++) {
        struct operation *operation = hold_slot(slot, &state);
        if (operation == NULL) continue;
        live++;
        unsigned flags;
        if (is_idle(state) && is_over(operation, now, &flags) && end(operation, state, flags)) continue;
        if (takes_long(operation, now)) note(operation);
        operation_release(operation, (uint32_t)(state >> 32));
    }
    crowded = live > CROWD;
    pthread_mutex_unlock(&settling);
}

void operations_forget(void) {
    pthread_mutex_init(&settling, NULL);
    crowded = false;
    pool_forget();
}
