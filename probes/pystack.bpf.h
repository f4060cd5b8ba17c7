/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Walks the Python stack of the current thread at the moment of the event, in the memory of that thread. `take_stack` finds the
 * interpreter, then the innermost frame, and follows the frames outward.
 *
 * Cannot see: frames of an interpreter whose file user space has not described, and a thread without a thread state.
 * forktrace/cpython/layouts.py has the values of struct interpreter for each version.
 */
#define THREADS_A_CALL 32 /* two loops, so that each is short for the verifier */
#define THREAD_CALLS 16   /* 512 thread states at most */
#define FRAMES_A_CALL 40
#define FRAME_CALLS 32 /* enough for 1,024 frames and 256 faults */
#define ROUNDS 8       /* through the list of threads */
/* Failed reads of one walk at most. A page that a fork shares is unmapped while another thread gets its own copy. Measured over 790,000
 * walks at forks and waits of six threads: 12 had 8 faults or more, one had 37 in 84 us. 256 faults take about 0.4 ms; after a walk that
 * gave up, the process has FEW_FAULTS for a second. */
#define FAULTS 256
#define FEW_FAULTS 8
#define OWNED_BY_C 3 /* from 3.12 on: a frame that stands for a call from C */

/* file_key of a program or library -> its layout; version 0: it is no interpreter. User space sets and removes it.
 * Map full: user space removes the files that are no interpreters. */
BPF_HASH(interpreters, u64, struct interpreter, INTERPRETERS);
BPF_RINGBUF_OUTPUT(questions, QUESTION_PAGES);

/* Mix a number into `hash`: each bit of the result depends on all bits of both (MurmurHash3's finalizer). */
static __always_inline u64 stirred(u64 hash, u64 number)
{
    hash ^= number;
    hash ^= hash >> 33;
    hash *= 0xff51afd7ed558ccdULL;
    hash ^= hash >> 33;
    hash *= 0xc4ceb9fe1a85ec53ULL;
    return hash ^ hash >> 33;
}

/* The key of a struct file: inode number, size, owner and device number (the kernel's own, major << 20 | minor).
 * The size is in it because the next temporary file system reuses the device number of an unmounted one, and its inode numbers.
 * FILE_SECRET is in it because anybody can make a file with any inode number and size: with a new secret in each recording, nobody can
 * make one that has the key of a program of root's, and is read as that. */
static __always_inline u64 file_key(u64 file)
{
    u64 inode = 0, super = 0, number = 0, size = 0;
    u32 device = 0, owner = 0;
    READ(inode, file + file_f_inode);
    READ(number, inode + inode_i_ino);
    READ(super, inode + inode_i_sb);
    READ(device, super + super_block_s_dev);
    READ(size, inode + inode_i_size);
    READ(owner, inode + inode_i_uid);
    return stirred(stirred(stirred(stirred(FILE_SECRET, number), size), owner), device);
}

static __always_inline void ask_about(u64 key, u32 pid, u64 mapped)
{
    struct question question = {.file = key, .mapped = mapped, .pid = pid};
    if (questions.ringbuf_output(&question, sizeof(question), WAKE_UP))
        lose(QUESTIONS);
}

static __always_inline struct interpreter *interpreter_of(struct process *process)
{
    u64 library = process->library, program = process->program;
    struct interpreter *python = interpreters.lookup(&library);
    if (python && python->version)
        return python;
    return interpreters.lookup(&program);
}

/* Seconds since boot, of 1.07 s each: a shift is faster than a division. */
static __always_inline u32 second_of(struct work *work)
{
    return work->time_ns >> 30;
}

