/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Who is followed: the table of processes, their numbers in each PID namespace, and how a process is named in a record.
 */
#define IMAGES 3
#define TICK_NS 10000000 /* of a clock of 100 Hz, USER_HZ on every processor that forktrace knows */
#define FOR_EVER 0xffffffffffffffffULL

struct number {
    u32 ns; /* inode number of the PID namespace */
    u32 nr;
};

/* The memory of a process since a fork or an exec. */
struct image {
    u64 signal; /* 0: none */
    u64 since_ns;
    u64 until_ns; /* what it held by then, it has handed on */
};

struct process {
    u64 start_ns;
    u64 exit_ns;   /* 0: runs */
    u64 zombie_ns; /* first notification of a parent; 0: none */
    u64 told_ns;   /* the last one */
    u64 parent;    /* signal_struct of the real parent at exit or at the last handing over */
    struct who parent_name;
    struct who adopter_name; /* who inherited its children, set at exit */
    u64 handed_ns;           /* its parent died after its exit; the adopter is not notified yet: time of the parent's exit; 0: no */
    struct who heir_name;
    u64 empty_waits; /* wait calls for this very child that came back empty */
    struct number numbers[NS_LEVELS];
    u64 program; /* the file that runs, by file_key, and where its code begins */
    u64 program_code;
    u64 library; /* the libpython that it mapped, 0: none, and where that begins */
    u64 library_start;
    u64 switches; /* of its thread when it became this program, see thread_pointer; FOR_EVER: it has run since */
    struct image images[IMAGES]; /* its own, and those that it is a copy of, through one fork and through two */
    u64 exit_stack;
    u32 exit_stack_status;
    u32 pid;
    u32 exit_signal;
    u32 gave_up; /* the second of the last read of its memory that was given up, by second_of */
    u8 reaped;
    u8 disposition; /* of SIGCHLD in the parent, as last seen */
    u8 adopter_disposition;
    u8 heir_disposition;
    u8 parent_is_init; /* the parent is followed, and the init of its PID namespace */
    u8 not_python; /* what runs is known to be no interpreter */
    u8 exit_from;
    u8 exit_known; /* the stack at its exit: 1 of the first thread that ended with it, 2 of the one that called exit_group */
};

/* signal_struct -> a followed process. That address is shared by all threads and survives an exec from any of them; a pid does
 * neither, and is reused before the old owner is freed. Set at fork, removed when the leader's task is freed.
 * Map full: the child is not followed, and counted in losses[PROCESSES_UNFOLLOWED]. */
BPF_HASH(followed, u64, struct process, FOLLOWED);

/* signal_structs. A number is free for another process once its owner is released, which a wait call does before it says which one. */
struct owners {
    u64 now;
    u64 before; /* 0: nobody who is still known */
};

/* (namespace, number) -> whose it is, for every namespace that sees the process: resolves what wait calls and SIGCHLD say.
 * Set at fork, removed with the process unless the number has a new owner. Full:
 * losses[NUMBERS_UNKNOWN], and its reap may be one that nobody was seen to do. */
BPF_HASH(numbers, struct number, struct owners, NUMBERS);

/* The same, of those that got a number whose former owner is still known. That one removes its entry of `numbers` in two steps, looking
 * whose it is and deleting it; if another processor gives the number away between the two, the new owner's is deleted and only this
 * one stays. Both cannot go: the remover holds off RCU, so until it is through nobody who came later is freed.
 * Full: the least recently used goes, and is found in `numbers` alone. */
BPF_TABLE("lru_hash", struct number, struct owners, takers, 4096);

struct settings {
    struct number target; /* follow this process from its next exec on; nr 0: nobody yet, or it has ended */
    u64 target_start;     /* the beginning of the tick of TICK_NS in which it started: /proc tells no more */
    u32 level;            /* of the recorder's PID namespace, learnt from the target's */
    u32 pad;
};
BPF_ARRAY(settings, struct settings, 1);

