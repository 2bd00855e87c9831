/* The file: a header, then records of one size. `commlens/trace/nccl/layout.py` says the same in Python. */
#ifndef COMMLENS_NCCL_RECORDS_H
#define COMMLENS_NCCL_RECORDS_H

#include <stdint.h>

#define FILE_MAGIC "COMMLNCC"
enum { FILE_VERSION = 1, HEADER_BYTES = 256, RECORD_BYTES = 192 };

enum { RECORD_COMMUNICATOR = 1, RECORD_NAME = 2, RECORD_OPERATION = 3, RECORD_TALLY = 4 };

enum {
    FLAG_MESSAGE = 1,      /* send or recv */
    FLAG_SEND = 2,
    FLAG_CAPTURED = 4,     /* replayed by a CUDA graph */
    FLAG_COPY_ENGINE = 8,  /* moved by copy engines: no kernel, no device times */
    FLAG_COMPLETE = 16,    /* all its channels ended */
    FLAG_UNDER_WAY = 32,   /* written while it runs; a later record with the same order replaces it */
    FLAG_CUT_OFF = 64,     /* its communicator ended first */
};

enum { WAIT_SEND_GPU, WAIT_SEND_PEER, WAIT_SEND_NETWORK, WAIT_RECV_NETWORK, WAIT_RECV_FLUSH, WAIT_RECV_GPU, WAITS };

#define NO_OFFSET INT64_MAX /* nothing bounds the device's clock */

struct header {
    char magic[8];
    uint32_t version, header_bytes, record_bytes, pid;
    int32_t rank, table; /* of the first communicator (-1: not told); version of NCCL's table */
    int64_t monotonic_ns, wall_ns; /* read at the same time */
    char host[64], boot_id[40];
    char reserved[HEADER_BYTES - 152];
};

struct communicator_record {
    uint32_t kind, check, index;
    int32_t device; /* ordinal, -1: not known */
    uint64_t id;
    int32_t ranks, rank, nodes, table; /* 0, -1, 0 where NCCL does not tell */
    int64_t created_ns;
    char name[128];
    char reserved[16];
};

struct name_record {
    uint32_t kind, check, id, zero;
    char text[64];
    char reserved[112];
};

/* Host times are CLOCK_MONOTONIC, device times the GPU's global timer; 0 stands for none. */
struct operation_record {
    uint32_t kind, check, communicator;
    uint16_t flags, channels;
    uint64_t order, seq, count, bytes;
    int64_t enqueued_ns;    /* NCCL's thread has handed it over */
    int64_t before_ns;      /* the host knew at this time that no channel had begun */
    uint64_t device_start_ns, device_stop_ns; /* first channel, last channel */
    int64_t offset_most_ns; /* least of (host time at which a device time was read - that device time) */
    int64_t host_start_ns, host_stop_ns; /* when the first start and the last stop were seen */
    uint64_t waits_ns[WAITS]; /* sums over the steps of its proxies */
    uint64_t sent_bytes, received_bytes;
    uint32_t steps, proxy_ops;
    int32_t peer; /* root or peer in the communicator, -1: none */
    uint8_t func, dtype, algorithm, protocol; /* ids of names, 0: none */
    uint16_t channels_ended;
    uint8_t reserved[6];
};

struct tally_record {
    uint32_t kind, check;
    int64_t time_ns;
    uint64_t operations, no_slot, no_room, no_step, late, foreign, cut_off; /* since the process began */
    char reserved[RECORD_BYTES - 72];
};

union record {
    struct operation_record operation;
    struct communicator_record communicator;
    struct name_record name;
    struct tally_record tally;
    uint32_t words[RECORD_BYTES / 4];
};

_Static_assert(sizeof(struct header) == HEADER_BYTES, "header");
_Static_assert(sizeof(struct operation_record) == RECORD_BYTES, "operation");
_Static_assert(sizeof(struct communicator_record) == RECORD_BYTES, "communicator");
_Static_assert(sizeof(struct name_record) == RECORD_BYTES, "name");
_Static_assert(sizeof(struct tally_record) == RECORD_BYTES, "tally");
_Static_assert(sizeof(union record) == RECORD_BYTES, "record");

#endif