/* Set work->python and work->runtime to the interpreter of `process`. 0: there is nothing to walk; work->stack_status says why. */
static __always_inline int find_runtime(struct work *work, struct process *process)
{
    u64 library = process->library, program = process->program;
    if (process->not_python) {
        work->stack_status = NOT_PYTHON;
        return 0;
    }
    struct interpreter *python = library ? interpreters.lookup(&library) : 0;
    if (library && !python) {
        work->stack_status = NO_RUNTIME;
        work->stack = library;
        return 0;
    }
    if (python && python->version) {
        work->runtime = process->library_start - python->first_page + python->runtime;
    } else {
        python = interpreters.lookup(&program);
        if (!python || !python->version) {
            process->not_python = python != 0;
            work->stack_status = python ? NOT_PYTHON : NO_RUNTIME;
            work->stack = python ? 0 : program;
            return 0;
        }
        work->runtime = process->program_code - python->first_code + python->runtime;
    }
    work->python = *python;
    return 1;
}

/* Whether a thread state belongs to the current thread: it has the thread's pthread_self. That is the thread pointer; on arm64 it is at
 * most THREAD_POINTER_SPAN below it, nearer than that of any other thread. */
static __always_inline int is_own(struct work *work, u64 thread, u64 id)
{
    u64 next = 0;
    if (work->own)
        return work->own - id < THREAD_POINTER_SPAN;
    work->failed |= READ_USER(next, thread + work->python.thread_next);
    return !work->interpreter && !next && !work->failed; /* the first thread is last: new ones are inserted at the front */
}

/* The thread pointer of current, a thread of `process`. On x86-64 the kernel has it. On arm64 it is a register that the kernel saves at a
 * context switch. 0: not known. That is so for the first thread of a program before its first switch, when the saved value is older
 * than the exec, and when the switch came before the C library had set the pointer. */
static __always_inline u64 thread_pointer(struct process *process)
{
    u64 task = bpf_get_current_task(), pointer = 0;
    u32 tid = 0, tgid = 0;
    READ(pointer, task + task_thread_pointer);
    READ(tid, task + task_pid);
    READ(tgid, task + task_tgid);
    if (THREAD_POINTER_IS_SAVED && tid == tgid && (!pointer || switches_of(task) == process->switches))
        return 0;
    return pointer ? pointer : FOR_EVER; /* which no thread has */
}

/* Take one step through the lists of interpreters and of their threads. 0: the search is over. Other threads can change the lists at the
 * same time, since this one may not hold the interpreter's lock: if nothing was found, the search starts again. A thread has a state in
 * each interpreter that it was in; only one of them has a frame. */
static __always_inline int look_at_thread(struct work *work)
{
    struct interpreter *python = &work->python;
    u64 id = 0, frame = 0, thread = work->thread, interpreter = work->interpreter;
    if (!thread && !interpreter) {
        if (work->was_met && !work->failed)
            return 0;
        if (work->failed ? work->faults++ >= work->most_faults : work->rounds++ >= ROUNDS) {
            work->stack_status = work->failed ? READ_FAULT : NO_THREAD_STATE;
            return 0;
        }
        work->failed = READ_USER(interpreter, work->runtime + python->runtime_interpreters);
        work->interpreter = interpreter;
        return 1;
    }
    if (!thread) {
        work->failed |= READ_USER(thread, interpreter + python->interpreter_threads);
        work->failed |= READ_USER(interpreter, interpreter + python->interpreter_next);
        work->thread = thread;
        work->interpreter = interpreter;
        return 1;
    }
    work->failed |= READ_USER(id, thread + python->thread_id);
    if (is_own(work, thread, id)) {
        s64 failed = READ_USER(frame, thread + python->thread_frame);
        if (!failed && python->has_cframe)
            failed = READ_USER(frame, frame + python->cframe_frame);
        if (failed) {
            work->failed = failed;
            if (work->faults++ < work->most_faults)
                return 1; /* the same state again */
            work->stack_status = READ_FAULT;
            return 0;
        }
        work->stack_status = NO_THREAD_STATE; /* until there is a frame */
        work->was_met = 1;
        if (frame) {
            work->is_main = !interpreter; /* the main interpreter is last: new ones are inserted at the front */
            work->frame = frame;
            return 0;
        }
    }
    work->failed |= READ_USER(thread, thread + python->thread_next);
    work->thread = thread;
    return 1;
}

