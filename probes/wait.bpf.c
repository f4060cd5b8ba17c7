/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: what every wait4 and waitid returned to a followed process, or to any process that was given a followed child; and the fork,
 * vfork, clone and clone3 calls of followed processes that failed. Cannot see: waits without a system call (io_uring, a dying PID
 * namespace), system calls of 32-bit programs, and processes whose system calls raise no tracepoint.
 */
#define WNOHANG 1
#define WEXITED 4
#define WNOWAIT 0x01000000
#define EINTR 4
#define ECHILD 10
#define EFAULT 14
#define ERESTARTSYS 512
#define ERESTART_RESTARTBLOCK 516

/* One call, taken apart. */
struct wait_call {
    u64 task;
    u64 signal;
    struct process *waiter; /* 0: not followed */
    struct process *child;  /* 0: not followed, or not known */
    u64 child_signal;
    struct walk *walk;      /* 0: no stack was asked for */
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

static __always_inline void count_empty(struct wait_call *call)
{
    struct process *waiter = call->waiter;
    struct wait_place place = {.start_ns = waiter->start_ns, .pid = waiter->pid, .options = call->options};
    u64 zero = 0, signal = 0;
    place.error = call->error >= ERESTARTSYS ? EINTR : call->error;
    place.call = call->call;
    place.target = call->target;
    place.stack_status = NONE;
    if (call->walk) {
        place.stack = call->walk->stack;
        place.stack_status = call->walk->status;
    }
    u64 *total = wait_totals.lookup_or_try_init(&place, &zero);
    if (total)
        __sync_fetch_and_add(total, 1);
    else
        lose(WAIT_PLACES);
    if (call->error)
        return;
    if (call->target == PID) {
        struct process *child = find(call->ns, call->target_pid, &signal);
        if (child)
            __sync_fetch_and_add(&child->empty_waits, 1);
    }
}

/* Who was told that it has no such child, and where: the first time it is an event of its own, since a child that was stolen from
 * its owner shows here. Full: the least recently used goes, and is an event again. */
struct refusal {
    u64 signal;
    u64 stack;
    u64 target_pid;
};
BPF_TABLE("lru_hash", struct refusal, u8, refusals, 4096);

static __always_inline int is_new_refusal(struct wait_call *call)
{
    struct refusal refusal = {.signal = call->signal, .target_pid = call->target_pid};
    u8 one = 1;
    if (call->target != PID && call->target != PIDFD)
        return 0;
    if (call->walk)
        refusal.stack = call->walk->stack;
    if (refusals.lookup(&refusal))
        return 0;
    refusals.update(&refusal, &one);
    return 1;
}

static __always_inline void report_wait(struct wait_call *call, u32 kind)
{
    struct wait_record *record = ring.ringbuf_reserve(sizeof(struct wait_record));
    if (!record) {
        lose(kind);
        return;
    }
    begin(&record->head, kind, call->child, call->walk);
    name_thread(&record->head.by, call->task);
    record->zombie_ns = call->child ? call->child->zombie_ns : 0;
    record->empty_waits = call->child ? call->child->empty_waits : 0;
    record->ns = call->ns;
    record->ns_pid = call->ns_pid;
    record->status = call->status;
    record->options = call->options;
    record->target_pid = call->target_pid;
    record->error = call->error;
    record->call = call->call;
    record->target = call->target;
    record->has_status = call->has_status;
    ring.ringbuf_submit(record, NO_WAKEUP);
}

/* Whether the caller has just released this followed process. */
static __always_inline int released_by(struct wait_call *call, struct process *process, u64 signal)
{
    return process->exit_ns && !process->reaped && process->parent == call->signal && !leader_of(signal);
}

/* The child that a call returned. Where another process has got the number of the one that it released, it was not that one. */
static __always_inline void find_child(struct wait_call *call)
{
    struct number number = {.ns = call->ns, .nr = call->ns_pid};
    struct owners *known = owners_of(&number);
    if (!known)
        return;
    call->child_signal = known->before;
    call->child = followed.lookup(&call->child_signal);
    if (call->child && released_by(call, call->child, call->child_signal) && call->child->disposition < IGNORED)
        return;
    call->child_signal = known->now;
    call->child = followed.lookup(&call->child_signal);
}

/* Whether the child that a call returned was freed before the call came back. */
static __always_inline int was_released_by(struct wait_call *call)
{
    struct number number = {.ns = call->ns, .nr = call->ns_pid};
    u64 *parent = released.lookup(&number);
    return parent && *parent == call->signal;
}

/* A dead child was returned. Its real parent releases it, unless it only looks (WNOWAIT); a tracer that is not its parent does not. Who
 * is not followed is none of the waiter's children, which are: it is a thread, or a stranger, that the waiter traces. What the call
 * says of it may have been changed by another thread before it could be read: a followed one that was not released is not the one. */
static __always_inline void report_ended(struct wait_call *call)
{
    struct process *child = call->child;
    if (!child && !(call->options & WNOWAIT) && was_released_by(call)) {
        report_wait(call, REAP);
        return;
    }
    if (call->options & WNOWAIT || !child || (child->exit_ns && child->parent != call->signal)) {
        report_wait(call, WAIT);
        return;
    }
    if (!released_by(call, child, call->child_signal)) {
        call->child = 0;
        call->ns_pid = 0;
        report_wait(call, WAIT);
        return;
    }
    child->reaped = 1;
    report_wait(call, REAP);
}

/* The call failed, or succeeded without saying which child it took. wait4 and waitid fail with EFAULT only after the child is gone;
 * a waitid without an infop says nothing. With one pid as the target, and that child a zombie, it is the one; else it stays open. */
static __always_inline void report_unnamed(struct wait_call *call)
{
    if (call->target == PID) {
        call->ns_pid = call->target_pid;
        find_child(call);
        struct process *child = call->child;
        int is_dead = child && child->exit_ns && (child->zombie_ns || child->exit_signal == 0);
        if (is_dead && (call->options & WNOWAIT || released_by(call, child, call->child_signal))) {
            report_ended(call);
            return;
        }
        call->ns_pid = 0;
        call->child = 0;
        if (!call->error && call->options & WNOHANG) {
            count_empty(call);
            return;
        }
    }
    if (!(call->options & WNOWAIT))
        report_wait(call, WAIT);
}

/* Of waitid: CLD_EXITED 1, CLD_KILLED 2 and CLD_DUMPED 3 with their code or signal become the wait status of wait4. */
static __always_inline void take_status(struct wait_call *call, s32 code, u32 status)
{
    call->ended = code >= 1 && code <= 3;
    call->status = code == 1 ? (status & 0xff) << 8 : code == 2 ? status : code == 3 ? status | 0x80 : status << 8 | 0x7f;
}

static __always_inline u8 target_of_id(u32 type)
{
    return type == 0 ? ANY : type == 1 ? PID : type == 2 ? PGID : PIDFD;
}

static __always_inline int fill(struct wait_call *call, u64 regs, u8 which)
{
    u64 first = 0, second = 0, third = 0, fourth = 0;
    READ(first, regs + REG_ARG0);
    READ(second, regs + REG_ARG1);
    READ(third, regs + REG_ARG2);
    READ(fourth, regs + REG_ARG3);
    call->call = which;
    if (which == WAIT4) {
        s32 pid = first;
        u32 status = 0;
        call->target = pid > 0 ? PID : pid == -1 ? ANY : PGID;
        call->target_pid = pid;
        call->options = third;
        if (second && call->ns_pid && !READ_USER(status, second)) {
            call->status = status;
            call->has_status = 1;
            call->ended = (status & 0x7f) != 0x7f && status != 0xffff;
        }
        return 1;
    }
    call->target = target_of_id(first);
    call->target_pid = second;
    call->options = fourth;
    if (!third || call->error)
        return third != 0;
    s32 code = 0;
    u32 pid = 0, status = 0;
    READ_USER(code, third + 8);
    READ_USER(pid, third + 16);
    READ_USER(status, third + 24);
    call->ns_pid = pid;
    call->has_status = pid != 0;
    take_status(call, code, status);
    return 1;
}

/* current is the waiting thread, so its process is the reaper. `result` of wait4 is the child's number in its PID namespace. */
static __always_inline int waited(s64 result, u8 which, struct walk *walk)
{
    struct wait_call call = {.walk = walk};
    call.task = bpf_get_current_task();
    call.signal = signal_of(call.task);
    call.waiter = followed.lookup(&call.signal);
    if (!call.waiter && (result < 0 || (result == 0 && which == WAIT4)))
        return 0;
    u64 regs = registers_in(call.task, which == WAIT4 ? SYSCALL_WAIT4 : SYSCALL_WAITID);
    call.ns = innermost(thread_pid_of(call.task)).ns;
    call.error = result < 0 ? -result : 0;
    call.ns_pid = which == WAIT4 && result > 0 ? result : 0;
    call.target = NONE;
    call.call = which;
    int has_place_for_result = regs ? fill(&call, regs, which) : 1;
    if (call.ns_pid)
        find_child(&call);
    if (!call.waiter) {
        KEEP_APART(); /* else the two pointers are or'ed, which the verifier forbids */
        if (!call.child)
            return 0;
    }
    if (call.error == EFAULT || (!call.error && !has_place_for_result)) {
        if (call.waiter)
            report_unnamed(&call);
        return 0;
    }
    if (call.error || !call.ns_pid) {
        if (!call.waiter)
            return 0;
        int interrupted = call.error == EINTR || (call.error >= ERESTARTSYS && call.error <= ERESTART_RESTARTBLOCK);
        if (call.error == ECHILD && is_new_refusal(&call))
            report_wait(&call, WAIT);
        else if (!call.error || call.error == ECHILD || interrupted)
            count_empty(&call);
        return 0;
    }
    if (call.child && released_by(&call, call.child, call.child_signal))
        call.ended = 1;
    if (call.ended)
        report_ended(&call);
    else
        report_wait(&call, WAIT);
    return 0;
}

/* Note a system call of current; returns the program to go on with: `then`, or first the walk, if the process is followed. */
static __always_inline u32 after_call(u32 then, s64 result, u8 call)
{
    u64 signal = signal_of(bpf_get_current_task());
    struct process *process = followed.lookup(&signal);
    struct walk *walk = walk_of(SYSCALL);
    if (!walk)
        return PROGRAMS;
    walk->result = result;
    walk->call = call;
    if (process)
        return prepare(walk, process, then, STACK_FRAMES);
    no_walk(walk);
    return then;
}

TRACEPOINT_PROBE(syscalls, sys_exit_wait4)
{
    sys_programs.call(args, after_call(AFTER_WAIT, args->ret, WAIT4));
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_exit_waitid)
{
    sys_programs.call(args, after_call(AFTER_WAIT, args->ret, WAITID));
    return 0;
}

int sys_after_wait(void *ctx)
{
    struct walk *walk = walk_of(SYSCALL);
    return walk ? waited(walk->result, walk->call, walk) : 0;
}

/* current is of the waiting process: the submitter, or a worker of its ring. Runs for every completion of every ring, and leaves at
 * once when it is not a waitid. */
#if HAS_IO_URING_WAITID
RAW_TRACEPOINT_PROBE(io_uring_complete)
{
    u64 request = ctx->args[1], wait = 0;
    u8 opcode = 0;
    s32 result = 0, pid = 0, code = 0;
    u32 type = 0, status = 0;
    READ(opcode, request + io_kiocb_opcode);
    if (opcode != IORING_OP_WAITID)
        return 0;
    READ(result, ctx->args[2] + 8);
    if (result)
        return 0;
    struct wait_call call = {};
    wait = request + io_kiocb_cmd;
    READ(type, wait + io_waitid_which);
    READ(call.target_pid, wait + io_waitid_upid);
    READ(call.options, wait + io_waitid_options);
    READ(pid, wait + io_waitid_info + waitid_info_pid);
    READ(status, wait + io_waitid_info + waitid_info_status);
    READ(code, wait + io_waitid_info + waitid_info_cause);
    if (!pid)
        return 0;
    call.task = bpf_get_current_task();
    call.signal = signal_of(call.task);
    call.waiter = followed.lookup(&call.signal);
    call.ns = innermost(thread_pid_of(call.task)).ns;
    call.ns_pid = pid;
    find_child(&call);
    if (!call.waiter) {
        KEEP_APART();
        if (!call.child)
            return 0;
    }
    call.call = IO_URING;
    call.target = target_of_id(type);
    call.has_status = 1;
    take_status(&call, code, status);
    if (call.ended)
        report_ended(&call);
    else
        report_wait(&call, WAIT);
    return 0;
}
#endif

/* RLIMIT_NPROC counts the user's tasks in the user namespace's ucounts since 5.14 ("Reimplement RLIMIT_NPROC on top of ucounts"). */
static __always_inline void read_task_limit(struct fork_failed_record *record, u64 task)
{
#if HAS_UCOUNTS_RLIMIT
    u64 cred = 0, ucounts = 0;
    READ(cred, task + task_cred);
    READ(ucounts, cred + cred_ucounts);
    READ(record->tasks, ucounts + ucounts_rlimit);
    READ(record->tasks_max, signal_of(task) + signal_rlim + RLIMIT_NPROC * rlimit_sizeof);
#endif
}

/* The failed child was charged and uncharged again, so a full cgroup is one that has no room for one more. */
static __always_inline void read_cgroup_limit(struct fork_failed_record *record, u64 task)
{
#if HAS_PIDS_CGROUP
    u64 set = 0, css = 0;
    READ(set, task + task_cgroups);
    READ(css, set + css_set_subsys + 8 * PIDS_CGROUP_ID);
#pragma nounroll
    for (int i = 0; i < 16; i++) {
        s64 count = 0, limit = 0;
        if (!css)
            return;
        READ(count, css + pids_cgroup_counter);
        READ(limit, css + pids_cgroup_limit);
        if (limit > 0 && count + 1 > limit) {
            record->cgroup_pids = count;
            record->cgroup_pids_max = limit;
            return;
        }
        READ(css, css + css_parent);
    }
#endif
}

static __always_inline void read_namespace_limit(struct fork_failed_record *record, u64 task)
{
    u64 pid = thread_pid_of(task), ns = 0;
    u32 level = 0, allocated = 0;
    READ(level, pid + pid_level);
    READ(ns, pid + pid_numbers + level * upid_sizeof + upid_ns);
    READ(allocated, ns + pid_namespace_pid_allocated);
    record->ns_pids = allocated & 0x7fffffff;
#if HAS_PID_NAMESPACE_PID_MAX
    READ(record->ns_pids_max, ns + pid_namespace_pid_max);
#endif
}

/* Whether the call made no process although it should have. A clone that should have made a thread is not
 * counted; a call that a signal made the kernel restart neither. */
static __always_inline int failed(s64 result, u8 which, u32 nr)
{
    if (result >= 0 || (result <= -ERESTARTSYS && result >= -ERESTART_RESTARTBLOCK))
        return 0;
    u64 task = bpf_get_current_task(), signal = signal_of(task), flags = 0;
    if (!followed.lookup(&signal))
        return 0;
    u64 regs = registers_in(task, nr);
    if (!regs || (which != CALL_CLONE && which != CALL_CLONE3))
        return 1;
    READ(flags, regs + REG_ARG0);
    if (which == CALL_CLONE3)
        READ_USER(flags, flags);
    return !(flags & CLONE_THREAD);
}

/* current is the caller. */
static __always_inline int report_failed_fork(s64 result, u8 which, struct walk *walk)
{
    u64 task = bpf_get_current_task(), signal = signal_of(task);
    struct process *caller = followed.lookup(&signal);
    if (!caller)
        return 0;
    struct fork_failed_record *record = ring.ringbuf_reserve(sizeof(struct fork_failed_record));
    if (!record) {
        lose(FORK_FAILED);
        return 0;
    }
    __builtin_memset(record, 0, sizeof(*record));
    begin(&record->head, FORK_FAILED, caller, walk);
    name_thread(&record->head.by, task);
    read_task_limit(record, task);
    read_cgroup_limit(record, task);
    read_namespace_limit(record, task);
    record->error = -result;
    record->call = which;
    ring.ringbuf_submit(record, NO_WAKEUP);
    return 0;
}

int sys_after_failed_fork(void *ctx)
{
    struct walk *walk = walk_of(SYSCALL);
    return walk ? report_failed_fork(walk->result, walk->call, walk) : 0;
}

TRACEPOINT_PROBE(syscalls, sys_exit_clone)
{
    if (failed(args->ret, CALL_CLONE, SYSCALL_CLONE))
        sys_programs.call(args, after_call(AFTER_FAILED_FORK, args->ret, CALL_CLONE));
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_exit_clone3)
{
    if (failed(args->ret, CALL_CLONE3, SYSCALL_CLONE3))
        sys_programs.call(args, after_call(AFTER_FAILED_FORK, args->ret, CALL_CLONE3));
    return 0;
}

#if HAS_OLD_FORKS
TRACEPOINT_PROBE(syscalls, sys_exit_fork)
{
    if (failed(args->ret, CALL_FORK, SYSCALL_FORK))
        sys_programs.call(args, after_call(AFTER_FAILED_FORK, args->ret, CALL_FORK));
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_exit_vfork)
{
    if (failed(args->ret, CALL_VFORK, SYSCALL_VFORK))
        sys_programs.call(args, after_call(AFTER_FAILED_FORK, args->ret, CALL_VFORK));
    return 0;
}
#endif
