/* Network proxies: what their steps waited for, added up in the operation that they move. */
#include "plugin.h"

void *proxy_started(void *parent, const struct abi_proxy_op *proxy) {
    uint64_t handle = (uint64_t)parent;
    if (proxy->pid != own_process()) { /* the operation is another process's, whose handles say nothing here */
        count(&tallies.foreign);
        return NULL;
    }
    if (handle_kind(handle) != HANDLE_OPERATION) return NULL;
    struct operation *operation = operation_hold(handle);
    if (operation == NULL) {
        count(&tallies.late);
        return NULL;
    }
    atomic_store_explicit(&operation->communicator->has_proxies, true, RELAXED);
    atomic_fetch_add_explicit(&operation->proxy_ops, 1, RELAXED);
    if (operation->communicator->table < 3) lower_to(&operation->host_start, now_ns());
    return (void *)handle_make(HANDLE_PROXY, handle_slot(handle), proxy->channel, handle_generation(handle));
}

void proxy_stopped(uint64_t handle) {
    struct operation *operation = operation_live(handle);
    if (operation == NULL) return;
    int64_t now = now_ns();
    if (operation->communicator->table < 3) raise_to(&operation->host_stop, now);
    atomic_store_explicit(&operation->touched, now, RELAXED);
    operation_release(operation, handle_generation(handle));
}

void *step_started(void *parent) {
    uint64_t handle = (uint64_t)parent, own;
    if (handle_kind(handle) != HANDLE_PROXY) return NULL;
    struct operation *operation = operation_hold(handle);
    if (operation == NULL) return NULL;
    struct step *step = step_take(&own);
    if (step == NULL) {
        count(&tallies.no_step);
        operation_release(operation, handle_generation(handle));
        return NULL;
    }
    atomic_store_explicit(&step->owner, handle, RELAXED);
    atomic_store_explicit(&step->wait, -1, RELAXED);
    atomic_fetch_add_explicit(&operation->steps, 1, RELAXED);
    return (void *)own;
}

/* The wait that a step is in ends. */
static int64_t end_wait(struct step *step, struct operation *operation) {
    int64_t now = now_ns();
    int wait = atomic_load_explicit(&step->wait, RELAXED);
    int64_t since = atomic_load_explicit(&step->since, RELAXED);
    if (wait >= 0) atomic_fetch_add_explicit(&operation->waits[wait], (uint64_t)(now - since), RELAXED);
    return now;
}

static struct operation *owner_of(struct step *step) {
    return operation_live(atomic_load_explicit(&step->owner, RELAXED));
}

static int wait_of(int state) {
    switch (state) {
    case STATE_SEND_GPU:
        return WAIT_SEND_GPU;
    case STATE_SEND_PEER:
        return WAIT_SEND_PEER;
    case STATE_SEND_NETWORK:
        return WAIT_SEND_NETWORK;
    case STATE_RECV_NETWORK:
        return WAIT_RECV_NETWORK;
    case STATE_RECV_FLUSH:
        return WAIT_RECV_FLUSH;
    case STATE_RECV_GPU:
        return WAIT_RECV_GPU;
    default:
        return -1;
    }
}

void step_state(uint64_t handle, int state, uint64_t bytes) {
    struct step *step = step_at(handle);
    struct operation *operation = step == NULL ? NULL : owner_of(step);
    if (operation == NULL) return;
    atomic_store_explicit(&step->since, end_wait(step, operation), RELAXED);
    atomic_store_explicit(&step->wait, wait_of(state), RELAXED);
    if (state == STATE_SEND_NETWORK) atomic_fetch_add_explicit(&operation->sent, bytes, RELAXED);
    if (state == STATE_RECV_FLUSH) atomic_fetch_add_explicit(&operation->received, bytes, RELAXED);
}

void step_stopped(uint64_t handle) {
    struct step *step = step_at(handle);
    if (step == NULL) return;
    uint64_t owner = atomic_load_explicit(&step->owner, RELAXED);
    struct operation *operation = operation_live(owner);
    if (operation != NULL) atomic_store_explicit(&operation->touched, end_wait(step, operation), RELAXED);
    if (step_end(step, handle) && operation != NULL) operation_release(operation, handle_generation(owner));
}