u64 shared_look_at_threads(u64 slot)
{
    struct work *work = work_of(slot);
    if (!work)
        return 0;
#pragma nounroll
    for (int i = 0; i < THREADS_A_CALL; i++)
        if (!look_at_thread(work))
            return 0;
    return 1;
}

static __always_inline void find_frame(struct work *work, u64 slot, struct process *process)
{
    work->own = thread_pointer(process);
    work->interpreter = work->thread = 0;
    work->rounds = work->faults = work->was_met = 0;
    work->failed = 0;
#pragma nounroll
    for (int i = 0; i < THREAD_CALLS; i++)
        if (!look_at_threads(slot))
            return;
    work->stack_status = work->failed ? READ_FAULT : STACK_LOST;
}

#define SIGNALS 64

/* A frame may be that of a signal handler if two of its local variables are a signal number and a frame:
 *     the first two
 *     the second and third (a method)
 *     the first two items of the first one, if that is a tuple (*args)
 * Store these three pairs. It is a handler if the next frame outward turns out to be the frame of a pair (handled_before). */
static __always_inline void look_for_handler(struct work *work, u64 frame)
{
    struct interpreter *python = &work->python;
    u64 *variables = work->variables;
    __builtin_memset(variables, 0, sizeof(work->variables));
    read_user(variables, 24, (void *)(frame + python->frame_locals));
    read_user(&variables[3], 16, (void *)((variables[0] & ~7ULL) + python->tuple_items));
    work->handler = work->count;
#pragma unroll
    for (int i = 0; i < CANDIDATES; i++) {
        int at = i == 2 ? 3 : i;
        u64 interrupted = variables[at + 1] & ~7ULL;
        work->numbers[i] = 0;
        READ_USER(work->numbers[i], (variables[at] & ~7ULL) + python->int_digit);
        if (python->frame_of_object)
            READ_USER(interrupted, interrupted + python->frame_of_object);
        work->interrupted[i] = interrupted;
    }
}

/* The signal whose handler, the frame before, interrupted `frame`; 0: it did not. */
static __always_inline u32 handled_before(struct work *work, u64 frame)
{
    u32 number = 0;
#pragma unroll
    for (int i = 0; i < CANDIDATES; i++)
        if (work->interrupted[i] == frame && work->numbers[i] <= SIGNALS)
            number = work->numbers[i];
    return number;
}

static __always_inline u64 word_at(u8 *data, u32 offset)
{
    return *(u64 *)(data + (offset & 127));
}

/* A read failed. 1: try again, 0: give up. */
static __always_inline int again(struct work *work)
{
    if (work->faults++ < work->most_faults)
        return 1;
    work->stack_status = READ_FAULT;
    work->frame = 0;
    return 0;
}

/* In a free-threaded build each thread runs its own copy of the bytecode: number `copy` in the list of the code object, whose first one is
 * the code object's own (struct _PyCodeArray: a size, then addresses). */
static __always_inline int find_copy(struct interpreter *python, u64 code, u32 copy, u64 *bytecode)
{
    u64 copies = 0;
    return !READ_USER(copies, code + python->code_copies) && !READ_USER(*bytecode, copies + 8 + 8ULL * copy);
}

