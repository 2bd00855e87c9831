/* What NCCL hands to a profiler plugin, versions 1 to 7: the order and types of fields, no more.
 *
 * NCCL takes the newest table it knows. Every event has one descriptor, a union over kinds of events; only members
 * that are read here have names that matter. Version 7 is version 6 with fields added behind those of version 6,
 * which are not read: a fork of NCCL calls version 6's descriptors version 7.
 */
#ifndef COMMLENS_NCCL_ABI_H
#define COMMLENS_NCCL_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

_Static_assert(sizeof(void *) == 8, "handles are 64 bits wide");

enum {
    EVENT_GROUP = 1 << 0,
    EVENT_COLLECTIVE = 1 << 1,
    EVENT_MESSAGE = 1 << 2,
    EVENT_PROXY_OP = 1 << 3,
    EVENT_PROXY_STEP = 1 << 4,
    EVENT_KERNEL_CHANNEL = 1 << 6,
    EVENT_COLLECTIVE_CALL = 1 << 9,
    EVENT_MESSAGE_CALL = 1 << 10,
    EVENT_KERNEL_LAUNCH = 1 << 11,
    EVENT_COPY_COLLECTIVE = 1 << 12,
};

enum {
    STATE_SEND_GPU = 8,
    STATE_SEND_NETWORK = 9,
    STATE_RECV_NETWORK = 10,
    STATE_RECV_FLUSH = 11,
    STATE_RECV_GPU = 12,
    STATE_SEND_PEER = 20,
    STATE_KERNEL_STOPPED = 22,
};

enum { LOG_WARN = 2, SUBSYSTEM_PROFILE = 0x4000 };

typedef int result; /* 0 is success */
typedef void (*logger)(int level, unsigned long subsystem, const char *file, int line, const char *format, ...);

struct abi_proxy_op {
    pid_t pid;
    uint8_t channel;
    int peer, steps, chunk_bytes, sends;
};
struct abi_kernel {
    uint8_t channel;
    uint64_t device_ns;
};
struct abi_call {
    const char *func;
    size_t count;
    const char *dtype;
    int root;
    void *stream;
    bool captured;
};
struct abi_message_call {
    const char *func;
    size_t count;
    const char *dtype;
    void *stream;
    bool captured;
};

struct abi_collective_v1 {
    const char *name;
    uint64_t communicator, seq;
    uint8_t func;
    const void *from;
    void *into;
    size_t count;
    int root;
    uint8_t dtype;
    uint32_t reduction;
    size_t traffic_bytes;
    uint8_t channels, warps, algorithm, protocol;
    int collnet, nvls;
};
struct abi_message_v1 {
    const char *name;
    uint64_t communicator;
    uint8_t func;
    void *buffer;
    uint8_t dtype;
    size_t count;
    int peer;
};
struct abi_collective_v2 {
    const char *name;
    uint64_t communicator, seq;
    const char *func;
    const void *from;
    void *into;
    size_t count;
    int root;
    const char *dtype;
    size_t traffic_bytes;
    uint8_t channels, warps;
    const char *algorithm, *protocol;
};
struct abi_message_v2 { /* and 3 */
    const char *name;
    uint64_t communicator;
    const char *func;
    void *buffer;
    const char *dtype;
    size_t count;
    int peer;
};
struct abi_collective_v3 {
    const char *name;
    uint64_t communicator, seq;
    const char *func;
    const void *from;
    void *into;
    size_t count;
    int root;
    const char *dtype;
    uint8_t channels, warps;
    const char *algorithm, *protocol;
};
struct abi_collective_v4 { /* and later; 5 appends its group, 7 more */
    uint64_t seq;
    const char *func;
    const void *from;
    void *into;
    size_t count;
    int root;
    const char *dtype;
    uint8_t channels, warps;
    const char *algorithm, *protocol;
};
struct abi_message_v4 { /* and later; 5 appends its group, 7 more */
    const char *func;
    void *buffer;
    const char *dtype;
    size_t count;
    int peer;
    uint8_t channels;
};
struct abi_copy_collective { /* 6 and later */
    uint64_t seq;
    const char *func;
    const void *from;
    void *into;
    size_t count;
    int root;
    const char *dtype, *synchronisation;
};

#define ABI_DESCRIPTOR(version, kind_type, members)                                                                    \
    struct abi_event_v##version {                                                                                      \
        kind_type kind;                                                                                                \
        void *parent;                                                                                                  \
        int rank;                                                                                                      \
        union members;                                                                                              \
    }

/* clang-format off */
ABI_DESCRIPTOR(1, uint8_t, { struct abi_collective_v1 collective; struct abi_message_v1 message;
                             struct abi_proxy_op proxy_op; struct abi_kernel kernel; });
ABI_DESCRIPTOR(2, uint8_t, { struct abi_collective_v2 collective; struct abi_message_v2 message;
                             struct abi_proxy_op proxy_op; struct abi_kernel kernel; });
ABI_DESCRIPTOR(3, uint8_t, { struct abi_collective_v3 collective; struct abi_message_v2 message;
                             struct abi_proxy_op proxy_op; struct abi_kernel kernel; });
ABI_DESCRIPTOR(4, uint8_t, { struct abi_collective_v4 collective; struct abi_message_v4 message;
                             struct abi_proxy_op proxy_op; struct abi_kernel kernel; });
ABI_DESCRIPTOR(5, uint64_t, { struct abi_collective_v4 collective; struct abi_message_v4 message;
                              struct abi_proxy_op proxy_op; struct abi_kernel kernel;
                              struct abi_call call; struct abi_message_call message_call;
                              struct abi_copy_collective copy; });
/* clang-format on */

/* Arguments of a change of state: each version has a union that begins with what is used of it. */
union abi_state {
    size_t moved_bytes; /* of a proxy's step, 4 and later */
    uint64_t device_ns; /* of a kernel's channel, 4 and later */
};

#define ABI_TABLE(version, init_arguments)                                                                             \
    struct abi_table_v##version {                                                                                      \
        const char *name;                                                                                              \
        result(*init) init_arguments;                                                                                  \
        result (*start)(void *context, void **handle, const void *event);                                              \
        result (*stop)(void *handle);                                                                                  \
        result (*record)(void *handle, int state, const union abi_state *arguments);                                   \
        result (*finalize)(void *context);                                                                             \
        void *none[4]; /* a fork appends optional functions: there are none */                                         \
    }

ABI_TABLE(1, (void **context, int *mask)); /* to 3 */
ABI_TABLE(4, (void **context, int *mask, const char *name, uint64_t id, int nodes, int ranks, int rank, logger log));
ABI_TABLE(5, (void **context, uint64_t id, int *mask, const char *name, int nodes, int ranks, int rank, logger log));

#endif