/* Where a process has mapped a libpython. */
struct mapping {
    u64 library; /* by file_key */
    u64 start;
};

/* What a pass over all tasks found (tasks.bpf.c). */
struct attaching {
    u32 on;      /* passes are going on */
    u32 added;   /* processes that are followed since the pass */
    u32 pending; /* processes that could not be told: another pass is needed */
    u32 pad;
};
BPF_ARRAY(attaching, struct attaching, 1);

/* records and facts that could not be delivered, by enum kind and enum loss */
BPF_ARRAY(losses, u64, LOSSES);

BPF_RINGBUF_OUTPUT(ring, RING_PAGES);

static __always_inline void lose(int what)
{
    u64 *count = losses.lookup(&what);
    if (count)
        __sync_fetch_and_add(count, 1);
}

static __always_inline u64 signal_of(u64 task)
{
    u64 signal = 0;
    READ(signal, task + task_signal);
    return signal;
}

static __always_inline struct attaching *attaching_now(void)
{
    int zero = 0;
    return attaching.lookup(&zero);
}

static __always_inline int is_attaching(void)
{
    struct attaching *now = attaching_now();
    return now && now->on;
}

static __always_inline u32 recorder_level(void)
{
    int zero = 0;
    struct settings *known = settings.lookup(&zero);
    return known ? known->level : 0;
}

/* The number of a struct pid in the namespace at this level, 0 when it is not seen there. */
static __always_inline u32 number_at(u64 pid, u32 level)
{
    u32 deepest = 0, nr = 0;
    READ(deepest, pid + pid_level);
    if (!pid || level > deepest)
        return 0;
    READ(nr, pid + pid_numbers + level * upid_sizeof + upid_nr);
    return nr;
}

/* The number of a struct pid in its own, innermost namespace. */
static __always_inline struct number innermost(u64 pid)
{
    struct number number = {};
    u32 level = 0;
    u64 ns = 0;
    READ(level, pid + pid_level);
    READ(number.nr, pid + pid_numbers + level * upid_sizeof + upid_nr);
    READ(ns, pid + pid_numbers + level * upid_sizeof + upid_ns);
    READ(number.ns, ns + pid_namespace_ns + ns_common_inum);
    return number;
}

/* How often a task has given up its processor. */
static __always_inline u64 switches_of(u64 task)
{
    u64 voluntary = 0, involuntary = 0;
    READ(voluntary, task + task_nvcsw);
    READ(involuntary, task + task_nivcsw);
    return voluntary + involuntary;
}

static __always_inline u64 thread_pid_of(u64 task)
{
    u64 pid = 0;
    READ(pid, task + task_thread_pid);
    return pid;
}

static __always_inline u64 start_of(u64 task)
{
    u64 leader = 0, start_ns = 0;
    READ(leader, task + task_group_leader);
    READ(start_ns, leader + task_start_boottime);
    return start_ns;
}

/* Whether the process of a task started in the tick that begins then, as far as /proc tells. */
static __always_inline int began_in(u64 task, u64 tick)
{
    return start_of(task) - tick < TICK_NS;
}

/* Whether the process of a task is the target, which has not come to its exec yet. */
static __always_inline int is_target(u64 task)
{
    int zero = 0;
    struct settings *known = settings.lookup(&zero);
    if (!known || !known->target.nr)
        return 0;
    struct number own = innermost(thread_pid_of(task));
    return own.nr == known->target.nr && own.ns == known->target.ns && began_in(task, known->target_start);
}

static __always_inline void forget_target(void)
{
    int zero = 0;
    struct settings *known = settings.lookup(&zero);
    if (known)
        known->target.nr = 0;
}

/* The process of a task, followed or not. */
static __always_inline void name_process(struct who *who, u64 task)
{
    u64 signal = signal_of(task), pid = 0;
    struct process *known = followed.lookup(&signal);
    who->tid = 0;
    if (known) {
        who->pid = known->pid;
        who->start_ns = known->start_ns;
        return;
    }
    READ(pid, signal + signal_pids + 8 * PIDTYPE_TGID);
    who->pid = number_at(pid, recorder_level());
    who->start_ns = start_of(task);
}

