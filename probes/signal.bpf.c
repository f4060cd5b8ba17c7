/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: the notification of a parent, which makes a followed process a zombie; and the signals that kill or stop a followed process.
 */
#define SIGNAL_FRAMES 128
#define CLD_EXITED 1
#define CLD_DUMPED 3

#define MOST_WAITERS 16
#define SIGNAL_STOP_STOPPED 1
#define WNOTHREAD 0x20000000
#define WALL 0x40000000
#define WCLONE 0x80000000
#define ANY_CHILD 4 /* PIDTYPE_MAX, in a struct wait_opts */

/* Whether a wait in progress (a struct wait_opts) reaps a child with this signal_struct and exit signal: the rules of
 * eligible_child() and child_wait_callback() in kernel/exit.c. A wait that leaves the zombie in place (WNOWAIT) does not. */
static __always_inline int takes(u64 wait, u64 parent, u64 child, u32 exit_signal)
{
    u32 type = 0, flags = 0;
    u64 wanted = 0, pid = 0, waiter = 0;
    READ(type, wait + wait_opts_wo_type);
    READ(flags, wait + wait_opts_wo_flags);
    READ(wanted, wait + wait_opts_wo_pid);
    READ(waiter, wait + wait_opts_child_wait + wait_queue_entry_private);
    READ(pid, child + signal_pids + sizeof(void *) * (type ? type & 3 : PIDTYPE_TGID));
    if (!(flags & WEXITED) || flags & (WNOHANG | WNOWAIT) || (flags & WNOTHREAD && waiter != parent))
        return 0;
    if (!(flags & WALL) && (exit_signal != SIGCHLD) != !!(flags & WCLONE))
        return 0;
    return type >= ANY_CHILD || wanted == pid;
}

/* How many threads of the receiver of work->sent are in a wait that takes the child work->number (a signal_struct) with the exit
 * signal work->result. NONE: the end of the list was not reached. Then it has more than MOST_WAITERS entries, or it changed: neither
 * this function nor current locks it (current holds tasklist_lock only). */
u64 shared_count_waiters(u64 slot)
{
    struct work *work = work_of(slot);
    u64 entry = 0, count = 0;
    if (!work || !HAS_WAITERS)
        return NONE;
    u64 parent = work->sent.target, head = signal_of(parent) + signal_wait_chldexit + wait_queue_head_head;
    READ(entry, head);
#pragma nounroll
    for (int i = 0; i <= MOST_WAITERS; i++) {
        if (entry == head)
            return count;
        u64 wait = entry - wait_queue_entry_entry - wait_opts_child_wait;
        count += takes(wait, parent, work->number, work->result);
        READ(entry, entry);
    }
    return NONE;
}

/* A parent is notified of the death of a followed process. current is
 *     the last thread of that process
 *     its dying parent: the adopter is notified
 *     its tracer: the real parent is notified */
static __always_inline void report_zombie(struct process *process, u64 target, u32 number, u64 current, u8 waiters)
{
    u32 flags = 0;
    note_parent(process, target);
    u64 now = bpf_ktime_get_boot_ns();
    if (!process->zombie_ns)
        process->zombie_ns = now;
    process->notified_ns = now;
    process->reparented_ns = 0;
    struct zombie_record *record = ring.ringbuf_reserve(sizeof(struct zombie_record));
    if (!record) {
        lose(ZOMBIE);
        return;
    }
    begin(&record->head, ZOMBIE, process, 0);
    record->head.time_ns = now;
    name_thread(&record->head.by, current);
    record->parent = process->parent_name;
    record->signal = number;
    record->disposition = process->disposition;
    READ(flags, signal_of(target) + signal_flags);
    record->stopped = flags & SIGNAL_STOP_STOPPED;
    record->waiters = waiters;
    ring.ringbuf_submit(record, NO_WAKEUP);
}

/* Signals whose default action neither kills nor stops: SIGCHLD, SIGCONT, SIGURG, SIGWINCH. */
#define HARMLESS ((1ULL << 17) | (1ULL << 18) | (1ULL << 23) | (1ULL << 28))
/* Signals that ask a process to end. Reported even with a handler, which may end it: SIGHUP INT QUIT ABRT TERM. */
#define REQUESTS ((1ULL << 1) | (1ULL << 2) | (1ULL << 3) | (1ULL << 6) | (1ULL << 15))
/* SIGKILL and SIGSTOP: they cannot be handled. */
#define ABSOLUTE ((1ULL << 9) | (1ULL << 19))

/* Who sent a signal. `info` is 0 for a plain kill by current, 1 for the kernel, else a siginfo. current is the sender of BY_PROCESS and
 * BY_PDEATHSIG only: timers and asynchronous I/O run in the context of a bystander. */
static __always_inline u8 sender_kind(u64 info, u32 number, u64 current)
{
    u32 flags = 0;
    s32 code = 0;
    READ(flags, current + task_flags);
    if (info > 1)
        READ(code, info + 8);
    if (info == 0 && flags & PF_EXITING)
        return BY_PDEATHSIG;
    if (info == 1 && flags & PF_EXITING && number == 9)
        return BY_PIDNS;
    if (info == 0 || (info > 1 && (code == 0 || code == -1 || code == -6)))
        return BY_PROCESS;
    return BY_KERNEL;
}

/* Whether a signal kills or stops a process with this disposition, or asks it to end. */
static __always_inline int matters(u32 number, u8 disposition)
{
    u64 bit = number < 64 ? 1ULL << number : 0;
    if (HARMLESS & bit)
        return 0;
    return ABSOLUTE & bit || !(disposition == IGNORED || (disposition == HANDLER && !(REQUESTS & bit)));
}

