/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: every process a followed process makes, its exec, its end, the notification of its parent, the signals that kill or stop
 * it, and the release of its task. Cannot see: who released it (wait.bpf.c can, when it was a system call), and an exec or exit
 * of a process that was not followed yet.
 */

static __always_inline struct image begun(u64 signal, u64 since_ns)
{
    return (struct image){.signal = signal, .since_ns = since_ns, .until_ns = FOR_EVER};
}

/* The program that runs in this memory; what it has mapped is not known yet. */
static __always_inline void note_program(struct process *process, u64 signal, u64 mm)
{
    u64 file = 0;
    process->images[0] = begun(signal, bpf_ktime_get_boot_ns());
    process->images[1].signal = process->images[2].signal = 0;
    READ(file, mm + mm_exe_file);
    process->program = file_key(file);
    READ(process->program_code, mm + mm_start_code);
    process->library = process->library_start = 0;
    process->not_python = 0;
}

/* Begin to follow `task`, which runs what `like` does, or with 0 what its memory says; returns its entry, 0 when the map is full. Runs
 * before the task has run, or as the task itself. */
static __always_inline struct process *follow(u64 task, struct process *like)
{
    u64 signal = signal_of(task), pid = thread_pid_of(task);
    struct process fresh = {};
    u32 level = 0;
    READ(level, pid + pid_level);
#pragma unroll
    for (u32 up = 0; up < NS_LEVELS; up++) {
        if (up > level)
            break;
        u64 upid = pid + pid_numbers + (level - up) * upid_sizeof, ns = 0;
        struct number number = {};
        READ(number.nr, upid + upid_nr);
        READ(ns, upid + upid_ns);
        READ(number.ns, ns + pid_namespace_ns + ns_common_inum);
        struct owners owners = {.now = signal}, *former = owners_of(&number);
        if (former && former->now != signal) {
            owners.before = former->now;
            takers.update(&number, &owners); /* before `numbers` */
        }
        if (numbers.update(&number, &owners))
            lose(NUMBERS_UNKNOWN);
        fresh.numbers[up] = number;
    }
    fresh.pid = number_at(pid, recorder_level());
    fresh.start_ns = start_of(task);
    READ(fresh.exit_signal, task + task_exit_signal);
    fresh.disposition = NONE;
    fresh.exit_from = NONE;
    fresh.exit_stack_status = NONE;
    if (like) {
        fresh.program = like->program;
        fresh.program_code = like->program_code;
        fresh.library = like->library;
        fresh.library_start = like->library_start;
        fresh.not_python = like->not_python;
        fresh.images[0] = begun(signal, fresh.start_ns);
        fresh.images[1] = like->images[0];
        fresh.images[1].until_ns = fresh.start_ns;
        fresh.images[2] = like->images[1];
    } else {
        u64 mm = 0;
        READ(mm, task + task_mm);
        note_program(&fresh, signal, mm);
    }
    if (like)
        followed.update(&signal, &fresh);
    else if (followed.insert(&signal, &fresh)) /* full; or another processor was faster */
        return 0;
    return followed.lookup(&signal);
}

static __always_inline void report_fork(u64 task, struct process *child, u64 by, u64 flags, u8 origin, u8 call, struct walk *walk)
{
    struct fork_record *record = ring.ringbuf_reserve(sizeof(struct fork_record));
    if (!record) {
        lose(FORK);
        return;
    }
    u64 parent = 0;
    begin(&record->head, FORK, child, walk);
    if (by)
        name_thread(&record->head.by, by);
    else
        nobody(&record->head.by);
    READ(parent, task + task_real_parent);
    name_process(&record->parent, parent);
    record->flags = flags;
    record->cgroup_id = cgroup_of(task);
    record->exit_signal = child->exit_signal;
#pragma unroll
    for (int i = 0; i < NS_LEVELS; i++)
        record->ns_pids[NS_LEVELS - 1 - i] = child->numbers[i].nr;
    record->origin = origin;
    record->call = call;
    bpf_probe_read_kernel(record->comm, COMM_BYTES, (void *)(task + task_comm));
    ring.ringbuf_submit(record, NO_WAKEUP);
}

