/* The tables NCCL looks for, one a version: each turns what it is handed into the plugin's own terms. */
#include "plugin.h"

static const char *const funcs_v1[] = {"Broadcast", "Reduce", "AllGather", "ReduceScatter", "AllReduce", "SendRecv",
                                       "Send",      "Recv"};
static const char *const dtypes_v1[] = {"ncclInt8",    "ncclUint8",   "ncclInt32",   "ncclUint32",   "ncclInt64",
                                        "ncclUint64",  "ncclFloat16", "ncclFloat32", "ncclFloat64", "ncclBfloat16"};
static const char *const algorithms_v1[] = {"TREE", "RING", "COLLNET_DIRECT", "COLLNET_CHAIN", "NVLS", "NVLS_TREE",
                                            "PAT"};
static const char *const protocols_v1[] = {"LL", "LL128", "SIMPLE"};

#define WORD(words, code) ((code) < sizeof(words) / sizeof *(words) ? (words)[code] : NULL)
#define GROUP_HANDLE ((void *)((uint64_t)HANDLE_GROUP << 60))

static bool sends(const char *func) { return func != NULL && func[0] == 'S'; }

/* Of versions 2 to 7, whose fields have other places but the same names. */
#define COLLECTIVE(event)                                                                                              \
    (struct started) {                                                                                                 \
        .communicator = context, .call = (uint64_t)(event)->parent, .seq = (event)->collective.seq,                    \
        .count = (event)->collective.count, .func = name_of((event)->collective.func),                                 \
        .dtype = name_of((event)->collective.dtype), .algorithm = name_of((event)->collective.algorithm),              \
        .protocol = name_of((event)->collective.protocol), .peer = (event)->collective.root,                           \
        .channels = (event)->collective.channels                                                                       \
    }
#define MESSAGE(event, channel_count)                                                                                  \
    (struct started) {                                                                                                 \
        .communicator = context, .call = (uint64_t)(event)->parent, .message = true,                                   \
        .sends = sends((event)->message.func), .count = (event)->message.count,                                        \
        .func = name_of((event)->message.func), .dtype = name_of((event)->message.dtype),                              \
        .peer = (event)->message.peer, .channels = (channel_count)                                                     \
    }

static void *begin(struct started started, const char *name, uint64_t id, int rank) {
    communicator_use(started.communicator, name, id, rank);
    return operation_started(&started);
}

/* The kinds that have the same descriptor in all versions. */
#define CHILD(event)                                                                                                   \
    case EVENT_GROUP:                                                                                                  \
        *handle = GROUP_HANDLE; /* up to 2.25 NCCL tells of no task without it */                                      \
        break;                                                                                                         \
    case EVENT_PROXY_OP:                                                                                               \
        *handle = proxy_started((event)->parent, &(event)->proxy_op);                                                  \
        break;                                                                                                         \
    case EVENT_PROXY_STEP:                                                                                             \
        *handle = step_started((event)->parent);                                                                       \
        break;

static result start_v1(void *context, void **handle, const void *pointer) {
    const struct abi_event_v1 *event = pointer;
    *handle = NULL;
    if (context == NULL) return 0;
    switch (event->kind) {
    case EVENT_COLLECTIVE: {
        const struct abi_collective_v1 *own = &event->collective;
        struct started started = {.communicator = context, .seq = own->seq, .count = own->count, .peer = own->root,
                                  .func = name_of(WORD(funcs_v1, own->func)),
                                  .dtype = name_of(WORD(dtypes_v1, own->dtype)),
                                  .algorithm = name_of(WORD(algorithms_v1, own->algorithm)),
                                  .protocol = name_of(WORD(protocols_v1, own->protocol)), .channels = own->channels};
        *handle = begin(started, own->name, own->communicator, event->rank);
        break;
    }
    case EVENT_MESSAGE: {
        const struct abi_message_v1 *own = &event->message;
        const char *func = WORD(funcs_v1, own->func);
        struct started started = {.communicator = context, .message = true, .sends = sends(func), .peer = own->peer,
                                  .count = own->count, .func = name_of(func),
                                  .dtype = name_of(WORD(dtypes_v1, own->dtype))};
        *handle = begin(started, own->name, own->communicator, event->rank);
        break;
    }
        CHILD(event)
    default:
        break;
    }
    return 0;
}

