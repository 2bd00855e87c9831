/* What Python calls, by ctypes; `commlens/profiler/nccl_plugin.py` has the same structure. */
#include "plugin.h"

struct statistics {
    uint64_t operations, no_slot, no_room, no_step, late, foreign, cut_off, written_bytes;
    int32_t error, mask, communicators, reserved;
};

EXPORTED void commlens_nccl_pause(void) {
    atomic_store(&paused, true);
    masks_apply();
}

EXPORTED void commlens_nccl_resume(void) {
    atomic_store(&paused, false);
    masks_apply();
}

/* Which events NCCL is asked for; a negative number asks for those that are needed. Returns what was asked before. */
EXPORTED int commlens_nccl_mask(int mask) {
    int before = atomic_exchange(&mask_asked, mask);
    masks_apply();
    return before;
}

/* A folder will be named later: what happens until then is kept, as far as there is room. */
EXPORTED void commlens_nccl_hold(void) { drain_hold(); }

/* The folder to write into. Returns 0, or the errno of what failed. */
EXPORTED int commlens_nccl_open(const char *folder) { return drain_open(folder); }

EXPORTED void commlens_nccl_stats(struct statistics *into) {
    into->operations = atomic_load(&tallies.operations);
    into->no_slot = atomic_load(&tallies.no_slot);
    into->no_room = atomic_load(&tallies.no_room);
    into->no_step = atomic_load(&tallies.no_step);
    into->late = atomic_load(&tallies.late);
    into->foreign = atomic_load(&tallies.foreign);
    into->cut_off = atomic_load(&tallies.cut_off);
    into->written_bytes = log_bytes();
    into->error = log_error();
    into->mask = mask_wanted(7);
    into->communicators = communicators_live();
    into->reserved = 0;
}
