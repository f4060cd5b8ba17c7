/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * What a probe works with, one slot of a processor at a time (kernel.bpf.h), and the opening of every record.
 */
#define SLOTS 3
#define CANDIDATES 3 /* places where a signal handler keeps its arguments */
#define BLOCK_BYTES 128

/* What is seen of a code object, and what it was known as. */
struct known_code {
    u64 key;
    u64 known_ns;
    u64 path;
    u64 name;
    u64 lines;
    u64 version;
};

/* One wait call, taken apart. */
struct wait_call {
    u64 task;
    u64 signal;
    u64 child_signal;
    u32 ns;
    u32 ns_pid; /* number of the child it returned, 0: none was named */
    u32 status;
    u32 options;
    s32 target_pid;
    u32 error;
    u8 call;
    u8 target;
    u8 ended; /* the child it returned is dead: exited or killed, not stopped or continued */
    u8 has_status;
};

/* One signal, as the kernel hands it over: `info` is 0 for a plain kill by current, 1 for the kernel, else a siginfo. */
struct sent_signal {
    u64 target;
    u64 info;
    u32 number;
    u32 result;
    u8 disposition; /* of this signal in the target */
};

/* Where a code object was met: in which image of memory, and its address there. */
struct code_place {
    u64 signal;
    u64 since_ns;
    u64 code;
};

struct work {
    u64 claims;
    /* the event: its time, and of the thread that acts the stack's id and what came of it (enum stack_status, NONE: not asked for) */
    u64 time_ns;
    u64 stack;
    u32 stack_status;
    u32 most;   /* frames, at the most */
    u64 number; /* what is handed to the function that reports the event: of a system call its number and what came of it */
    s64 result;
    /* the walk to the innermost frame */
    u64 own;     /* what Python knows this thread by; 0: it is the first thread, whose state is the last */
    u64 runtime; /* address of _PyRuntime */
    u64 interpreter;
    u64 thread;
    s64 failed; /* not 0: a read of this round did */
    u32 rounds; /* through the list of threads so far */
    u32 faults; /* reads that failed so far, */
    u32 most_faults;
    u32 is_main; /* it is the main interpreter's thread */
    u32 was_met; /* a state of this thread that runs nothing */
    /* and from frame to frame */
    u32 count;
    u64 mixed; /* the frames so far */
    u64 frame; /* address of the next one */
    u64 code;  /* of the frame before, and its key: a function that calls itself is not read again, */
    u64 key;
    u64 path; /* nor is a path that the frame before had, too */
    u64 path_key;
    struct image images[IMAGES]; /* of the process */
    u32 image;                   /* the one that knew the code before */
    u32 handles;                 /* the process handles SIGCHLD: look for the frames of handlers */
    u32 handler;                 /* the place in the stack of one that may be, */
    u32 numbers[CANDIDATES];     /* the signals that it may have been called for, */
    u64 interrupted[CANDIDATES]; /* and the frames that it then interrupted */
    struct interpreter python;
    /* what was read of a frame, of a code object, of a text */
    u8 frame_data[136];
    u8 code_data[136];
    struct known_code seen;
    struct code_place place;
    u64 variables[5]; /* of a function that may be a signal handler */
    u64 block[34];
    u64 block_address;
    u64 block_bytes;
    u64 block_mixed;
    u32 first_line;
    u32 unreadable; /* not 0: a read of a code object failed */
    char address[ADDRESS_BYTES]; /* of a socket */
    struct wait_call call;
    struct sent_signal sent;
    struct process fresh; /* one that is followed from now on */
};
BPF_PERCPU_ARRAY(works, struct work, SLOTS);
BPF_PERCPU_ARRAY(stacks, struct stack_record, SLOTS);
BPF_PERCPU_ARRAY(codes, struct code_record, SLOTS);
BPF_PERCPU_ARRAY(execs, struct exec_record, SLOTS);

static __always_inline struct work *work_of(u32 slot)
{
    return works.lookup(&slot);
}

/* Returns the slot that is the caller's until it gives it back; SLOTS: there is none. */
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

/* Where the kernel may preempt a program at a system call (kernel.bpf.h), it has COPIES, which run one after the other: while one is
 * preempted, the next does the work for other tasks. The task for which one is at work, or has done it; removed by the last copy.
 * Full: the last copy does the work. */
BPF_HASH(handled, u64, u8, HANDLED);

/* How many events another copy has taken over, since the first was not run for them. As often as the kernel says that it was not run, but
 * for those that were lost. */
BPF_ARRAY(taken_over, u64, 1);

static __always_inline void count_taken_over(s64 change)
{
    int zero = 0;
    u64 *count = taken_over.lookup(&zero);
    if (count)
        __sync_fetch_and_add(count, change);
}

/* Whether the work of this event is for another copy of the program. Each copy asks, for each event. */
static __always_inline int is_for_another_copy(void)
{
    u64 task = bpf_get_current_task();
    u8 one = 1;
    int others;
    if (COPIES == 1)
        return 0;
    if (!COPY) {
        others = handled.update(&task, &one);
        if (others)
            count_taken_over(-1);
        return others;
    }
    others = COPY + 1 == COPIES ? !handled.delete(&task) : handled.insert(&task, &one);
    if (!others)
        count_taken_over(1);
    return others;
}

/* The event is now, and no stack is asked for. */
static __always_inline void no_stack(struct work *work)
{
    work->time_ns = bpf_ktime_get_boot_ns();
    work->stack = 0;
    work->stack_status = NONE;
}

/* `work` 0: the event is now, and has no stack. */
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