static __always_inline u8 forking_call(u64 task)
{
    u64 regs = registers_in(task, 0), nr = 0;
    if (!regs)
        return NONE;
    READ(nr, regs + REG_NR);
    return nr == SYSCALL_CLONE    ? CALL_CLONE
           : nr == SYSCALL_CLONE3 ? CALL_CLONE3
           : nr == SYSCALL_FORK   ? CALL_FORK
                                  : CALL_VFORK;
}

static __always_inline void forget(u64 signal, struct process *process)
{
#pragma unroll
    for (int i = 0; i < NS_LEVELS; i++) {
        struct number number = process->numbers[i];
        struct owners *known = numbers.lookup(&number);
        if (known && known->now == signal)
            numbers.delete(&number);
        struct owners *taken = takers.lookup(&number); /* after `numbers` */
        if (taken && taken->now == signal)
            takers.delete(&number);
        known = owners_of(&number);
        if (known && known->before == signal)
            known->before = 0;
    }
    followed.delete(&signal);
}

static __always_inline int ignores(u8 disposition)
{
    return disposition == IGNORED || disposition == NOCLDWAIT;
}

static __always_inline void report_autoreap(struct process *process, u64 time_ns, struct who *parent, u8 disposition)
{
    struct autoreap_record *record = ring.ringbuf_reserve(sizeof(struct autoreap_record));
    if (!record) {
        lose(AUTOREAP);
        return;
    }
    begin(&record->head, AUTOREAP, process, 0);
    record->head.time_ns = time_ns;
    nobody(&record->head.by);
    record->parent = *parent;
    record->zombie_ns = process->zombie_ns;
    record->empty_waits = process->empty_waits;
    record->disposition = disposition;
    ring.ringbuf_submit(record, NO_WAKEUP);
}

/* `dead`, the parent of `child`, leaves it to the heir of its children. */
static __always_inline void hand_on(struct process *child, struct process *dead)
{
    child->handed_ns = dead->exit_ns;
    child->heir_name = dead->adopter_name;
    child->heir_disposition = dead->adopter_disposition;
}

/* It was released and no wait of ours took it: its parent ignores SIGCHLD (autoreap, at the notification), perhaps only since the exit,
 * if nobody was told; or its parent died and left the zombie to an adopter that does (autoreap, at that parent's own notification,
 * for the adopter itself gets none); or its PID namespace died; or somebody waited whose system calls raise no event. */
static __always_inline void report_release(struct process *process)
{
    u64 parent_signal = process->parent, notified_ns = process->told_ns ? process->told_ns : process->exit_ns;
    struct process *parent = followed.lookup(&parent_signal);
    int parent_lives = 0;
    int handed = process->handed_ns != 0;
    int nobody_told = process->exit_ns && !process->zombie_ns && process->exit_signal == SIGCHLD; /* so somebody ignores SIGCHLD */
    if (parent && parent->start_ns == process->parent_name.start_ns) { /* else it has gone, and the address has a new owner */
        parent_lives = !parent->exit_ns;
        if (!parent_lives) {
            hand_on(process, parent);
            process->handed_ns = parent->zombie_ns ? parent->zombie_ns : parent->exit_ns;
        }
    }
    int dying_init = process->parent_is_init && !parent_lives; /* it cannot go before its children */
    if (nobody_told && !ignores(process->disposition) && !(handed && ignores(process->heir_disposition))) {
        if (handed) /* a dying parent cannot have begun to */
            process->heir_disposition = IGNORED;
        else
            process->disposition = IGNORED;
    }
    /* then the parent of its exit had no say any more */
    int left_amid_exit = handed && !process->zombie_ns && ignores(process->heir_disposition);
    if (!dying_init && !left_amid_exit && ignores(process->disposition) && process->exit_signal == SIGCHLD) {
        report_autoreap(process, notified_ns, &process->parent_name, process->disposition);
        return;
    }
    if (!dying_init && process->handed_ns && ignores(process->heir_disposition)) {
        u64 left_ns = process->handed_ns > notified_ns ? process->handed_ns : notified_ns;
        report_autoreap(process, left_ns, &process->heir_name, process->heir_disposition);
        return;
    }
#pragma unroll
    for (int i = 0; i < NS_LEVELS; i++)
        if (process->numbers[i].nr)
            released.update(&process->numbers[i], &parent_signal);
    struct wait_record *record = ring.ringbuf_reserve(sizeof(struct wait_record));
    if (!record) {
        lose(REAP);
        return;
    }
    __builtin_memset(record, 0, sizeof(*record));
    begin(&record->head, REAP, process, 0);
    record->head.by = process->handed_ns ? process->heir_name : process->parent_name;
    record->zombie_ns = process->zombie_ns;
    record->empty_waits = process->empty_waits;
    record->call = dying_init ? KERNEL : UNSEEN;
    record->target = NONE;
    ring.ringbuf_submit(record, NO_WAKEUP);
}

