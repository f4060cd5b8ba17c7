/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: the result of every wait4 and waitid of a followed process, and of any process that gets a followed child; and of a waitid
 * through io_uring. Cannot see: waits of a dying PID namespace, system calls of 32-bit programs, and of processes whose system calls
 * raise no tracepoint.
 */
#define EINTR 4
#define ECHILD 10
#define EFAULT 14
#define ERESTARTSYS 512
#define ERESTART_RESTARTBLOCK 516

/* place -> number of wait calls that returned no child. User space reads it, and removes the places of processes that are gone.
 * Map full: counted in losses[WAIT_PLACES]. */
BPF_HASH(wait_totals, struct wait_place, u64, PLACES);

/* Process, place and child of a wait that failed with ECHILD, or that was interrupted. The first one is an event: it shows that the status of
 * a child was stolen, or that a join hung until Ctrl-C. Map full: the least recently used entry is dropped; the next such wait is an
 * event again. */
struct refusal {
    u64 signal;
    u64 stack;
    u32 target_pid;
    u32 error;
};
BPF_TABLE("lru_hash", struct refusal, u8, refusals, 4096);

static __always_inline void count_empty(struct work *work, struct process *waiter)
{
    struct wait_call *call = &work->call;
    struct wait_place place = {.start_ns = waiter->start_ns, .pid = waiter->pid, .options = call->options};
    u64 zero = 0, signal = 0;
    place.error = call->error;
    place.call = call->call;
    place.target = call->target;
    place.stack = work->stack;
    place.stack_status = work->stack_status;
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

static __always_inline int is_new_refusal(struct work *work)
{
    struct wait_call *call = &work->call;
    struct refusal refusal = {
        .signal = call->signal, .stack = work->stack, .target_pid = call->target_pid, .error = call->error};
    u8 one = 1;
    if (call->target != PID && call->target != PIDFD)
        return 0;
    if (refusals.lookup(&refusal))
        return 0;
    refusals.update(&refusal, &one);
    return 1;
}

/* Whether current is being killed, which ended its call: nothing that it waits for will come any more. */
static __always_inline int is_killed(struct wait_call *call)
{
    u32 flags = 0;
    READ(flags, call->signal + signal_flags);
    return flags & SIGNAL_GROUP_EXIT;
}

/* Report a wait call. `child` 0: it is not followed, or not known. */
static __always_inline void report_wait(struct work *work, struct process *child, u32 kind)
{
    struct wait_call *call = &work->call;
    struct wait_record *record = ring.ringbuf_reserve(sizeof(struct wait_record));
    if (!record) {
        lose(kind);
        return;
    }
    begin(&record->head, kind, child, work);
    name_thread(&record->head.by, call->task);
    record->zombie_ns = child ? child->zombie_ns : 0;
    record->empty_waits = child ? child->empty_waits : 0;
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

/* Whether this call released this followed process. */
static __always_inline int released_by(struct wait_call *call, struct process *process)
{
    return process->exit_ns && !process->reaped && process->parent == call->signal && !leader_of(call->child_signal);
}

/* The child that a call returned: the former owner of the number if the call released it, else the present one. */
static __always_inline struct process *find_child(struct wait_call *call)
{
    struct number number = {.ns = call->ns, .nr = call->ns_pid};
    struct owners *known = owners_of(&number);
    if (!known)
        return 0;
    u64 signal = call->child_signal = known->before;
    struct process *child = followed.lookup(&signal);
    if (child && released_by(call, child) && child->disposition < IGNORED)
        return child;
    signal = call->child_signal = known->now;
    return followed.lookup(&signal);
}

/* Whether the child that a call returned was freed before the call returned. */
static __always_inline int was_released_by(struct wait_call *call)
{
    struct number number = {.ns = call->ns, .nr = call->ns_pid};
    u64 *parent = released.lookup(&number);
    return parent && *parent == call->signal;
}

/* Report a call that returned a dead child.
 *     freed before the call returned   REAP
 *     WNOWAIT                          WAIT: the zombie stays
 *     not followed                     WAIT: the waiter's children are followed, so it is a thread or a stranger that the waiter traces
 *     the waiter is not its parent     WAIT: a tracer does not release it
 *     not released                     WAIT of a child that is not known: another thread overwrote the result before it was read
 *     otherwise                        REAP */
static __always_inline void report_ended(struct work *work, struct process *child)
{
    struct wait_call *call = &work->call;
    u32 kind = REAP;
    if (!child && !(call->options & WNOWAIT) && was_released_by(call)) {
        /* REAP */
    } else if (call->options & WNOWAIT || !child || (child->exit_ns && child->parent != call->signal)) {
        kind = WAIT;
    } else if (!released_by(call, child)) {
        child = 0;
        call->ns_pid = 0;
        kind = WAIT;
    } else {
        child->reaped = 1;
    }
    report_wait(work, child, kind);
}

/* Report a call that did not name its child: it failed with EFAULT, which wait4 and waitid do only after the release; or it is a waitid
 * without an infop. If its target is one pid, and that child is a zombie, it is that child. Else the child is not known. */
static __always_inline void report_unnamed(struct work *work, struct process *waiter)
{
    struct wait_call *call = &work->call;
    if (call->target == PID) {
        call->ns_pid = call->target_pid;
        struct process *child = find_child(call);
        int is_dead = child && child->exit_ns && (child->zombie_ns || child->exit_signal == 0);
        if (is_dead && (call->options & WNOWAIT || released_by(call, child))) {
            report_ended(work, child);
            return;
        }
        call->ns_pid = 0;
        if (!call->error && call->options & WNOHANG) {
            count_empty(work, waiter);
            return;
        }
    }
    if (!(call->options & WNOWAIT))
        report_wait(work, 0, WAIT);
}

/* Convert the siginfo of a waitid (CLD_EXITED 1, CLD_KILLED 2, CLD_DUMPED 3, with the code or signal) to the status of wait4. */
static __always_inline void take_status(struct wait_call *call, s32 code, u32 status)
{
    call->ended = code >= 1 && code <= 3;
    call->status = code == 1 ? (status & 0xff) << 8 : code == 2 ? status : code == 3 ? status | 0x80 : status << 8 | 0x7f;
}

static __always_inline u8 target_of_id(u32 type)
{
    return type == 0 ? ANY : type == 1 ? PID : type == 2 ? PGID : PIDFD;
}

/* Read the arguments and the result. Returns whether the call could name its child. */
static __always_inline int fill(struct wait_call *call, u64 regs)
{
    u64 first = 0, second = 0, third = 0, fourth = 0;
    READ(first, regs + REG_ARG0);
    READ(second, regs + REG_ARG1);
    READ(third, regs + REG_ARG2);
    READ(fourth, regs + REG_ARG3);
    if (call->call == WAIT4) {
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

/* Start a wait_call of current. */
static __always_inline void begin_call(struct wait_call *call, u8 which)
{
    __builtin_memset(call, 0, sizeof(*call));
    call->task = bpf_get_current_task();
    call->signal = signal_of(call->task);
    call->ns = innermost(thread_pid_of(call->task)).ns;
    call->target = NONE;
    call->call = which;
}

/* Report the wait call work->number of current, which returned work->result. The process of current is the reaper; the result of wait4 is
 * the child's number in its PID namespace. */
u64 shared_report_waited(u64 slot)
{
    struct work *work = work_of(slot);
    if (!work)
        return 0;
    struct wait_call *call = &work->call;
    s64 result = work->result;
    begin_call(call, work->number == SYSCALL_WAIT4 ? WAIT4 : WAITID);
    u64 signal = call->signal, regs = registers_in(call->task, work->number);
    struct process *waiter = followed.lookup(&signal), *child = 0;
    call->error = result < 0 ? -result : 0;
    call->ns_pid = call->call == WAIT4 && result > 0 ? result : 0;
    int has_place_for_result = regs ? fill(call, regs) : 1;
    if (call->ns_pid)
        child = find_child(call);
    if (!waiter) {
        KEEP_APART();
        if (!child)
            return 0;
    }
    if (call->error == EFAULT || (!call->error && !has_place_for_result)) {
        if (waiter)
            report_unnamed(work, waiter);
        return 0;
    }
    if (call->error || !call->ns_pid) {
        if (!waiter)
            return 0;
        if (call->error >= ERESTARTSYS && call->error <= ERESTART_RESTARTBLOCK)
            call->error = EINTR;
        int is_event = call->error == ECHILD ? is_new_refusal(work) : call->error == EINTR && (is_killed(call) || is_new_refusal(work));
        if (is_event && call->target == PID && call->error == EINTR)
            child = find(call->ns, call->target_pid, &signal);
        if (is_event)
            report_wait(work, child, WAIT);
        else if (!call->error || call->error == ECHILD || call->error == EINTR)
            count_empty(work, waiter);
        return 0;
    }
    if (child && released_by(call, child))
        call->ended = 1;
    if (call->ended)
        report_ended(work, child);
    else
        report_wait(work, child, WAIT);
    return 0;
}

/* Report the waitid of the io_uring request at work->number. */
u64 shared_report_io_uring(u64 slot)
{
    struct work *work = work_of(slot);
    if (!work)
        return 0;
    struct wait_call *call = &work->call;
    u64 wait = work->number + io_kiocb_cmd;
    s32 pid = 0, code = 0;
    u32 type = 0, status = 0;
    no_stack(work);
    begin_call(call, IO_URING);
    READ(type, wait + io_waitid_which);
    READ(call->target_pid, wait + io_waitid_upid);
    READ(call->options, wait + io_waitid_options);
    READ(pid, wait + io_waitid_info + waitid_info_pid);
    READ(status, wait + io_waitid_info + waitid_info_status);
    READ(code, wait + io_waitid_info + waitid_info_cause);
    if (!pid)
        return 0;
    call->ns_pid = pid;
    call->target = target_of_id(type);
    call->has_status = 1;
    take_status(call, code, status);
    u64 signal = call->signal;
    struct process *waiter = followed.lookup(&signal), *child = find_child(call);
    if (!waiter) {
        KEEP_APART();
        if (!child)
            return 0;
    }
    if (call->ended)
        report_ended(work, child);
    else
        report_wait(work, child, WAIT);
    return 0;
}

/* current belongs to the waiting process: the submitter, or a worker of its ring. Runs for every completion of every ring, and returns at
 * once unless it is a waitid. */
int on_io_uring(union context *context)
{
    u64 request = context->args[1];
    u8 opcode = 0;
    s32 result = 0;
    READ(opcode, request + io_kiocb_opcode);
    if (opcode != IORING_OP_WAITID)
        return 0;
    if (IO_URING_HAS_RESULT) /* "io_uring: get rid of separate cqe fields", 6.10 or thereabouts */
        result = context->args[3];
    else
        READ(result, context->args[2] + 8);
    if (result)
        return 0;
    u64 slot = claim();
    struct work *work = work_of(slot);
    if (slot == SLOTS || !work) {
        lose(REAP);
        return 0;
    }
    work->number = request;
    report_io_uring(slot);
    give_back(work);
    return 0;
}
