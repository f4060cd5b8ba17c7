/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: how a followed process ends, with the stack of the thread that leads it out; and whom the children of a dying process go to.
 * Cannot see: the exit of a process that was not followed yet.
 */

static __always_inline int is_alive(u64 task)
{
    u32 live = 0;
    READ(live, signal_of(task) + signal_live);
    return live != 0;
}

static __always_inline u8 signal_bit(u64 signal, u64 offset, u64 bit)
{
    u8 byte = 0;
    READ(byte, signal + offset);
    return (byte >> (bit & 7)) & 1;
}

#define ANCESTORS 64
#define CHILDREN_A_CALL 64 /* one call after the other: a loop that the verifier sees is a short one */
#define CHILDREN_CALLS 64

/* The task that inherits the children of the dying process of `task`: the nearest living ancestor in its PID namespace that is a
 * subreaper, else the namespace's init (the kernel's find_new_reaper). 0: it is that init itself. */
u64 shared_adopter_of(u64 task)
{
    u64 signal = signal_of(task), pid = thread_pid_of(task), ns = 0, init = 0, ancestor = 0, next = 0;
    u32 level = 0, ancestor_level = 0;
    READ(level, pid + pid_level);
    if (signal_bit(signal, signal_has_child_subreaper, signal_has_child_subreaper_bit)) {
        READ(ancestor, task + task_real_parent);
#pragma nounroll
        for (int i = 0; i < ANCESTORS; i++) {
            u32 global_tid = 0;
            READ(global_tid, ancestor + task_pid);
            READ(ancestor_level, thread_pid_of(ancestor) + pid_level);
            if (global_tid == 0 || ancestor_level != level)
                break;
            if (signal_bit(signal_of(ancestor), signal_is_child_subreaper, signal_is_child_subreaper_bit) && is_alive(ancestor))
                return ancestor;
            next = 0;
            READ(next, ancestor + task_real_parent);
            ancestor = next;
        }
    }
    READ(ns, pid + pid_numbers + level * upid_sizeof + upid_ns);
    READ(init, ns + pid_namespace_child_reaper);
    return signal_of(init) == signal ? 0 : init;
}

/* Add the CPU times that a kernel object has at these places. */
static __always_inline void add_times(struct exit_record *record, u64 object, u64 utime, u64 stime, u64 runtime)
{
    u64 value = 0;
    READ(value, object + utime);
    record->utime_ticks_ns += value;
    READ(value, object + stime);
    record->stime_ticks_ns += value;
    READ(value, object + runtime);
    record->runtime_ns += value;
}

/* What of the exit of a process can be read from its leader, `task`: that, the last thread to die, or a zombie. CPU times: released
 * threads are summed in the signal_struct, the dying one and a leader that died before it are not. */
static __always_inline void report_exit(struct process *process, u64 task, u64 leader, u64 signal, u8 moment)
{
    u32 flags = 0;
    struct exit_record *record = ring.ringbuf_reserve(sizeof(struct exit_record));
    if (!record) {
        lose(EXIT);
        return;
    }
    begin(&record->head, EXIT, process, 0);
    record->head.time_ns = process->exit_ns;
    record->head.stack = process->exit_stack;
    record->head.stack_status = process->exit_stack_status;
    record->exit_from = process->exit_from;
    record->moment = moment;
    if (moment == AS_SEEN)
        name_thread(&record->head.by, task);
    else
        nobody(&record->head.by);
    record->parent = process->parent_name;
    record->adopter = process->adopter_name;
    record->utime_ticks_ns = record->stime_ticks_ns = record->runtime_ns = 0;
    add_times(record, signal, signal_utime, signal_stime, signal_sum_sched_runtime);
    add_times(record, task, task_utime, task_stime, task_sum_exec_runtime);
    if (leader != task)
        add_times(record, leader, task_utime, task_stime, task_sum_exec_runtime);
    READ(record->max_rss_pages, signal + signal_maxrss);
    READ(flags, signal + signal_flags);
    if (flags & SIGNAL_GROUP_EXIT)
        READ(record->status, signal + signal_group_exit_code);
    else
        READ(record->status, leader + task_exit_code);
    record->exit_signal = process->exit_signal;
    record->disposition = process->disposition;
    bpf_probe_read_kernel(record->comm, COMM_BYTES, (void *)(task + task_comm));
    ring.ringbuf_submit(record, NO_WAKEUP);
}