static __always_inline void release(u64 signal, struct process *process)
{
    if (!process->reaped)
        report_release(process);
    forget(signal, process);
}

static __always_inline int made(u64 child, u64 flags, struct walk *walk)
{
    u64 current = bpf_get_current_task(), signal = signal_of(current);
    struct process *forker = followed.lookup(&signal);
    if (!forker)
        return 0;
    struct process *process = follow(child, forker);
    if (process)
        report_fork(child, process, current, flags, FORKED, forking_call(current), walk);
    else
        lose(PROCESSES_UNFOLLOWED);
    return 0;
}

/* current is the forking thread; the child exists and has not run. Covers fork, vfork, clone, clone3 and posix_spawn. The child's
 * signal_struct is new: who is still known by its address has gone without sched_process_free, which no probe sees on some machines
 * while certain processes run (forktrace was made on one: those of its PID 1). */
RAW_TRACEPOINT_PROBE(task_newtask)
{
    u64 flags = ctx->args[1], signal = signal_of(bpf_get_current_task()), own = signal_of(ctx->args[0]);
    if (flags & CLONE_THREAD)
        return 0;
    struct process *former = followed.lookup(&own), *forker = followed.lookup(&signal);
    if (former)
        release(own, former);
    if (!forker)
        return 0;
    struct walk *walk = walk_of(RAW);
    if (walk)
        raw_programs.call(ctx, prepare(walk, forker, AFTER_FORK, STACK_FRAMES));
    return 0;
}

int raw_after_fork(struct bpf_raw_tracepoint_args *ctx)
{
    return made(ctx->args[0], ctx->args[1], walk_of(RAW));
}

/* One scratch record a CPU: argv is too long for the BPF stack, and its length for a reservation. */
BPF_PERCPU_ARRAY(exec_scratch, struct exec_record, 1);

static __always_inline struct process *begin_with_target(u64 task)
{
    int zero = 0;
    struct settings *known = settings.lookup(&zero);
    if (!known || !known->target.nr)
        return 0;
    u64 pid = thread_pid_of(task);
    struct number own = innermost(pid);
    if (own.nr != known->target.nr || own.ns != known->target.ns)
        return 0;
    known->target.nr = 0;
    READ(known->level, pid + pid_level);
    struct process *process = follow(task, 0);
    if (process)
        report_fork(task, process, 0, 0, TARGET, NONE, 0);
    return process;
}

/* current is the thread that called exec, now the leader and the only thread. The old image is gone, the new has not run. */
RAW_TRACEPOINT_PROBE(sched_process_exec)
{
    u64 task = ctx->args[0], signal = signal_of(task), mm = 0, from = 0, to = 0, file = 0;
    struct process *process = followed.lookup(&signal);
    int zero = 0;
    if (!process)
        process = begin_with_target(task);
    if (!process)
        return 0;
    struct exec_record *record = exec_scratch.lookup(&zero);
    if (!record)
        return 0;
    begin(&record->head, EXEC, process, 0);
    u32 old_tid = ctx->args[1], tid = 0;
    READ(tid, task + task_pid);
    name_process(&record->head.by, task);
    record->head.by.tid = tid == old_tid ? process->pid : recorder_level() ? 0 : old_tid;
    record->cgroup_id = cgroup_of(task);
    bpf_probe_read_kernel(record->comm, COMM_BYTES, (void *)(task + task_comm));
    READ(file, ctx->args[2] + linux_binprm_filename);
    bpf_probe_read_kernel_str(record->file, FILE_BYTES, (void *)file);
    READ(mm, task + task_mm);
    note_program(process, signal, mm);
    process->exit_known = 0;
#if STACKS
    u64 program = process->program;
    if (!interpreters.lookup(&program))
        ask_about(program, process->pid, 0);
#endif
    READ(from, mm + mm_arg_start);
    READ(to, mm + mm_arg_end);
    u64 bytes = to - from;
    record->argv_bytes = bytes;
    if (bytes > ARGV_BYTES - 1)
        bytes = ARGV_BYTES - 1;
    bytes &= ARGV_BYTES - 1; /* for older verifiers, which forget the comparison */
    if (read_user(record->argv, bytes, (void *)from))
        record->argv_bytes = bytes = 0;
    if (ring.ringbuf_output(record, sizeof(struct exec_record) - ARGV_BYTES + bytes, NO_WAKEUP))
        lose(EXEC);
    return 0;
}

