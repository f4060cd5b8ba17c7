/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: that a followed Python process has connected to a socket of multiprocessing, by the socket's address. To ask a fork server for a
 * child, it then sends descriptors through it; the stack tells whether it does. Cannot see: which fork of the server answers.
 */
#define AF_UNIX 1
#define PYMP 0x2d706d79702fULL       /* "/pymp-" in memory order: the directory that multiprocessing makes for its sockets */
#define LISTENER 0x72656e657473696cULL /* "listener": the start of an abstract address, used by the first releases of 3.9 to 3.11 */

/* Whether current connects to an address of multiprocessing; then work->address holds it. */
u64 shared_is_request(u64 slot)
{
    struct work *work = work_of(slot);
    u64 regs = registers_in(bpf_get_current_task(), SYSCALL_CONNECT), given = 0, bytes = 0;
    u16 family = 0;
    if (!work || !regs)
        return 0;
    READ(given, regs + REG_ARG1);
    READ(bytes, regs + REG_ARG2);
    bytes = (u32)bytes - sizeof(family);
    if (READ_USER(family, given) || family != AF_UNIX || bytes > SUN_PATH_BYTES)
        return 0;
    __builtin_memset(work->address, 0, sizeof(work->address));
    read_user(work->address, bytes & (ADDRESS_BYTES - 1), (void *)(given + sizeof(family)));
    if (!work->address[0])
        return *(u64 *)(work->address + 1) == LISTENER;
#pragma nounroll
    for (int i = 0; i < SUN_PATH_BYTES; i++)
        if ((*(u64 *)(work->address + i) & 0xffffffffffff) == PYMP)
            return 1;
    return 0;
}

/* Report that current has connected to the address in work->address. */
u64 shared_report_request(u64 slot)
{
    u64 task = bpf_get_current_task(), signal = signal_of(task);
    struct work *work = work_of(slot);
    struct process *client = followed.lookup(&signal);
    if (!work || !client || work->stack_status == NOT_PYTHON)
        return 0;
    struct request_record *record = ring.ringbuf_reserve(sizeof(struct request_record));
    if (!record) {
        lose(REQUEST);
        return 0;
    }
    begin(&record->head, REQUEST, client, work);
    name_thread(&record->head.by, task);
    __builtin_memcpy(record->address, work->address, sizeof(record->address));
    ring.ringbuf_submit(record, NO_WAKEUP);
    return 0;
}
