/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: every exec of a followed process, and the exec with which the target begins to be followed.
 */

/* `task` is the target. Its PID namespace is the recorder's: all numbers are read at that level. */
static __always_inline void begin_with_target(u64 task)
{
    int zero = 0;
    struct settings *known = settings.lookup(&zero);
    if (known)
        READ(known->level, thread_pid_of(task) + pid_level);
    forget_target();
}

/* Report the exec of the task work->number, whose tid was work->result before it. */
u64 shared_report_exec(u64 slot)
{
    u32 key_of_record = slot;
    struct work *work = work_of(slot);
    struct exec_record *record = execs.lookup(&key_of_record);
    if (!work || !record)
        return 0;
    u64 task = work->number, signal = signal_of(task), mm = 0, from = 0, to = 0;
    struct process *process = followed.lookup(&signal);
    if (!process)
        return 0;
    u32 old_tid = work->result, tid = 0;
    begin(&record->head, EXEC, process, 0);
    READ(tid, task + task_pid);
    name_process(&record->head.by, task);
    record->head.by.tid = tid == old_tid ? process->pid : recorder_level() ? 0 : old_tid;
    record->cgroup_id = cgroup_of(task);
    bpf_probe_read_kernel(record->comm, COMM_BYTES, (void *)(task + task_comm));
    bpf_probe_read_kernel_str(record->file, FILE_BYTES, (void *)work->stack);
    READ(mm, task + task_mm);
    note_program(process, signal, mm);
    process->switches = switches_of(task);
    process->exit_known = 0;
    u64 program = process->program;
    if (STACKS && !interpreters.lookup(&program))
        ask_about(program, process->pid, 0);
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

/* current is the thread that called exec, now the leader and the only thread. The old image is gone, the new one has not run. */
int on_exec(union context *context)
{
    u64 task = bpf_get_current_task(), signal = signal_of(task);
    u32 place = 0, old_tid = 0;
    int is_new = !process_of_current(signal);
    if (is_new) {
        if (!is_target(task))
            return 0;
        begin_with_target(task);
    }
    u64 slot = claim();
    struct work *work = work_of(slot);
    if (slot == SLOTS || !work) {
        lose(EXEC);
        return 0;
    }
    if (is_new)
        join_in(work, slot, task, TARGET);
    if (RAW_IS_PREEMPTED) {
        READ(old_tid, (u64)context + exec_event_old_pid);
        READ(place, (u64)context + exec_event_filename); /* the lower half says where in the event, the upper how long */
        work->stack = (u64)context + (place & 0xffff);
    } else {
        old_tid = context->args[1];
        READ(work->stack, context->args[2] + linux_binprm_filename);
    }
    work->number = task;
    work->result = old_tid;
    report_exec(slot);
    give_back(work);
    return 0;
}