static __always_inline int is_alive(u64 task)
{
    u32 live = 0;
    READ(live, signal_of(task) + signal_live);
    return live != 0;
}

static __always_inline u8 signal_bit(u64 signal, u32 offset, u8 bit)
{
    u8 byte = 0;
    READ(byte, signal + offset);
    return (byte >> bit) & 1;
}

/* The task that inherits the children of the dying process of `task`: the nearest living ancestor in its PID namespace that is a
 * subreaper, else the namespace's init (the kernel's find_new_reaper). 0: it is that init itself. */
static __always_inline u64 adopter_of(u64 task)
{
    u64 signal = signal_of(task), pid = thread_pid_of(task), ns = 0, init = 0, ancestor = 0, next = 0;
    u32 level = 0, ancestor_level = 0;
    READ(level, pid + pid_level);
    if (signal_bit(signal, signal_has_child_subreaper, signal_has_child_subreaper_bit)) {
        READ(ancestor, task + task_real_parent);
#pragma nounroll
        for (int i = 0; i < 64; i++) {
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
static __always_inline void add_times(struct exit_record *record, u64 object, u32 utime, u32 stime, u32 runtime)
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

/* Follow a process that runs already, or is a zombie already. */
static __always_inline struct process *join_in(u64 task, u8 origin)
{
    struct process *process = follow(task, 0);
    u64 signal = signal_of(task);
    if (process)
        report_fork(task, process, 0, 0, origin, NONE, 0);
    else if (!followed.lookup(&signal))
        lose(PROCESSES_UNFOLLOWED);
    return process;
}

/* The children of a dying process: with an origin, those that are not followed yet are so from now on, their earlier life was before
 * the recording. Those that have exited learn of the heir of `dead`, 0: it is not followed. One that ignores SIGCHLD gets no
 * notification that would say so. */
static __always_inline void pass_children(u64 task, struct process *dead, u8 origin)
{
    struct attaching *pass = attaching_now();
    u64 entry = 0;
    u8 disposition = disposition_of(task, SIGCHLD); /* of a dying process: from now on it stays so */
    READ(entry, task + task_children);
#pragma nounroll
    for (int i = 0; i < 64; i++) {
        if (entry == task + task_children)
            return;
        u64 task_of_child = entry - task_sibling, signal = signal_of(task_of_child);
        struct process *child = followed.lookup(&signal);
        if (child && child->exit_ns && dead) {
            hand_on(child, dead);
            if (!child->zombie_ns)
                child->disposition = disposition;
        }
        if (!child && origin != NONE) {
            join_in(task_of_child, origin);
            if (pass)
                pass->added++; /* the next pass looks whether they are zombies */
        }
        READ(entry, entry);
    }
    if (origin != NONE)
        lose(CHILDREN_UNADOPTED);
}

#if STACKS
/* Whose code called exit_group, by the return addresses on the user's stack: os._exit lies in the interpreter and libc's _exit keeps
 * nothing there; of exit(3) Py_Exit is a caller further up, where SystemExit passes it. 256 bytes can always be read. */
static __always_inline u8 exit_from(u64 regs, struct process *process)
{
    u64 pointer = 0, words[32] = {};
    struct interpreter *python = interpreter_of(process);
    if (!python || !python->version)
        return NONE;
    u8 from = python->returns ? RETURNED : OTHER_CODE;
    READ(pointer, regs + REG_SP);
    if (READ_USER(words, pointer))
        return NONE;
    u64 library = process->library;
    struct interpreter *mapped = interpreters.lookup(&library);
    u64 base = mapped && mapped->version ? process->library_start - python->first_page : process->program_code - python->first_code;
    if (words[0] - base >= python->text && words[0] - base < python->text_end)
        return INTERPRETER;
#pragma nounroll
    for (int i = 0; i < 32; i++)
        if (words[i] - base > python->py_exit && words[i] - base <= python->py_exit_end)
            from = PY_EXIT;
    return from;
}

/* Whether this dying thread says more of how its process ends than those before it: 2, it is in exit_group; 1, it dies with the group. */
static __always_inline u8 says(u64 regs, u64 signal)
{
    u32 flags = 0;
    READ(flags, signal + signal_flags);
    return regs ? 2 : flags & SIGNAL_GROUP_EXIT ? 1 : 0;
}

static __always_inline void keep_exit_stack(struct walk *walk)
{
    u64 signal = signal_of(bpf_get_current_task());
    struct process *process = followed.lookup(&signal);
    if (!process || !walk)
        return;
    process->exit_stack = walk->stack;
    process->exit_stack_status = walk->status;
}

/* The thread that leads the process out, before anything is torn down. */
static __always_inline int leaving(struct process *process, u64 task, u64 signal)
{
    u64 regs = registers_in(task, SYSCALL_EXIT_GROUP);
    u8 rank = says(regs, signal);
    if (process->exit_ns || rank <= process->exit_known)
        return 0;
    process->exit_known = rank;
    process->exit_from = regs ? exit_from(regs, process) : NONE;
    return 1;
}

#endif

static __always_inline void note_end(struct process *process, u64 task, u64 signal)
{
    u64 leader = 0, parent = 0, adopter = adopter_of(task);
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
}

/* Whether the children of the dying process of `task` are handed to a followed one. */
static __always_inline int goes_to_followed(u64 task)
{
    u64 adopter = adopter_of(task), signal = adopter ? signal_of(adopter) : 0;
    return followed.lookup(&signal) != 0;
}

/* group_dead: current was the last thread. Kernels without the argument group_dead have decremented live before they come here. The
 * children of a process that is not followed may go to one that is; and while a recording attaches, those of a followed one may
 * not have been found yet. */
static __always_inline int ended(u64 task, u64 group_dead)
{
    u64 signal = signal_of(task);
    u32 live = 0;
#if EXIT_HAS_GROUP_DEAD
    if (!(group_dead & 1))
        return 0;
#else
    READ(live, signal + signal_live);
    if (live)
        return 0;
#endif
    struct process *process = followed.lookup(&signal);
    if (process && process->exit_ns)
        return 0;
    u8 origin = NONE;
    if (process)
        note_end(process, task, signal);
    if (process ? is_attaching() : goes_to_followed(task))
        origin = process ? ATTACHED : ADOPTED;
    if (process || origin != NONE)
        pass_children(task, process, origin);
    return 0;
}

/* current is the dying thread. The kernels that hand over group_dead still have its memory here: that of a crash; on older ones
 * its stack is not to be had. */
RAW_TRACEPOINT_PROBE(sched_process_exit)
{
    struct walk *walk = walk_of(RAW);
    u32 next = AFTER_EXIT;
    if (!walk)
        return 0;
    walk->then = PROGRAMS;
#if STACKS && EXIT_HAS_GROUP_DEAD
    u64 task = ctx->args[0], signal = signal_of(task);
    struct process *process = followed.lookup(&signal);
    if (process && leaving(process, task, signal)) {
        next = prepare(walk, process, AFTER_EXIT, STACK_FRAMES);
        walk->then = AFTER_EXIT;
    }
#endif
    raw_programs.call(ctx, next);
    return 0;
}

int raw_after_exit(struct bpf_raw_tracepoint_args *ctx)
{
    struct walk *walk = walk_of(RAW);
#if STACKS
    if (walk && walk->then == AFTER_EXIT)
        keep_exit_stack(walk);
#endif
    return ended(ctx->args[0], ctx->args[1]);
}

#if STACKS
/* Here the other threads still live. In sched_process_exit the last of them could report the end while this one walks. */
TRACEPOINT_PROBE(syscalls, sys_enter_exit_group)
{
    u64 task = bpf_get_current_task(), signal = signal_of(task);
    struct process *process = followed.lookup(&signal);
    struct walk *walk = walk_of(SYSCALL);
    if (process && walk && leaving(process, task, signal))
        sys_programs.call(args, prepare(walk, process, AFTER_EXIT_GROUP, STACK_FRAMES));
    return 0;
}

int sys_after_exit_group(void *ctx)
{
    keep_exit_stack(walk_of(SYSCALL));
    return 0;
}
#endif

#define SIGNAL_FRAMES 128
#define CLD_EXITED 1
#define CLD_DUMPED 3

/* A parent is told that a followed process died. current is the last thread of that process; or its dying parent, handing it over;
 * or its tracer, passing it on to the real parent. */
static __always_inline void report_zombie(struct process *process, u64 target, u32 number, u64 current)
{
    note_parent(process, target);
    u64 now = bpf_ktime_get_boot_ns();
    if (!process->zombie_ns)
        process->zombie_ns = now;
    process->told_ns = now;
    process->handed_ns = 0;
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
    ring.ringbuf_submit(record, NO_WAKEUP);
}

/* The signals whose default action is neither to kill nor to stop: SIGCHLD, SIGCONT, SIGURG, SIGWINCH. */
#define HARMLESS ((1ULL << 17) | (1ULL << 18) | (1ULL << 23) | (1ULL << 28))
/* Those that ask a process to end: reported although it has a handler, which may well end it. SIGHUP INT QUIT ABRT TERM. */
#define REQUESTS ((1ULL << 1) | (1ULL << 2) | (1ULL << 3) | (1ULL << 6) | (1ULL << 15))
/* SIGKILL and SIGSTOP: no handler can be. */
#define ABSOLUTE ((1ULL << 9) | (1ULL << 19))

/* `info` is 0 for a plain kill by current, 1 for the kernel, else a siginfo. current is the sender only of what a process sends:
 * timers and asynchronous I/O run as whoever happens to be there. */
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

/* Whether a signal is one that kills or stops a process with this disposition, or asks it to end. */
static __always_inline int matters(u32 number, u8 disposition)
{
    u64 bit = number < 64 ? 1ULL << number : 0;
    if (HARMLESS & bit)
        return 0;
    return ABSOLUTE & bit || !(disposition == IGNORED || (disposition == HANDLER && !(REQUESTS & bit)));
}

static __always_inline void report_signal(struct process *process, u8 disposition, u32 number, u64 info, struct walk *walk)
{
    u64 current = bpf_get_current_task();
    struct signal_record *record = ring.ringbuf_reserve(sizeof(struct signal_record));
    if (!record) {
        lose(SIGNAL);
        return;
    }
    begin(&record->head, SIGNAL, process, walk);
    record->signal = number;
    record->disposition = disposition;
    record->sent_by = sender_kind(info, number, current);
    if (record->sent_by == BY_PROCESS || record->sent_by == BY_PDEATHSIG)
        name_thread(&record->head.by, current);
    else
        nobody(&record->head.by);
    ring.ringbuf_submit(record, NO_WAKEUP);
}

/* The process of `target` that a signal reaches now, 0: it is not followed, is dead, or ignores the signal. */
static __always_inline struct process *receiver_of(u64 target, u32 number, u32 result, u8 *disposition)
{
    u64 signal = signal_of(target);
    struct process *receiver = followed.lookup(&signal);
    if (!receiver || receiver->exit_ns || (result != 0 && result != 4))
        return 0;
    *disposition = disposition_of(target, number);
    return matters(number, *disposition) ? receiver : 0;
}

/* A tracer may be told first, which is no parent; and a process may send itself any siginfo, of whoever's child. */
static __always_inline int told_of_death(u64 target, u64 info, u32 number)
{
    u64 current = bpf_get_current_task(), signal = 0, parent = 0;
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
    report_zombie(child, target, number, current);
    return 1;
}

/* Runs under the target's sighand lock, interrupts off, so a sender's stack is walked for a few microseconds only; current may be a
 * bystander, but not when a process sent the signal: then it is inside its kill call. */
RAW_TRACEPOINT_PROBE(signal_generate)
{
    u32 number = ctx->args[0], result = ctx->args[4];
    u64 info = ctx->args[1], target = ctx->args[2], current = bpf_get_current_task(), target_signal = signal_of(target);
    u64 signal = signal_of(current);
    u8 disposition = NONE;
    struct process *sender = followed.lookup(&signal);
    if (!sender && !followed.lookup(&target_signal))
        return 0;
    if (told_of_death(target, info, number))
        return 0;
    struct process *receiver = receiver_of(target, number, result, &disposition);
    if (!receiver)
        return 0;
    if (sender && info > 1 && sender_kind(info, number, current) == BY_PROCESS) {
        struct walk *walk = walk_of(RAW);
        if (walk)
            raw_programs.call(ctx, prepare(walk, sender, AFTER_SIGNAL, SIGNAL_FRAMES));
    }
    report_signal(receiver, disposition, number, info, 0);
    return 0;
}

int raw_after_signal(struct bpf_raw_tracepoint_args *ctx)
{
    u32 number = ctx->args[0];
    u8 disposition = NONE;
    struct process *receiver = receiver_of(ctx->args[2], number, ctx->args[4], &disposition);
    if (receiver)
        report_signal(receiver, disposition, number, ctx->args[1], walk_of(RAW));
    return 0;
}

/* Runs from an RCU callback, 5 to 45 ms after the release; current is a bystander. A non-leader that took the leader's place in an
 * exec leaves the old leader's task, which now has another pid than tgid, to be freed here. */
RAW_TRACEPOINT_PROBE(sched_process_free)
{
    u64 task = ctx->args[0], signal = signal_of(task);
    struct process *process = followed.lookup(&signal);
    u32 pid = 0, tgid = 0;
    if (!process)
        return 0;
    READ(pid, task + task_pid);
    READ(tgid, task + task_tgid);
    if (pid != tgid)
        return 0;
    release(signal, process);
    return 0;
}

/* Runs as the task that needed memory, after the SIGKILL of the victim. Newer kernels hand over the task,
 * older ones its global pid. */
#if HAS_MARK_VICTIM
RAW_TRACEPOINT_PROBE(mark_victim)
{
#if MARK_VICTIM_HAS_TASK
    u64 signal = signal_of(ctx->args[0]);
    struct process *process = followed.lookup(&signal);
#else
    u64 signal = 0;
    struct process *process = find(INIT_PID_NS, ctx->args[0], &signal);
#endif
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
#endif

#if STACKS
#define LIBPYTHON 0x6874797062696cULL /* "libpyth", as the machine keeps it */

static __always_inline u64 open_file(u64 task, u32 descriptor)
{
    u64 files = 0, table = 0, array = 0, file = 0;
    u32 most = 0;
    READ(files, task + task_files);
    READ(table, files + files_struct_fdt);
    READ(most, table + fdtable_max_fds);
    if (descriptor >= most)
        return 0;
    READ(array, table + fdtable_fd);
    READ(file, array + 8ULL * descriptor);
    return file;
}

/* A followed process maps the beginning of a file that is called libpython...: from now on its stacks can be walked. */
TRACEPOINT_PROBE(syscalls, sys_exit_mmap)
{
    u64 task = bpf_get_current_task(), signal = signal_of(task), start = args->ret;
    struct process *process = followed.lookup(&signal);
    if (!process || start > -(u64)MAX_ERRNO - 1)
        return 0;
    u64 regs = registers_in(task, SYSCALL_MMAP), descriptor = 0, offset = 0, entry = 0, text = 0, name = 0;
    READ(descriptor, regs + REG_ARG4);
    READ(offset, regs + REG_ARG5);
    if (!regs || offset || (s32)descriptor < 0)
        return 0;
    u64 file = open_file(task, descriptor);
    READ(entry, file + file_f_path + path_dentry);
    READ(text, entry + dentry_d_name + qstr_name);
    READ(name, text);
    if ((name & 0xffffffffffffffULL) != LIBPYTHON)
        return 0;
    u64 known = process->library, key = file_key(file);
    struct interpreter *before = interpreters.lookup(&known);
    if (before && before->version)
        return 0;
    process->library = key;
    process->library_start = start;
    process->not_python = 0;
    if (!interpreters.lookup(&key))
        ask_about(key, process->pid, start);
    return 0;
}
#endif
