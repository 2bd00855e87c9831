/* Many threads push, one pops. A cell's turn is its position when free and its position + 1 when filled. */
#include <string.h>

#include "plugin.h"

enum { CELLS = 32768, WAKE_EVERY = CELLS / 8 };

static struct {
    atomic_uint_fast64_t turn; /* its position is added: memory of zeros is an empty ring */
    union record record;
} cells[CELLS];
static atomic_uint_fast64_t tail;
static uint64_t head; /* of the one that pops */

static uint64_t turn_of(uint64_t place) {
    return atomic_load_explicit(&cells[place % CELLS].turn, memory_order_acquire) + place % CELLS;
}

static void set_turn(uint64_t place, uint64_t turn) {
    atomic_store_explicit(&cells[place % CELLS].turn, turn - place % CELLS, memory_order_release);
}

bool ring_push(const union record *record) {
    uint64_t place = atomic_load_explicit(&tail, RELAXED);
    for (;;) {
        int64_t ahead = (int64_t)(turn_of(place) - place);
        if (ahead < 0) return false;
        if (ahead > 0)
            place = atomic_load_explicit(&tail, RELAXED);
        else if (atomic_compare_exchange_weak_explicit(&tail, &place, place + 1, RELAXED, RELAXED))
            break;
    }
    cells[place % CELLS].record = *record;
    set_turn(place, place + 1);
    if (place % WAKE_EVERY == WAKE_EVERY - 1) drain_wake();
    return true;
}

bool ring_ready(void) { return turn_of(head) == head + 1; }

bool ring_pop(union record *record) {
    if (!ring_ready()) return false;
    *record = cells[head % CELLS].record;
    set_turn(head, head + CELLS);
    head++;
    return true;
}

void ring_forget(void) {
    memset(cells, 0, sizeof cells);
    atomic_store(&tail, 0);
    head = 0;
}
