/* The one thread that touches files. It ends with the last communicator, and begins again with the next. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "plugin.h"

enum { EVERY_NS = 100000000, BATCH = 512, FOLDER_BYTES = 3072, PATIENCE_S = 2, POLITE = 5 };

static sem_t wake; /* of zeros, which is one that nobody posted to */
static pthread_t thread;
static atomic_bool running, stopping, exiting, held, has_folder;
static char folder[FOLDER_BYTES];
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER; /* of whoever writes, who may have to wait for a disk */
static bool name_written[NAMES];
static struct tallies told;

static void keep_names(void) {
    for (int each = 1; each < NAMES; each++) {
        const char *text = name_written[each] ? NULL : name_text(each);
        if (text == NULL) continue;
        union record record = {.name = {.kind = RECORD_NAME, .id = (uint32_t)each}};
        memcpy(record.name.text, text, sizeof record.name.text);
        name_written[each] = log_write(&record, 1);
    }
}

static void keep_communicator(struct communicator *each) {
    union record record = {.communicator = {.kind = RECORD_COMMUNICATOR, .index = each->index, .device = each->device,
                                            .id = each->id, .ranks = each->ranks, .rank = each->rank,
                                            .nodes = each->nodes, .table = each->table,
                                            .created_ns = each->created_ns}};
    memcpy(record.communicator.name, each->name, sizeof record.communicator.name);
    each->written = log_write(&record, 1);
}

/* What operations refer to is written before them. */
static void keep_communicators(void) {
    for (struct communicator *each = atomic_load(&communicators); each != NULL; each = each->next)
        if (!each->written && atomic_load_explicit(&each->used, memory_order_acquire) == COMMUNICATOR_USED)
            keep_communicator(each);
}

static bool nothing_new(uint64_t *values) {
    atomic_uint_fast64_t *now = (atomic_uint_fast64_t *)&tallies, *last = (atomic_uint_fast64_t *)&told;
    bool same = true;
    for (unsigned each = 0; each < sizeof tallies / sizeof *now; each++) {
        values[each] = atomic_load_explicit(&now[each], RELAXED);
        same = same && values[each] == atomic_load_explicit(&last[each], RELAXED);
        atomic_store_explicit(&last[each], values[each], RELAXED);
    }
    return same;
}

static void keep_tally(void) {
    uint64_t values[sizeof tallies / sizeof(uint64_t)];
    if (nothing_new(values)) return;
    union record record = {.tally = {.kind = RECORD_TALLY, .time_ns = now_ns()}};
    memcpy(&record.tally.operations, values, sizeof values);
    log_write(&record, 1);
}

static void write_all(void) {
    static union record batch[BATCH];
    while (ring_ready()) {
        int count = 0;
        while (count < BATCH && ring_pop(&batch[count])) count++;
        keep_communicators();
        keep_names();
        log_write(batch, count);
    }
}

/* A name may have been given without room for what it names: everything stays in the ring then. */
static void pass(void) {
    /* At exit nothing is waited for: what has not ended is written as it is. */
    operations_settle(atomic_load(&exiting) ? INT64_MAX / 2 : now_ns());
    if (atomic_load(&held) && !atomic_load(&has_folder)) return;
    pthread_mutex_lock(&writing);
    if (ring_ready() && !log_is_open()) log_open(atomic_load(&has_folder) ? folder : NULL);
    if (log_is_open() || log_refused()) {
        write_all();
        if (log_is_open()) keep_tally();
    }
    pthread_mutex_unlock(&writing);
}

static void sleep_a_little(void) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += EVERY_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (sem_timedwait(&wake, &until) < 0 && errno == EINTR) {
    }
}

static void *drain(void *nothing) {
    (void)nothing;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), POLITE);
    pthread_setname_np(pthread_self(), "commlens-nccl");
    while (!atomic_load(&stopping)) {
        sleep_a_little();
        pass();
    }
    pass();
    return NULL;
}

/* Signals are the job's: with all of them blocked, a file at its size limit is an error like any other. */
void drain_start(void) {
    if (atomic_exchange(&running, true)) return;
    sigset_t all, before;
    sigfillset(&all);
    atomic_store(&stopping, false);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int error = pthread_create(&thread, NULL, drain, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) return;
    atomic_store(&running, false);
    say("NCCL operations are not recorded: no thread", error);
}

void drain_wake(void) {
    if (atomic_load_explicit(&running, RELAXED)) sem_post(&wake);
}

void drain_finish(void) {
    if (!atomic_load(&running)) return;
    atomic_store(&stopping, true);
    sem_post(&wake);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    /* A thread that waits for a disk is left behind, and no other one is started. */
    if (pthread_timedjoin_np(thread, NULL, &until) == 0) atomic_store(&running, false);
}

void drain_hold(void) { atomic_store(&held, true); }

int drain_open(const char *path) {
    if (strlen(path) >= FOLDER_BYTES) return ENAMETOOLONG;
    if (atomic_load(&has_folder)) return EEXIST;
    strcpy(folder, path);
    atomic_store(&has_folder, true);
    if (atomic_load(&running))
        drain_wake();
    else
        pass();
    return log_error();
}

void drain_forget(void) {
    pthread_mutex_init(&writing, NULL);
    sem_init(&wake, 0, 0);
    atomic_store(&running, false);
    atomic_store(&held, false);
    atomic_store(&has_folder, false);
    memset(name_written, 0, sizeof name_written);
    memset((void *)&told, 0, sizeof told);
}

__attribute__((destructor)) static void at_exit(void) {
    atomic_store(&exiting, true);
    drain_finish();
}
