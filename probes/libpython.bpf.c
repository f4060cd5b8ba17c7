/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: that a followed process maps the beginning of a file whose name starts with libpython. From then on its stacks can be walked.
 */
#define LIBPYTHON 0x6874797062696cULL /* "libpyth" in memory order */

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

/* current returns from mmap. */
int on_mmap(struct call_context *context)
{
    u64 task = bpf_get_current_task(), signal = signal_of(task), start = context->result;
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