static __always_inline void name_thread(struct who *who, u64 task)
{
    name_process(who, task);
    who->tid = number_at(thread_pid_of(task), recorder_level());
}

static __always_inline void nobody(struct who *who)
{
    who->start_ns = 0;
    who->pid = 0;
    who->tid = 0;
}

/* Of SIGCHLD or another signal, in the process of a task. */
static __always_inline u8 disposition_of(u64 task, u32 signal)
{
    u64 sighand = 0, handler = 0, flags = 0;
    READ(sighand, task + task_sighand);
    if (!sighand)
        return NONE;
    u64 action = sighand + sighand_action + (u64)(signal - 1) * k_sigaction_sizeof;
    READ(handler, action + sigaction_sa_handler);
    READ(flags, action + sigaction_sa_flags);
    if (handler == 1)
        return IGNORED;
    if (signal == SIGCHLD && (flags & SA_NOCLDWAIT))
        return NOCLDWAIT;
    return handler ? HANDLER : DEFAULT;
}

/* Remember the real parent of a process that died: who it is and what it does with SIGCHLD. */
static __always_inline void note_parent(struct process *process, u64 task)
{
    u64 signal = signal_of(task);
    struct process *parent = followed.lookup(&signal);
    process->parent = signal;
    process->disposition = disposition_of(task, SIGCHLD);
    process->parent_is_init = parent && parent->numbers[0].nr == 1;
    name_process(&process->parent_name, task);
}

static __always_inline u64 cgroup_of(u64 task)
{
    u64 set = 0, cgroup = 0, node = 0, id = 0;
    if (!HAS_CGROUPS)
        return 0;
    READ(set, task + task_cgroups);
    READ(cgroup, set + css_set_dfl_cgrp);
    READ(node, cgroup + cgroup_kn);
    READ(id, node + kernfs_node_id);
    return id;
}

static __always_inline struct owners *owners_of(struct number *number)
{
    struct owners *known = numbers.lookup(number);
    return known ? known : takers.lookup(number);
}

static __always_inline struct process *find(u32 ns, u32 nr, u64 *signal)
{
    struct number number = {.ns = ns, .nr = nr};
    struct owners *known = owners_of(&number);
    if (!known)
        return 0;
    *signal = known->now;
    return followed.lookup(signal);
}

/* The first thread of the process with this signal_struct, 0: the process is released. */
static __always_inline u64 leader_of(u64 signal)
{
    u64 pid = 0, node = 0;
    READ(pid, signal + signal_pids + 8 * PIDTYPE_TGID);
    READ(node, pid + pid_tasks + sizeof(void *) * PIDTYPE_TGID);
    if (!pid || !node)
        return 0;
    u64 task = node - task_pid_links - 2 * sizeof(void *) * PIDTYPE_TGID;
    return signal_of(task) == signal ? task : 0;
}

/* The saved user registers of a task inside the system call `wanted` (0: any that makes a process), 0 when they are not found.
 * They lie at the top of its kernel stack, 16 bytes lower on a kernel with FRED (x86: commit "x86/ptrace: Add FRED additional
 * information to the pt_regs structure", 6.9); the system call number tells which. It has 32 bits: on arm64 others lie behind it. */
static __always_inline u64 registers_in(u64 task, u64 wanted)
{
    u64 stack = 0;
    u32 nr = 0;
    READ(stack, task + task_stack);
#pragma unroll
    for (int padding = 0; padding <= 16; padding += 16) {
        u64 regs = stack + STACK_BYTES - pt_regs_sizeof - padding;
        READ(nr, regs + REG_NR);
        if (wanted ? nr == wanted
                   : nr == SYSCALL_CLONE || nr == SYSCALL_CLONE3 || nr == SYSCALL_FORK || nr == SYSCALL_VFORK)
            return regs;
    }
    return 0;
}
