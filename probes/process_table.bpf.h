/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The table of followed processes, their numbers in each PID namespace, and how a record names a process.
 */
#define IMAGES 3
#define TICK_NS 10000000 /* USER_HZ is 100 on every processor that forktrace supports */
#define FOR_EVER 0xffffffffffffffffULL

struct number {
    u32 ns; /* inode number of the PID namespace */
    u32 nr;
};

/* The memory of a process since a fork or an exec. */
struct image {
    u64 signal; /* 0: none */
    u64 since_ns;
    u64 until_ns; /* the time of the fork that copied it; FOR_EVER: the process's own */
};

struct process {
    u64 start_ns;
    u64 exit_ns;   /* 0: runs */
    u64 zombie_ns;   /* first notification of a parent; 0: none */
    u64 notified_ns; /* last notification of a parent; 0: none */
    u64 parent;      /* signal_struct of the real parent, as of the exit or the last notification */
    struct who parent_name;
    struct who adopter_name;    /* who inherits its children; set at its exit */
    u64 reparented_ns;          /* reparented after exit, new parent not yet notified: time of the old parent's exit; 0: not so */
    struct who new_parent_name; /* who inherited it then */
    u64 empty_waits;            /* wait calls for this child that returned no child */
    struct number numbers[NS_LEVELS];
    u64 program; /* file of the program, by file_key */
    u64 program_code;
    u64 library; /* file of the libpython that it mapped; 0: none */
    u64 library_start;
    u64 switches; /* context switches of its thread at the exec (thread_pointer); FOR_EVER: no exec was seen */
    struct image images[IMAGES]; /* its own, and the ones it was copied from by one fork and by two */
    u64 exit_stack;
    u32 exit_stack_status;
    u32 pid;
    u32 exit_signal;
    u32 gave_up; /* the second (second_of) in which a walk last gave up on unreadable memory */
    u8 reaped;
    u8 disposition; /* of SIGCHLD in the parent, as last seen */
    u8 adopter_disposition;
    u8 new_parent_disposition;
    u8 parent_is_init; /* the parent is followed, and the init of its PID namespace */
    u8 not_python; /* its program is known to be no interpreter */
    u8 exit_from;
    u8 exit_known; /* exit_stack is that of 1: the first thread that died with the group, 2: the caller of exit_group */
};

/* Address of the signal_struct -> a followed process. All threads share that address, and it survives an exec from any of them.
 * (A pid does neither, and is reused before its old owner is freed.) Set at fork, removed when the leader's task is freed.
 * Map full: the child is not followed, and counted in losses[PROCESSES_UNFOLLOWED]. */
BPF_HASH(followed, u64, struct process, FOLLOWED);

/* signal_structs. A number is free again when its owner is released. A wait call releases a child before it returns the number. */
struct owners {
    u64 now;
    u64 before; /* the former owner; 0: it is not in the table any more */
};

/* (namespace, number) -> its owner, for every namespace that sees the process. Resolves the numbers in wait calls and SIGCHLD.
 * Set at fork, removed with the process unless the number has a new owner.
 * Map full: counted in losses[NUMBERS_UNKNOWN]; the reap of that process may be `unseen`. */
BPF_HASH(numbers, struct number, struct owners, NUMBERS);

/* A second copy of the entry in `numbers`, for a number whose former owner is still in the table. `forget` removes that one's entry
 * in two steps: look up, delete. Another processor can assign the number between the steps; then the new owner's entry in `numbers` is
 * deleted, and this one remains. It cannot be deleted, too: `forget` runs under RCU, so no later owner is freed meanwhile.
 * Map full: the least recently used entry is dropped; `numbers` still has its own. */
BPF_TABLE("lru_hash", struct number, struct owners, new_owners, 4096);

struct settings {
    struct number target; /* followed from its next exec on; nr 0: none yet, or it has ended */
    u64 target_start;     /* start of the TICK_NS in which it started: /proc is no more exact */
    u32 level;            /* of the recorder's PID namespace, taken from the target's */
    u32 pad;
};
BPF_ARRAY(settings, struct settings, 1);

/* Where a process has mapped a libpython. */
struct mapping {
    u64 library; /* by file_key */
    u64 start;
};

/* The passes over all tasks (tasks.bpf.c). */
struct attaching {
    u32 on;      /* passes are running */
    u32 added;   /* processes that this pass began to follow */
    u32 pending; /* processes that this pass could not classify: another pass is needed */
    u32 pad;
};
BPF_ARRAY(attaching, struct attaching, 1);

/* enum kind or enum loss -> how many could not be delivered. */
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

/* The number of a struct pid in the namespace at this level; 0: not visible there. */
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

/* How many context switches a task has had. */
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

/* Whether the process of a task started within this tick of /proc. */
static __always_inline int began_in(u64 task, u64 tick)
{
    return start_of(task) - tick < TICK_NS;
}

/* Whether the process of a task is the target, before its exec. */
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

/* Store the real parent of a dead process, and its disposition of SIGCHLD. */
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
    return known ? known : new_owners.lookup(number);
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

/* The leader of the process with this signal_struct; 0: the process is released. */
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

/* The saved user registers of a task inside the system call `wanted` (0: any that makes a process); 0: not found.
 * They are at the top of its kernel stack, on a kernel with FRED 16 bytes lower (x86: commit "x86/ptrace: Add FRED additional
 * information to the pt_regs structure", 6.9). The system call number tells which. It has 32 bits: on arm64 other data follows. */
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