#define START_NAMED(version, more)                                                                                     \
    static result start_v##version(void *context, void **handle, const void *pointer) {                                \
        const struct abi_event_v##version *event = pointer;                                                            \
        *handle = NULL;                                                                                                \
        if (context == NULL) return 0;                                                                                 \
        switch (event->kind) {                                                                                         \
        case EVENT_COLLECTIVE:                                                                                         \
            *handle =                                                                                                  \
                begin(COLLECTIVE(event), event->collective.name, event->collective.communicator, event->rank);         \
            break;                                                                                                     \
        case EVENT_MESSAGE:                                                                                            \
            *handle = begin(MESSAGE(event, 0), event->message.name, event->message.communicator, event->rank);         \
            break;                                                                                                     \
            CHILD(event)                                                                                               \
            more                                                                                                       \
        default:                                                                                                       \
            break;                                                                                                     \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

#define START(version, more)                                                                                           \
    static result start_v##version(void *context, void **handle, const void *pointer) {                                \
        const struct abi_event_v##version *event = pointer;                                                            \
        *handle = NULL;                                                                                                \
        if (context == NULL) return 0;                                                                                 \
        switch (event->kind) {                                                                                         \
        case EVENT_COLLECTIVE:                                                                                         \
            *handle = begin(COLLECTIVE(event), NULL, 0, 0);                                                            \
            break;                                                                                                     \
        case EVENT_MESSAGE:                                                                                            \
            *handle = begin(MESSAGE(event, event->message.channels), NULL, 0, 0);                                      \
            break;                                                                                                     \
        case EVENT_KERNEL_CHANNEL:                                                                                     \
            *handle = kernel_started(event->parent, event->kernel.channel, event->kernel.device_ns);                   \
            break;                                                                                                     \
            CHILD(event)                                                                                               \
            more                                                                                                       \
        default:                                                                                                       \
            break;                                                                                                     \
        }                                                                                                              \
        return 0;                                                                                                      \
    }

#define UNTIMED_KERNEL                                                                                                 \
    case EVENT_KERNEL_CHANNEL:                                                                                         \
        *handle = kernel_started(event->parent, event->kernel.channel, 0);                                             \
        break;

#define CALLS                                                                                                          \
    case EVENT_COLLECTIVE_CALL:                                                                                        \
        *handle = call_started(event->call.captured);                                                                  \
        break;                                                                                                         \
    case EVENT_MESSAGE_CALL:                                                                                           \
        *handle = call_started(event->message_call.captured);                                                          \
        break;                                                                                                         \
    case EVENT_KERNEL_LAUNCH:                                                                                          \
        *handle = launch_started();                                                                                    \
        break;                                                                                                         \
    case EVENT_COPY_COLLECTIVE:                                                                                        \
        *handle = copy_started(context, event);                                                                        \
        break;

static void *copy_started(void *context, const struct abi_event_v5 *event) {
    const struct abi_copy_collective *own = &event->copy;
    struct started started = {.communicator = context, .call = (uint64_t)event->parent, .copies = true,
                              .seq = own->seq, .count = own->count, .func = name_of(own->func),
                              .dtype = name_of(own->dtype), .peer = own->root};
    return begin(started, NULL, 0, 0);
}

START_NAMED(2, )
START_NAMED(3, UNTIMED_KERNEL)
START(4, )
START(5, CALLS)

static result stop(void *handle) {
    event_stopped(handle);
    return 0;
}

/* Up to version 3 what comes with a step's state is of no use. */
static result record_v1(void *handle, int state, const union abi_state *arguments) {
    (void)arguments;
    event_state(handle, state, 0);
    return 0;
}

static result record_v4(void *handle, int state, const union abi_state *arguments) {
    if (arguments == NULL) return 0;
    event_state(handle, state, state == STATE_KERNEL_STOPPED ? arguments->device_ns : arguments->moved_bytes);
    return 0;
}

#define INIT_OLD(version)                                                                                              \
    static result init_v##version(void **context, int *mask) {                                                         \
        return communicator_begin(context, mask, version, NULL, 0, 0, 0, -1, NULL);                                    \
    }
#define INIT(version)                                                                                                  \
    static result init_v##version(void **context, uint64_t id, int *mask, const char *name, int nodes, int ranks,      \
                                  int rank, logger log) {                                                              \
        return communicator_begin(context, mask, version, name, id, nodes, ranks, rank, log);                          \
    }

INIT_OLD(1)
INIT_OLD(2)
INIT_OLD(3)
INIT(5)
INIT(6)
INIT(7)

static result init_v4(void **context, int *mask, const char *name, uint64_t id, int nodes, int ranks, int rank,
                      logger log) {
    return communicator_begin(context, mask, 4, name, id, nodes, ranks, rank, log);
}

EXPORTED struct abi_table_v1 ncclProfiler_v1 = {"commlens", init_v1, start_v1, stop, record_v1, communicator_end, {0}};
EXPORTED struct abi_table_v1 ncclProfiler_v2 = {"commlens", init_v2, start_v2, stop, record_v1, communicator_end, {0}};
EXPORTED struct abi_table_v1 ncclProfiler_v3 = {"commlens", init_v3, start_v3, stop, record_v1, communicator_end, {0}};
EXPORTED struct abi_table_v4 ncclProfiler_v4 = {"commlens", init_v4, start_v4, stop, record_v4, communicator_end, {0}};
EXPORTED struct abi_table_v5 ncclProfiler_v5 = {"commlens", init_v5, start_v5, stop, record_v4, communicator_end, {0}};
EXPORTED struct abi_table_v5 ncclProfiler_v6 = {"commlens", init_v6, start_v5, stop, record_v4, communicator_end, {0}};
EXPORTED struct abi_table_v5 ncclProfiler_v7 = {"commlens", init_v7, start_v5, stop, record_v4, communicator_end, {0}};
