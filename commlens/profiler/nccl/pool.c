/* Slots are static memory and never given back: an old handle finds another generation, never freed memory. */
#include <string.h>

#include "plugin.h"

/* A stack of free slots, and beyond `touched` slots that were never used. head: counter 32 bits | slot + 1 */
struct stack {
    atomic_uint_fast64_t head;
    atomic_uint touched;
};

static struct operation operations[OPERATIONS];
static struct step steps[STEPS];
static struct stack free_operations, free_steps;

static atomic_uint *operation_link(unsigned slot) { return &operations[slot].next_free; }
static atomic_uint *step_link(unsigned slot) { return &steps[slot].next_free; }

static int take(struct stack *stack, atomic_uint *(*link)(unsigned), unsigned size) {
    uint64_t head = atomic_load_explicit(&stack->head, memory_order_acquire);
    while ((uint32_t)head != 0) {
        unsigned slot = (uint32_t)head - 1;
        uint64_t next = ((head >> 32) + 1) << 32 | atomic_load_explicit(link(slot), RELAXED);
        if (atomic_compare_exchange_weak_explicit(&stack->head, &head, next, memory_order_acq_rel, memory_order_acquire))
            return (int)slot;
    }
    unsigned fresh = atomic_load_explicit(&stack->touched, RELAXED);
    while (fresh < size)
        if (atomic_compare_exchange_weak(&stack->touched, &fresh, fresh + 1)) return (int)fresh;
    return -1;
}

static void give(struct stack *stack, atomic_uint *(*link)(unsigned), unsigned slot) {
    uint64_t head = atomic_load_explicit(&stack->head, RELAXED), next;
    do {
        atomic_store_explicit(link(slot), (uint32_t)head, RELAXED);
        next = ((head >> 32) + 1) << 32 | (slot + 1);
    } while (!atomic_compare_exchange_weak_explicit(&stack->head, &head, next, memory_order_acq_rel, RELAXED));
}

struct operation *operation_take(uint32_t *generation) {
    int slot = take(&free_operations, operation_link, OPERATIONS);
    if (slot < 0) return NULL;
    *generation = (uint32_t)(atomic_load_explicit(&operations[slot].state, RELAXED) >> 32) + 1;
    return &operations[slot];
}

uint64_t operation_publish(struct operation *operation, uint32_t generation) {
    atomic_store_explicit(&operation->state, (uint64_t)generation << 32 | STATE_LIVE, memory_order_release);
    return handle_make(HANDLE_OPERATION, operation_slot(operation), 0, generation);
}

struct operation *operation_hold(uint64_t handle) {
    struct operation *operation = operation_at(handle_slot(handle));
    if (operation == NULL) return NULL;
    uint64_t state = atomic_load_explicit(&operation->state, memory_order_acquire);
    do {
        if (state >> 32 != handle_generation(handle) || !(state & STATE_LIVE)) return NULL;
    } while (!atomic_compare_exchange_weak_explicit(&operation->state, &state, state + 1, memory_order_acq_rel,
                                                    memory_order_acquire));
    return operation;
}

struct operation *operation_live(uint64_t handle) {
    struct operation *operation = operation_at(handle_slot(handle));
    if (operation == NULL) return NULL;
    uint64_t state = atomic_load_explicit(&operation->state, memory_order_acquire);
    return state >> 32 == handle_generation(handle) && state & STATE_LIVE ? operation : NULL;
}

void operation_free(struct operation *operation) {
    give(&free_operations, operation_link, operation_slot(operation));
}

struct operation *operation_at(unsigned slot) { return slot < OPERATIONS ? &operations[slot] : NULL; }
unsigned operation_slot(const struct operation *operation) { return (unsigned)(operation - operations); }
unsigned operations_touched(void) { return atomic_load(&free_operations.touched); }

struct step *step_take(uint64_t *handle) {
    int slot = take(&free_steps, step_link, STEPS);
    if (slot < 0) return NULL;
    uint32_t generation = atomic_fetch_add(&steps[slot].generation, 1) + 1;
    *handle = handle_make(HANDLE_STEP, (unsigned)slot, 0, generation);
    return &steps[slot];
}

struct step *step_at(uint64_t handle) {
    if (handle_slot(handle) >= STEPS) return NULL;
    struct step *step = &steps[handle_slot(handle)];
    return atomic_load_explicit(&step->generation, memory_order_acquire) == handle_generation(handle) ? step : NULL;
}

bool step_end(struct step *step, uint64_t handle) {
    uint32_t generation = handle_generation(handle);
    if (!atomic_compare_exchange_strong(&step->generation, &generation, generation + 1)) return false;
    give(&free_steps, step_link, (unsigned)(step - steps));
    return true;
}

void pool_forget(void) {
    memset(operations, 0, sizeof *operations * operations_touched());
    memset(steps, 0, sizeof *steps * atomic_load(&free_steps.touched));
    memset(&free_operations, 0, sizeof free_operations);
    memset(&free_steps, 0, sizeof free_steps);
}
