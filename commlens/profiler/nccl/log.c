/* The file: made with the first record, appended to, never read. What fails costs the recording, with one line. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plugin.h"

enum { SAME_PROCESS = 100, PATH_BYTES = 4096 };

static int file = -1;
static atomic_int failed;
static atomic_uint_fast64_t written;

bool log_is_open(void) { return file >= 0; }
int log_error(void) { return atomic_load(&failed); }
uint64_t log_bytes(void) { return atomic_load(&written); }

static bool is_one_of(const char *value, const char *const *words) {
    for (; *words != NULL; words++)
        if (!strcasecmp(value, *words)) return true;
    return false;
}

static bool asked_for_none(void) {
    static const char *const no[] = {"0", "off", "false", "no", NULL};
    const char *value = getenv("COMMLENS"), *own = getenv("COMMLENS_NCCL_FOLDER");
    return (own == NULL || *own == 0) && value != NULL && is_one_of(value, no);
}

bool log_refused(void) {
    static atomic_int asked; /* 1: no, 2: yes */
    if (atomic_load(&failed)) return true;
    if (!atomic_load(&asked)) atomic_store(&asked, asked_for_none() ? 2 : 1);
    return atomic_load(&asked) == 2;
}

static const char *folder_of_environment(void) {
    static const char *const yes[] = {"", "1", "on", "true", "yes", NULL};
    const char *own = getenv("COMMLENS_NCCL_FOLDER");
    if (own != NULL && *own) return own;
    const char *value = getenv("COMMLENS");
    return value == NULL || is_one_of(value, yes) ? "commlens-runs" : value;
}

static bool fail(const char *what, int error) {
    int none = 0;
    if (atomic_compare_exchange_strong(&failed, &none, error)) say(what, error);
    if (file >= 0) close(file);
    file = -1;
    return false;
}

static bool make_folders(const char *path) {
    char part[PATH_BYTES];
    size_t length = strlen(path);
    if (length >= sizeof part) return false;
    for (size_t each = 1; each <= length; each++) {
        if (path[each] != '/' && path[each] != 0) continue;
        memcpy(part, path, each);
        part[each] = 0;
        if (mkdir(part, 0777) < 0 && errno != EEXIST) return false;
    }
    return true;
}

static int make_file(const char *folder, const char *host) {
    char path[PATH_BYTES], more[16] = "";
    for (int each = 1; each < SAME_PROCESS; each++) {
        if (each > 1) snprintf(more, sizeof more, "-%d", each);
        int length = snprintf(path, sizeof path, "%s/nccl-%s-%d%s.events", folder, host, (int)getpid(), more);
        if (length < 0 || length >= (int)sizeof path) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int made = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
        if (made >= 0 || errno != EEXIST) return made;
    }
    return -1;
}

static void read_clocks(struct header *header) {
    int64_t best = INT64_MAX;
    for (int each = 0; each < 5; each++) {
        struct timespec wall;
        int64_t before = now_ns();
        clock_gettime(CLOCK_REALTIME, &wall);
        int64_t after = now_ns();
        if (after - before >= best) continue;
        best = after - before;
        header->monotonic_ns = before + best / 2;
        header->wall_ns = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec;
    }
}

static void read_boot(struct header *header) {
    int from = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (from < 0) return;
    ssize_t length = read(from, header->boot_id, sizeof header->boot_id - 1);
    close(from);
    if (length > 0) header->boot_id[strcspn(header->boot_id, "\n")] = 0;
}

static struct communicator *first_communicator(void) {
    struct communicator *each = atomic_load(&communicators);
    while (each != NULL && each->next != NULL) each = each->next;
    return each;
}

static bool put(const void *from, size_t size) {
    const char *bytes = from;
    while (size > 0) {
        ssize_t done = write(file, bytes, size);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return fail("NCCL operations are no longer recorded", done < 0 ? errno : ENOSPC);
        atomic_fetch_add(&written, (uint64_t)done);
        bytes += done;
        size -= (size_t)done;
    }
    return true;
}

bool log_open(const char *folder) {
    if (log_refused()) return false;
    struct header header = {.version = FILE_VERSION, .header_bytes = HEADER_BYTES, .record_bytes = RECORD_BYTES};
    const struct communicator *first = first_communicator();
    memcpy(header.magic, FILE_MAGIC, sizeof header.magic);
    header.pid = (uint32_t)getpid();
    header.rank = first == NULL ? -1 : first->rank;
    header.table = first == NULL ? 0 : first->table;
    read_clocks(&header);
    if (gethostname(header.host, sizeof header.host - 1) < 0) strcpy(header.host, "unknown");
    read_boot(&header);
    if (folder == NULL) folder = folder_of_environment();
    file = make_folders(folder) ? make_file(folder, header.host) : -1;
    if (file < 0) return fail("NCCL operations are not recorded", errno);
    return put(&header, sizeof header);
}

/* The sum of a record's words, each times a number of its own: a page of zeros or of another record has another. */
static uint32_t check_of(const union record *record) {
    uint32_t sum = 0x434F4D4D;
    for (unsigned each = 0; each < RECORD_BYTES / 4; each++)
        if (each != 1) sum += record->words[each] * (2 * each + 0x9E3779B1u);
    return sum;
}

bool log_write(union record *records, int count) {
    if (file < 0) return false;
    for (int each = 0; each < count; each++) records[each].words[1] = check_of(&records[each]);
    return put(records, (size_t)count * RECORD_BYTES);
}

void log_forget(void) {
    if (file >= 0) close(file);
    file = -1;
    atomic_store(&failed, 0);
    atomic_store(&written, 0);
}