/* Report that the signal in work->sent reaches a followed process; current sends it, or is a bystander. */
u64 shared_report_signal(u64 slot)
{
    struct work *work = work_of(slot);
    if (!work)
        return 0;
    u64 current = bpf_get_current_task(), signal = signal_of(work->sent.target);
    struct process *receiver = followed.lookup(&signal);
    struct signal_record *record = receiver ? ring.ringbuf_reserve(sizeof(struct signal_record)) : 0;
    if (!receiver)
        return 0;
    if (!record) {
        lose(SIGNAL);
        return 0;
    }
    u8 sent_by = sender_kind(work->sent.info, work->sent.number, current);
    begin(&record->head, SIGNAL, receiver, work);
    record->signal = work->sent.number;
    record->disposition = work->sent.disposition;
    record->sent_by = sent_by;
    if (sent_by == BY_PROCESS || sent_by == BY_PDEATHSIG)
        name_thread(&record->head.by, current);
    else
        nobody(&record->head.by);
    ring.ringbuf_submit(record, NO_WAKEUP);
    return 0;
}

enum report { NO_REPORT, WITHOUT_STACK, WITH_STACK };

/* Whether and how the signal in work->sent is reported: not if the receiver ignores it or is dead; with the sender's stack if current is
 * inside its kill call. */
u64 shared_choose_report(u64 slot)
{
    struct work *work = work_of(slot);
    if (!work)
        return 0;
    u64 current = bpf_get_current_task(), target = work->sent.target, signal = signal_of(target), own = signal_of(current);
    u64 info = work->sent.info;
    u32 number = work->sent.number, result = work->sent.result;
    struct process *receiver = followed.lookup(&signal);
    if (!receiver || receiver->exit_ns || (result != 0 && result != 4))
        return NO_REPORT;
    u8 disposition = disposition_of(target, number);
    work->sent.disposition = disposition;
    if (!matters(number, disposition))
        return NO_REPORT;
    return info > 1 && followed.lookup(&own) && sender_kind(info, number, current) == BY_PROCESS ? WITH_STACK : WITHOUT_STACK;
}

/* Report a zombie, if the signal in work->sent notifies a parent of a death. Returns whether it does. Not: the notification of a tracer,
 * and a siginfo that a process sends to itself, which can name anybody's child. */
u64 shared_report_death(u64 slot)
{
    struct work *work = work_of(slot);
    if (!work)
        return 0;
    u64 current = bpf_get_current_task(), target = work->sent.target, info = work->sent.info, signal = 0, parent = 0;
    u32 number = work->sent.number;
    s32 code = 0, pid = 0;
    if (info <= 1)
        return 0;
    READ(code, info + 8);
    READ(pid, info + 16);
    if (code < CLD_EXITED || code > CLD_DUMPED || signal_of(current) == signal_of(target))
        return 0;
    struct process *child = find(innermost(thread_pid_of(target)).ns, pid, &signal);
    if (!child || !child->exit_ns || (number != SIGCHLD && number != child->exit_signal))
        return 0;
    READ(parent, leader_of(signal) + task_real_parent);
    if (signal_of(parent) != signal_of(target))
        return 0;
    work->number = signal;
    work->result = child->exit_signal;
    report_zombie(child, target, number, current, count_waiters(slot));
    return 1;
}

/* Runs under the target's sighand lock with interrupts off, so the walk of a sender's stack is limited to a few microseconds
 * (SIGNAL_FRAMES). current is the sender, inside its kill call, if a process sent the signal; else it can be a bystander. */
int on_signal(union context *context)
{
    u64 target = context->args[2], signal = signal_of(target), own = signal_of(bpf_get_current_task());
    if (!followed.lookup(&own) && !followed.lookup(&signal))
        return 0;
    u64 slot = claim();
    struct work *work = work_of(slot);
    if (slot == SLOTS || !work) {
        lose((u32)context->args[0] == SIGCHLD ? ZOMBIE : SIGNAL);
        return 0;
    }
    work->sent.number = context->args[0];
    work->sent.info = context->args[1];
    work->sent.target = target;
    work->sent.result = context->args[4];
    if (!report_death(slot)) {
        u64 report = choose_report(slot);
        work->most = SIGNAL_FRAMES;
        if (report == WITH_STACK)
            take_stack(slot);
        else
            no_stack(work);
        if (report != NO_REPORT)
            report_signal(slot);
    }
    give_back(work);
    return 0;
}

/* current is the task that needed memory; the victim has got its SIGKILL. Newer kernels pass the task, older ones its global pid. */
int on_oom(union context *context)
{
    u64 victim = context->args[0], signal = 0;
    struct process *process;
    if (MARK_VICTIM_HAS_TASK) {
        signal = signal_of(victim);
        process = followed.lookup(&signal);
    } else {
        process = find(INIT_PID_NS, victim, &signal);
    }
    if (!process)
        return 0;
    struct signal_record *record = ring.ringbuf_reserve(sizeof(struct signal_record));
    if (!record) {
        lose(OOM);
        return 0;
    }
    begin(&record->head, OOM, process, 0);
    nobody(&record->head.by);
    record->signal = 9;
    record->disposition = DEFAULT;
    record->sent_by = BY_OOM;
    ring.ringbuf_submit(record, NO_WAKEUP);
    return 0;
}