/* Whose code called exit_group, by the return addresses on the user's stack: os._exit lies in the interpreter and libc's _exit keeps
 * nothing there; of exit(3) Py_Exit is a caller further up, where SystemExit passes it. 256 bytes can always be read. arm64 has the
 * innermost return address in a register. */
static __always_inline u8 exit_from(u64 regs, struct process *process, struct work *work)
{
    u64 pointer = 0, caller = 0, *words = work->block;
    struct interpreter *python = interpreter_of(process);
    if (!python || !python->version)
        return NONE;
    u8 from = python->returns ? RETURNED : OTHER_CODE;
    READ(pointer, regs + REG_SP);
    if (read_user(words, 256, (void *)pointer))
        return NONE;
    u64 library = process->library;
    struct interpreter *mapped = interpreters.lookup(&library);
    u64 base = mapped && mapped->version ? process->library_start - python->first_page : process->program_code - python->first_code;
    caller = words[0];
    if (HAS_LINK_REGISTER)
        READ(caller, regs + REG_LINK);
    if (caller - base >= python->text && caller - base < python->text_end)
        return INTERPRETER;
#pragma nounroll
    for (int i = 0; i < 32; i++)
        if (words[i] - base > python->py_exit && words[i] - base <= python->py_exit_end)
            from = PY_EXIT;
    return from;
}

/* The thread that leads the process out, before anything is torn down: keep its stack, if it says more of how the process ends than
 * those before it. It says most (2) inside exit_group, and something (1) where it dies with the group. */
u64 shared_keep_exit_stack(u64 slot)
{
    u64 task = bpf_get_current_task(), signal = signal_of(task), regs = registers_in(task, SYSCALL_EXIT_GROUP);
    struct work *work = work_of(slot);
    struct process *process = followed.lookup(&signal);
    u32 flags = 0;
    if (!work || !process)
        return 0;
    READ(flags, signal + signal_flags);
    u8 rank = regs ? 2 : flags & SIGNAL_GROUP_EXIT ? 1 : 0;
    if (process->exit_ns || rank <= process->exit_known)
        return 0;
    process->exit_known = rank;
    process->exit_from = regs ? exit_from(regs, process, work) : NONE;
    work->most = STACK_FRAMES;
    take_stack(slot);
    process->exit_stack = work->stack;
    process->exit_stack_status = work->stack_status;
    return 0;
}

/* The process of `task`, the last of its threads, ends. */
u64 shared_note_end(u64 task)
{
    u64 signal = signal_of(task), leader = 0, parent = 0, adopter = adopter_of(task);
    struct process *process = followed.lookup(&signal);
    if (!process || process->exit_ns)
        return 0;
    READ(leader, task + task_group_leader);
    READ(parent, leader + task_real_parent);
    READ(process->exit_signal, leader + task_exit_signal);
    note_parent(process, parent);
    nobody(&process->adopter_name);
    if (adopter) {
        process->adopter_disposition = disposition_of(adopter, SIGCHLD);
        name_process(&process->adopter_name, adopter);
    }
    process->exit_ns = bpf_ktime_get_boot_ns();
    parent = process->parent;
    struct process *dead = followed.lookup(&parent);
    if (dead && dead->exit_ns) /* it has died, and has not got to leaving its children yet */
        hand_on(process, dead);
    report_exit(process, task, leader, signal, AS_SEEN);
    return 0;
}

