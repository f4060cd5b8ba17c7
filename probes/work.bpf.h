/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The working memory of a probe, one slot of a processor at a time (kernel.bpf.h), and the head of every record.
 */
#define SLOTS 3
#define CANDIDATES 3 /* places where a signal handler keeps its arguments */
#define BLOCK_BYTES 128

/* A code object: what identifies it at its address, and the key it has got. */
struct known_code {
    u64 key;
    u64 known_ns;
    u64 path;
    u64 name;
    u64 lines;
    u64 version;
};

/* One wait call: its arguments and its result. */
struct wait_call {
    u64 task;
    u64 signal;
    u64 child_signal;
    u32 ns;
    u32 ns_pid; /* number of the child it returned; 0: it named none */
    u32 status;
    u32 options;
    s32 target_pid;
    u32 error;
    u8 call;
    u8 target;
    u8 ended; /* the returned child exited or was killed (not stopped, not continued) */
    u8 has_status;
};

/* One signal, with the arguments of the tracepoint: `info` is 0 for a plain kill by current, 1 for the kernel, else a siginfo. */
struct sent_signal {
    u64 target;
    u64 info;
    u32 number;
    u32 result;
    u8 disposition; /* of this signal in the target */
};

/* Where a code object is: the memory image and the address in it. */
struct code_place {
    u64 signal;
    u64 since_ns;
    u64 code;
};

struct work {
    u64 claims;
    /* the event, and the stack of the acting thread */
    u64 time_ns;
    u64 stack;        /* its id */
    u32 stack_status; /* NONE: no stack was asked for */
    u32 most;         /* frames at most */
    u64 number;       /* arguments of the function that reports the event; of a system call its number */
    s64 result;       /* and its result */
    /* the search for the innermost frame */
    u64 own;     /* the pthread_self of this thread; 0: it is the first thread, whose state is the last of the list */
    u64 runtime; /* address of _PyRuntime */
    u64 interpreter;
    u64 thread;
    s64 failed; /* not 0: a read of this round failed */
    u32 rounds; /* through the list of threads so far */
    u32 faults; /* failed reads so far */
    u32 most_faults;
    u32 is_main; /* the thread runs the main interpreter */
    u32 was_met; /* a state of this thread was found that runs no frame */
    /* the walk from frame to frame */
    u32 count;
    u64 mixed;    /* hash of the frames so far */
    u64 frame;    /* address of the next one */
    u64 code;     /* code object of the last frame: not read again when a function calls itself */
    u64 key;      /* and its key */
    u64 path;     /* path object of the last frame: not read again when the next frame has the same */
    u64 path_key; /* and its hash */
    struct image images[IMAGES]; /* of the process */
    u32 image;                   /* the one that knew the last code object */
    u32 handles;                 /* the process handles SIGCHLD: look for the frames of signal handlers */
    u32 handler;                 /* index of the frame that may be a signal handler's */
    u32 numbers[CANDIDATES];     /* the signals that it may handle */
    u64 interrupted[CANDIDATES]; /* the frames that it may have interrupted */
    struct interpreter python;
    /* copies of a frame, a code object, a text */
    u8 frame_data[136];
    u8 code_data[136];
    struct known_code seen;
    struct code_place place;
    u64 variables[5]; /* local variables of a frame that may be a signal handler's */
    u64 block[34];
    u64 block_address;
    u64 block_bytes;
    u64 block_mixed;
    u32 first_line;
    u32 unreadable; /* not 0: a read of a code object failed */
    char address[ADDRESS_BYTES]; /* of a socket */
    struct wait_call call;
    struct sent_signal sent;
    struct process fresh; /* a process that is followed from now on */
};
BPF_PERCPU_ARRAY(works, struct work, SLOTS);
BPF_PERCPU_ARRAY(stacks, struct stack_record, SLOTS);
BPF_PERCPU_ARRAY(codes, struct code_record, SLOTS);
BPF_PERCPU_ARRAY(execs, struct exec_record, SLOTS);

static __always_inline struct work *work_of(u32 slot)
{
    return works.lookup(&slot);
}

/* Claim a slot until give_back; SLOTS: none is free. */
static __always_inline u64 claim(void)
{
#pragma unroll
    for (u32 slot = 0; slot < SLOTS; slot++) {
        struct work *work = work_of(slot);
        if (!work)
            break;
        __sync_fetch_and_add(&work->claims, 1);
        if (*(volatile u64 *)&work->claims == 1)
            return slot;
        __sync_fetch_and_add(&work->claims, -1);
    }
    return SLOTS;
}

static __always_inline void give_back(struct work *work)
{
    __sync_fetch_and_add(&work->claims, -1);
}

/* Copies of a program. Where the kernel may preempt a program at a system call (kernel.bpf.h), it skips that program for the other tasks
 * of the processor meanwhile. So the program is attached COPIES times. All copies run for each event, COPY 0 first, and one reports it:
 *     first        unless it is skipped
 *     in between   if no earlier copy does
 *     last         if no earlier copy does; it removes the task from reported_tasks */

/* The task whose event a copy reports or has reported. Added by that copy, removed by the last one. Map full: the last copy reports. */
BPF_HASH(reported_tasks, u64, u8, REPORTED_TASKS);

/* How many events a later copy reported because the first one was skipped. The kernel counts how often it skipped the first one: the
 * difference is the number of lost events. */
BPF_ARRAY(taken_over, u64, 1);

static __always_inline void count_taken_over(s64 change)
{
    int zero = 0;
    u64 *count = taken_over.lookup(&zero);
    if (count)
        __sync_fetch_and_add(count, change);
}

/* Whether another copy of the program reports this event. Each copy asks once for each event. */
static __always_inline int is_for_another_copy(void)
{
    u64 task = bpf_get_current_task();
    u8 one = 1;
    int is_for_another;
    if (COPIES == 1)
        return 0;
    if (!COPY) {
        is_for_another = reported_tasks.update(&task, &one);
        if (is_for_another)
            count_taken_over(-1); /* not skipped, but a later copy reports it */
        return is_for_another;
    }
    is_for_another = COPY + 1 == COPIES ? !reported_tasks.delete(&task) : reported_tasks.insert(&task, &one);
    if (!is_for_another)
        count_taken_over(1);
    return is_for_another;
}

/* The event happens now; no stack is asked for. */
static __always_inline void no_stack(struct work *work)
{
    work->time_ns = bpf_ktime_get_boot_ns();
    work->stack = 0;
    work->stack_status = NONE;
}

/* Fill in the head of a record. `work` 0: the event happens now and has no stack. */
static __always_inline void begin(struct head *head, u32 kind, struct process *process, struct work *work)
{
    head->time_ns = work ? work->time_ns : bpf_ktime_get_boot_ns();
    head->kind = kind;
    head->stack = work ? work->stack : 0;
    head->stack_status = work ? work->stack_status : NONE;
    head->process.pid = process ? process->pid : 0;
    head->process.start_ns = process ? process->start_ns : 0;
    head->process.tid = 0;
}
