/* Communicators, the mask of events that NCCL reads at each call, and what outlives a fork. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plugin.h"

enum { MASKS = 4 }; /* copies of NCCL in one process; nobody has that many */

_Atomic(struct communicator *) communicators;
struct tallies tallies;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(int *) masks[MASKS];
static int tables[MASKS];
atomic_int mask_asked = -1;
atomic_bool paused;
static atomic_int live;
static struct communicator *inherited; /* a forked child's parent's: events may still name them */
static atomic_int process;
static _Atomic(logger) log_line;
static atomic_flag listening = ATOMIC_FLAG_INIT;

/* Steps tell what a transfer waits for; a launch bounds from below when kernels begin. */
static int needed(int table) {
    int mask = EVENT_COLLECTIVE | EVENT_MESSAGE | EVENT_PROXY_OP | EVENT_PROXY_STEP;
    if (table >= 3) mask |= EVENT_KERNEL_CHANNEL;
    if (table >= 5) mask |= EVENT_KERNEL_LAUNCH;
    if (table >= 6) mask |= EVENT_COPY_COLLECTIVE;
    return mask;
}

int mask_wanted(int table) {
    int asked = atomic_load(&mask_asked);
    if (atomic_load(&paused) || log_refused()) return 0;
    return asked < 0 ? needed(table) : asked;
}

/* A pause is for operations to come: of those that were begun NCCL tells to their ends. */
bool kernels_wanted(void) {
    int asked = atomic_load_explicit(&mask_asked, RELAXED);
    return asked < 0 || asked & EVENT_KERNEL_CHANNEL;
}

pid_t own_process(void) { return atomic_load_explicit(&process, RELAXED); }

void masks_apply(void) {
    for (int each = 0; each < MASKS; each++) {
        int *mask = atomic_load(&masks[each]);
        if (mask != NULL) __atomic_store_n(mask, mask_wanted(tables[each]), __ATOMIC_RELAXED);
    }
}

static void remember_mask(int *mask, int table) {
    for (int each = 0; each < MASKS; each++) {
        int *known = atomic_load(&masks[each]);
        if (known != NULL && known != mask) continue;
        tables[each] = table;
        atomic_store(&masks[each], mask);
        break;
    }
    __atomic_store_n(mask, mask_wanted(table), __ATOMIC_RELAXED);
}

/* Communicators of one device share its clock. The driver is asked only if the process has loaded it. */
static int current_device(void) {
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (driver == NULL) return -1;
    int device = -1, (*get)(int *) = NULL;
    *(void **)&get = dlsym(driver, "cuCtxGetDevice");
    if (get == NULL || get(&device) != 0) device = -1;
    dlclose(driver);
    return device;
}

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }

/* A child has no thread that drains and no communicators; what its parent recorded is the parent's to write. */
static void in_child(void) {
    pthread_mutex_init(&lock, NULL);
    struct communicator *known = atomic_exchange(&communicators, NULL);
    live = 0;
    for (int each = 0; each < MASKS; each++) atomic_store(&masks[each], NULL);
    drain_forget();
    log_forget();
    if (known == NULL) return;
    struct communicator *oldest = known;
    while (oldest->next != NULL) oldest = oldest->next;
    oldest->next = inherited;
    inherited = known;
    operations_forget();
    ring_forget();
    memset((void *)&tallies, 0, sizeof tallies);
}

static struct communicator *make(int table, const char *name, uint64_t id, int nodes, int ranks, int rank) {
    struct communicator *made = calloc(1, sizeof *made);
    if (made == NULL) return NULL;
    struct communicator *last = atomic_load(&communicators);
    made->next = last;
    made->index = last == NULL ? 0 : last->index + 1;
    made->table = table;
    made->device = current_device();
    made->id = id;
    made->nodes = nodes;
    made->ranks = ranks;
    made->rank = rank;
    made->created_ns = now_ns();
    if (name != NULL) strncpy(made->name, name, sizeof made->name - 1);
    return made;
}

result communicator_begin(void **context, int *mask, int table, const char *name, uint64_t id, int nodes, int ranks,
                          int rank, logger log) {
    *context = NULL;
    pthread_mutex_lock(&lock);
    if (!atomic_flag_test_and_set(&listening)) pthread_atfork(before_fork, after_fork, in_child);
    atomic_store(&process, getpid());
    if (log != NULL) atomic_store(&log_line, log);
    struct communicator *made = make(table, name, id, nodes, ranks, rank);
    if (made != NULL) {
        atomic_store(&communicators, made);
        if (live++ == 0) drain_start();
    }
    remember_mask(mask, table);
    pthread_mutex_unlock(&lock);
    *context = made;
    return 0;
}

result communicator_end(void *context) {
    if (context == NULL) return 0;
    operations_cut_off(context);
    pthread_mutex_lock(&lock);
    bool last = live > 0 && --live == 0;
    if (last)
        for (int each = 0; each < MASKS; each++) atomic_store(&masks[each], NULL);
    pthread_mutex_unlock(&lock);
    if (last) drain_finish();
    return 0;
}

/* Until version 4 NCCL tells who a communicator is only with its operations. */
void communicator_use(struct communicator *communicator, const char *name, uint64_t id, int rank) {
    if (atomic_load_explicit(&communicator->used, memory_order_acquire) == COMMUNICATOR_USED) return;
    int quiet = COMMUNICATOR_QUIET;
    if (!atomic_compare_exchange_strong(&communicator->used, &quiet, COMMUNICATOR_NAMED)) return;
    if (communicator->table < 4) {
        communicator->id = id;
        atomic_store(&communicator->rank, rank);
        if (name != NULL) strncpy(communicator->name, name, sizeof communicator->name - 1);
    }
    atomic_store_explicit(&communicator->used, COMMUNICATOR_USED, memory_order_release);
}

int communicators_live(void) { return live; }

void say(const char *what, int error) {
    char reason[128] = "";
    if (error) snprintf(reason, sizeof reason, ": %s", strerror(error));
    logger line = atomic_load(&log_line);
    if (line != NULL)
        line(LOG_WARN, SUBSYSTEM_PROFILE, __func__, __LINE__, "commlens: %s%s; the job goes on", what, reason);
    else
        fprintf(stderr, "commlens: %s%s; the job goes on\n", what, reason);
}