/* Whether the children of the dying process of `task` are handed to a followed one. */
static __always_inline int goes_to_followed(u64 task)
{
    u64 adopter = adopter_of(task), signal = adopter ? signal_of(adopter) : 0;
    return followed.lookup(&signal) != 0;
}

/* One child of the dying process of the task work->own, at work->frame in its list; returns whether there was one. With an origin,
 * work->image, one that is not followed yet is so from now on, its earlier life was before the recording. One that has exited learns who
 * adopts it, if the dying one is followed; where that ignores SIGCHLD, no notification would say so. */
u64 shared_pass_child(u64 slot)
{
    struct work *work = work_of(slot);
    struct attaching *pass = attaching_now();
    if (!work || !pass)
        return 0;
    u64 task = work->own, entry = work->frame, signal = signal_of(task), next = 0;
    u8 origin = work->image;
    if (entry == task + task_children)
        return 0;
    READ(next, entry);
    u64 child = entry - task_sibling, signal_of_child = signal_of(child);
    struct process *process = followed.lookup(&signal_of_child), *dead = followed.lookup(&signal);
    if (process && process->exit_ns && dead) {
        hand_on(process, dead);
        if (!process->zombie_ns)
            process->disposition = disposition_of(task, SIGCHLD); /* of a dying process: from now on it stays so */
    }
    if (!process && origin != NONE) {
        join_in(work, slot, child, origin);
        pass->added++; /* the next pass looks whether they are zombies */
    }
    work->frame = next;
    return 1;
}

u64 shared_pass_children(u64 slot)
{
#pragma nounroll
    for (int i = 0; i < CHILDREN_A_CALL; i++)
        if (!pass_child(slot))
            return 0;
    return 1;
}

static __always_inline void pass_all_children(u64 task, u8 origin)
{
    u64 entry = 0, slot = claim();
    struct work *work = work_of(slot);
    if (slot == SLOTS || !work) {
        lose(CHILDREN_UNADOPTED);
        return;
    }
    READ(entry, task + task_children);
    work->own = task;
    work->frame = entry;
    work->image = origin;
    int are_more = 1;
#pragma nounroll
    for (int i = 0; i < CHILDREN_CALLS && are_more; i++)
        are_more = pass_children(slot);
    if (are_more && origin != NONE)
        lose(CHILDREN_UNADOPTED);
    give_back(work);
}

static __always_inline void take_exit_stack(struct process *process)
{
    u64 slot = claim();
    struct work *work = work_of(slot);
    if (slot == SLOTS || !work) {
        process->exit_stack_status = STACK_LOST;
        return;
    }
    keep_exit_stack(slot);
    give_back(work);
}

/* current is the dying thread. The kernels that hand over group_dead still have its memory here, for the stack of a crash; and they say
 * whether it was the last one. On older ones several threads may find that none lives any more: the first reports. The children of a
 * process that is not followed may go to one that is; and while a recording attaches, those of a followed one may not have been
 * found yet. */
int on_exit(union context *context)
{
    u64 task = bpf_get_current_task(), signal = signal_of(task);
    struct process *process = followed.lookup(&signal);
    u32 live = 0;
    u8 one = 1, group_dead = 0;
    if (EXIT_HAS_GROUP_DEAD) {
        if (process && STACKS)
            take_exit_stack(process);
        if (RAW_IS_PREEMPTED)
            READ(group_dead, (u64)context + exit_event_group_dead);
        else
            group_dead = context->args[1];
        live = !(group_dead & 1);
    } else {
        READ(live, signal + signal_live);
    }
    if (live || (process && process->exit_ns))
        return 0;
    if (process) {
        if (!EXIT_HAS_GROUP_DEAD && ended.insert(&signal, &one))
            return 0;
        note_end(task);
        pass_all_children(task, is_attaching() ? ATTACHED : NONE);
        return 0;
    }
    if (is_target(task)) /* its number may be another's soon */
        forget_target();
    if (goes_to_followed(task))
        pass_all_children(task, ADOPTED);
    return 0;
}