/* Read the next frame and step to its caller. 0: there is no next frame. */
u64 shared_walk_frame(u64 slot)
{
    u32 key_of_record = slot;
    struct work *work = work_of(slot);
    struct stack_record *record = stacks.lookup(&key_of_record);
    if (!work || !record)
        return 0;
    struct interpreter *python = &work->python;
    u64 frame = work->frame;
    u32 count = work->count;
    if (!frame || count >= work->most)
        return 0;
    struct frame *place = &record->frames[count & (STACK_FRAMES - 1)];
    if (read_user(work->frame_data, python->frame_bytes & 127, (void *)frame))
        return again(work);
    if (python->frame_owner && work->frame_data[python->frame_owner & 127] >= OWNED_BY_C) {
        place->code = place->instruction = place->handled = 0;
        work->mixed = mix(work->mixed, 0);
        work->frame = word_at(work->frame_data, python->frame_back);
        work->count = count + 1;
        return 1;
    }
    u64 code = word_at(work->frame_data, python->frame_code) & ~7ULL; /* from 3.14 on the lowest bits are a tag */
    u64 instruction = word_at(work->frame_data, python->frame_instruction), bytecode = code + python->code_instructions;
    u32 copy = word_at(work->frame_data, python->frame_copy);
    if (python->code_copies && copy && !find_copy(python, code, copy, &bytecode))
        return again(work);
    instruction &= python->instruction_is_pointer | 0xffffffff;
    instruction -= bytecode & python->instruction_is_pointer;
    if (code != work->code && !see_code(work, slot, code)) /* else the function called itself */
        return again(work);
    if (work->handles) {
        u32 number = handled_before(work, frame);
        if (number) {
            record->frames[work->handler & (STACK_FRAMES - 1)].handled = number;
            work->mixed = mix(work->mixed, number);
        }
        look_for_handler(work, frame);
    }
    place->code = work->key;
    place->instruction = instruction;
    place->handled = 0;
    work->mixed = mix(mix(work->mixed, work->key), instruction);
    work->frame = word_at(work->frame_data, python->frame_back);
    work->count = count + 1;
    return 1;
}

u64 shared_walk_frames(u64 slot)
{
#pragma nounroll
    for (int i = 0; i < FRAMES_A_CALL; i++)
        if (!walk_frame(slot))
            return 0;
    return 1;
}

/* All frames are read: set the id of the stack, and send it if it is new. */
static __always_inline void finish_walk(struct work *work, u32 slot)
{
    struct stack_record *record = stacks.lookup(&slot);
    u64 id = work->mixed | 1;
    u32 count = work->count;
    u8 one = 1;
    if (work->frame)
        work->stack_status = TRUNCATED;
    else if (work->stack_status == NO_THREAD_STATE && count)
        work->stack_status = STACK_OK;
    if (!count || !record)
        return;
    work->stack = id;
    if (sent_stacks.lookup(&id))
        return;
    record->id = id;
    record->kind = STACK;
    record->count = count;
    if (count > STACK_FRAMES)
        count = STACK_FRAMES;
    u64 bytes = sizeof(struct stack_record) - sizeof(record->frames) + (count & (2 * STACK_FRAMES - 1)) * sizeof(struct frame);
    if (bytes > sizeof(struct stack_record))
        bytes = sizeof(struct stack_record);
    if (ring.ringbuf_output(record, bytes, NO_WAKEUP))
        lose(STACK);
    else
        sent_stacks.update(&id, &one);
}

/* Take the stack of the current thread of a followed process. Sets work->time_ns (before the walk), work->stack and work->stack_status. */
u64 shared_take_stack(u64 slot)
{
    u64 signal = signal_of(bpf_get_current_task());
    struct work *work = work_of(slot);
    struct process *process = followed.lookup(&signal);
    if (!work)
        return 0;
    no_stack(work);
    if (!STACKS || !process || !find_runtime(work, process))
        return 0;
    work->frame = work->count = work->mixed = 0;
    work->code = work->path = 0;
    work->image = 0;
    __builtin_memcpy(work->images, process->images, sizeof(work->images));
    work->interrupted[0] = work->interrupted[1] = work->interrupted[2] = 0;
    work->most_faults = second_of(work) == process->gave_up ? FEW_FAULTS : FAULTS;
    work->handles = disposition_of(bpf_get_current_task(), SIGCHLD) == HANDLER;
    work->stack_status = STACK_LOST; /* until it is found */
    find_frame(work, slot, process);
    if (work->frame) {
#pragma nounroll
        for (int i = 0; i < FRAME_CALLS; i++)
            if (!walk_frames(slot))
                break;
        finish_walk(work, slot);
    }
    if (work->stack_status == READ_FAULT)
        process->gave_up = second_of(work);
    return 0;
}
