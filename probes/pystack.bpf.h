/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Walks the Python stack of the current thread, at the moment of the event, from the thread's own memory. A tail call takes the walk
 * from program to program, since no single one may be long enough for 1,000 frames: the probe prepares, `find_frame` finds
 * the thread's innermost frame, `walk_frames` calls itself until the frames are through, then the probe's second half reports. Tail
 * calls stay within one type of program, so raw tracepoints (RAW) and those of system calls (SYSCALL) have a copy each.
 *
 * A code object is known by its contents (path, name, first line, line table; of tables beyond 1 KiB by their place too), never by
 * its address alone, which Python uses again for other code. Cannot see: frames of an interpreter whose file user space has not
 * described, and a thread without a thread state.
 * What the fields of struct interpreter are for each version: forktrace/live/pythons.py.
 */
#define FRAMES_A_CALL 34 /* 31 calls of walk_frames, and one each of find_frame and the second half: the kernel's limit is 33 */
#define THREADS_LOOKED_AT 512
#define ROUNDS 8 /* through the list of threads */
/* A page that a fork shares is away while another thread gets a copy of its own: of 790,000 walks at forks and waits of six threads
 * 12 met 8 faults or more, one of them 37, in 84 us. So many take about 0.4 ms; where that was in vain, fewer do for a second. */
#define FAULTS 256
#define FEW_FAULTS 8
#define BLOCK_BYTES 128
#define LINE_BLOCKS 8
#define OWNED_BY_C 3    /* from 3.12 on: frames that stand for a call from C */

enum walker { RAW, SYSCALL, WALKERS };
enum program { FIND_FRAME, WALK_FRAMES, AFTER_FORK, AFTER_EXIT, AFTER_SIGNAL, AFTER_WAIT, AFTER_FAILED_FORK, AFTER_EXIT_GROUP, PROGRAMS };

/* file_key -> what it says of a program's or library's file; version 0: it is no interpreter. User space sets and removes.
 * Full: user space removes those that are no interpreters. */
BPF_HASH(interpreters, u64, struct interpreter, 4096);
BPF_RINGBUF_OUTPUT(questions, QUESTION_PAGES);

BPF_PERCPU_ARRAY(walks, struct walk, WALKERS);

static __always_inline struct walk *walk_of(int walker)
{
    return walks.lookup(&walker);
}

/* Of a struct file. The device number is the kernel's own, major << 20 | minor. A temporary file system that is unmounted leaves its
 * device number to the next one, where inode numbers are as small: the size tells two of their files apart. */
static __always_inline u64 file_key(u64 file)
{
    u64 inode = 0, super = 0, number = 0, size = 0;
    u32 device = 0;
    READ(inode, file + file_f_inode);
    READ(number, inode + inode_i_ino);
    READ(super, inode + inode_i_sb);
    READ(device, super + super_block_s_dev);
    READ(size, inode + inode_i_size);
    return number ^ size << 16 ^ (u64)device << 40;
}

static __always_inline void ask_about(u64 key, u32 pid, u64 mapped)
{
    struct question question = {.file = key, .mapped = mapped, .pid = pid};
    if (questions.ringbuf_output(&question, sizeof(question), WAKE_UP))
        lose(QUESTIONS);
}

/* The programs that go on with others' work, by enum program. */
BPF_PROG_ARRAY(raw_programs, PROGRAMS);
BPF_PROG_ARRAY(sys_programs, PROGRAMS);

/* An event at this moment, and no stack. */
static __always_inline void no_walk(struct walk *walk)
{
    walk->time_ns = bpf_ktime_get_boot_ns();
    walk->stack = 0;
    walk->status = NONE;
}

/* Since boot; a division would take longer, and this one's second is 1.07 s. */
static __always_inline u32 second_of(struct walk *walk)
{
    return walk->time_ns >> 30;
}

static __always_inline u32 ready(struct walk *walk, struct process *process, u32 then, u32 most, u64 runtime)
{
    walk->frame = 0;
    walk->count = 0;
    walk->rounds = walk->faults = 0;
    walk->failed = 0;
    walk->most_faults = second_of(walk) == process->gave_up ? FEW_FAULTS : FAULTS;
    walk->code = walk->path = 0;
    walk->image = 0;
    __builtin_memcpy(walk->images, process->images, sizeof(walk->images));
    walk->most = most;
    walk->then = then;
    walk->runtime = runtime;
    walk->interrupted[0] = walk->interrupted[1] = walk->interrupted[2] = 0;
    walk->handles = disposition_of(bpf_get_current_task(), SIGCHLD) == HANDLER;
    walk->status = STACK_LOST; /* until it is found */
    return FIND_FRAME;
}

/* Prepare to walk the stack of `process`, which is current, and then to go on with `then`. Returns the program to go on with now: that
 * very one if there is nothing to walk, and then the status says why. */
static __always_inline u32 prepare(struct walk *walk, struct process *process, u32 then, u32 most)
{
    no_walk(walk);
#if STACKS
    u64 library = process->library, program = process->program;
    if (process->not_python) {
        walk->status = NOT_PYTHON;
        return then;
    }
    struct interpreter *python = library ? interpreters.lookup(&library) : 0;
    if (python && python->version)
        return ready(walk, process, then, most, process->library_start - python->first_page + python->runtime);
    if (library && !python) {
        walk->status = NO_RUNTIME;
        walk->stack = library;
        return then;
    }
    python = interpreters.lookup(&program);
    if (python && python->version)
        return ready(walk, process, then, most, process->program_code - python->first_code + python->runtime);
    process->not_python = python != 0;
    walk->status = python ? NOT_PYTHON : NO_RUNTIME;
    walk->stack = python ? 0 : program;
#endif
    return then;
}

#if STACKS

/* Keys and ids that user space has been sent. Full: the least recently used goes, and is sent again when it is met. User space removes
 * the id of a stack that it has forgotten. */
BPF_TABLE("lru_hash", u64, u8, sent_codes, 16384);
BPF_TABLE("lru_hash", u64, u8, sent_stacks, 16384);

struct code_place {
    u64 signal;
    u64 since_ns;
    u64 code;
};

struct known_code {
    u64 key;
    u64 known_ns;
    u64 path;
    u64 name;
    u64 lines;
    u64 version;
};

/* A code object by its address in an image of memory -> its key, so that its texts need not be read again. From CPython 3.12 on each
 * code object of an interpreter has a version that no other ever has (InternalDocs/interpreter.md; 0 when 2^32 are used up), and a fork
 * copies it: what has the same version at the same address is the same object, in that image and in its copies if it was there before
 * them. Only for the main interpreter, since others count on their own. Full: the least recently used goes, and is read again. */
BPF_TABLE("lru_hash", struct code_place, struct known_code, known_codes, 16384);

/* Scratch, one a CPU and walker: too large for the BPF stack. */
struct read_ahead {
    u8 frame[136];
    u8 code[136];
    u64 block[34];
    s64 failed; /* not 0: a read did */
    struct known_code seen;
};
BPF_PERCPU_ARRAY(reading, struct read_ahead, WALKERS);
BPF_PERCPU_ARRAY(walked, struct stack_record, WALKERS);
BPF_PERCPU_ARRAY(sending, struct code_record, WALKERS);

static __always_inline struct interpreter *interpreter_of(struct process *process)
{
    u64 library = process->library, program = process->program;
    struct interpreter *python = interpreters.lookup(&library);
    if (python && python->version)
        return python;
    return interpreters.lookup(&program);
}

/* The innermost frame of the current thread: that of the thread state with this thread's pthread_self. This thread need not hold the
 * interpreter's lock, so that others may change the list meanwhile: what is not found is looked for again from the start. */
static __always_inline void find_frame(struct walk *walk, struct interpreter *python)
{
    u64 own = 0, interpreter = 0, thread = 0, id = 0, frame = 0;
    READ(own, bpf_get_current_task() + task_thread_pointer);
#pragma nounroll
    for (int i = 0; i < THREADS_LOOKED_AT; i++) {
        if (!thread) {
            if (!interpreter) {
                if (walk->failed ? walk->faults++ >= walk->most_faults : walk->rounds++ >= ROUNDS) {
                    walk->status = walk->failed ? READ_FAULT : NO_THREAD_STATE;
                    return;
                }
                walk->failed = READ_USER(interpreter, walk->runtime + python->runtime_interpreters);
                continue;
            }
            walk->failed |= READ_USER(thread, interpreter + python->interpreter_threads);
            walk->failed |= READ_USER(interpreter, interpreter + python->interpreter_next);
            continue;
        }
        id = 0;
        walk->failed |= READ_USER(id, thread + python->thread_id);
        if (id != own) {
            walk->failed |= READ_USER(thread, thread + python->thread_next);
            continue;
        }
        walk->failed = READ_USER(frame, thread + python->thread_frame);
        if (!walk->failed && python->has_cframe)
            walk->failed = READ_USER(frame, frame + python->cframe_frame);
        if (!walk->failed) {
            walk->is_main = !interpreter; /* none comes after: new ones are put first */
            walk->status = NO_THREAD_STATE; /* until there is a frame */
            walk->frame = frame;
            return;
        }
        if (walk->faults++ >= walk->most_faults)
            break;
    }
    walk->status = walk->failed ? READ_FAULT : STACK_LOST;
}

static __always_inline u64 mix(u64 mixed, u64 word)
{
    mixed = (mixed ^ word) * 0xff51afd7ed558ccdULL;
    return mixed ^ mixed >> 32;
}

/* Whether a < b, as a mask. The walk is written without branches where it can be: each doubles what the verifier has to follow. */
static __always_inline u64 less(u64 a, u64 b)
{
    u64 difference = a - b;
    asm volatile("" : "+r"(difference)); /* else the compiler makes a branch of it after all */
    return (u64)((s64)difference >> 63);
}

/* Mix in up to `most` bytes at `address`: a power of two, BLOCK_BYTES at most. The read has a constant size, and so that it never
 * touches a page that the object does not reach into, it begins `shift` bytes earlier near the end of a page. */
static __always_inline u64 mix_block(u64 mixed, u64 address, u64 size, u64 most, struct read_ahead *ahead)
{
    /* else the compiler shares work between blocks, and the stack is too small */
    asm volatile("" : "+r"(size), "+r"(address), "+r"(mixed) : : "memory");
    u64 room = 4096 - (address & 4095), whole = less(most, size);
    size = (most & whole) | (size & ~whole);
    u64 shift = (most - room) & less(room, most) & ~less(room, size) & (most - 1);
    ahead->failed |= read_user(ahead->block, most, (void *)(address - shift)) & less(0, size);
    *(u64 *)((u8 *)ahead->block + ((shift + size) & 255)) = 0;
#pragma nounroll
    for (int i = 0; i < most / 8; i += 2) {
        mixed = mix(mixed, *(u64 *)((u8 *)ahead->block + shift + 8 * i) & less(8 * i, size));
        asm volatile("" : "+r"(mixed)); /* one after the other */
        mixed = mix(mixed, *(u64 *)((u8 *)ahead->block + shift + 8 * i + 8) & less(8 * i + 8, size));
        asm volatile("" : "+r"(mixed));
    }
    return mixed;
}

/* Mix in the last `most` bytes of the memory, or all of it if it is shorter. */
static __always_inline u64 mix_last(u64 mixed, u64 address, u64 bytes, u64 most, struct read_ahead *ahead)
{
    return mix_block(mixed, address + ((bytes - most) & less(most, bytes)), bytes, most, ahead);
}

/* What a str has behind the 16 bytes that every object begins with. The object is longer in every version. */
struct text_head {
    u64 length;
    u64 hash;
    u64 state;
};

struct text {
    u64 address;
    u64 characters;
    u32 width;
};

/* Where a str keeps its characters; in Python 2 it is a bytes object. */
static __always_inline struct text text_of(u64 object, struct text_head *head, struct interpreter *python)
{
    u32 state = (u32)head->state >> 2; /* below are two bits for interning */
    u64 ascii = -(u64)(state >> 4 & 1);
    struct text text = {.characters = head->length};
    text.width = (state & python->text_width_mask) | python->text_width;
    text.address = object + ((python->text_ascii & ascii) | (python->text_compact & ~ascii));
    return text;
}

static __always_inline struct text text_at(u64 object, struct interpreter *python, struct read_ahead *ahead)
{
    struct text_head head = {};
    ahead->failed |= READ_USER(head, object + 16);
    return text_of(object, &head, python);
}

/* Read the beginning of an object, its head and `most` bytes at the most, as far as its first page goes: the next one may be another's,
 * or nobody's. */
static __always_inline u64 read_object(u64 object, u64 most, struct read_ahead *ahead)
{
    u64 bytes = 4096 - ((object + 16) & 4095), little = less(bytes, sizeof(struct text_head)), much = less(most, bytes);
    bytes = (sizeof(struct text_head) & little) | (most & much) | (bytes & ~little & ~much);
    ahead->failed |= read_user(ahead->block, bytes & 255, (void *)(object + 16));
    return bytes;
}

/* Mix in `size` bytes of the object that was read, of which `got` bytes are there, from `start` on. Returns how many they were. */
static __always_inline u64 mix_read(u64 *mixed, u64 start, u64 size, u64 got, u64 most, struct read_ahead *ahead)
{
    asm volatile("" : "+r"(start), "+r"(got) : : "memory");
    start &= 63;
    got = (got - start) & ~less(got, start); /* of the data */
    u64 here = (size & less(size, got)) | (got & ~less(size, got));
    u64 one = *mixed, other = here; /* two, so that one need not wait for the other's multiplication */
    *(u64 *)((u8 *)ahead->block + ((start + here) & 255)) = 0;
#pragma nounroll
    for (int i = 0; i < most / 8; i += 2) {
        one = mix(one, *(u64 *)((u8 *)ahead->block + start + 8 * i) & less(8 * i, here));
        other = mix(other, *(u64 *)((u8 *)ahead->block + start + 8 * i + 8) & less(8 * i + 8, here));
        asm volatile("" : "+r"(one), "+r"(other));
    }
    *mixed = mix(one, other);
    return here;
}

/* Mix in a text. Of a very long one the middle is left out: paths differ at the end. */
static __always_inline u64 mix_text(u64 mixed, u64 object, u64 most, struct interpreter *python, struct read_ahead *ahead)
{
    u64 got = read_object(object, most, ahead);
    struct text text = text_of(object, (struct text_head *)ahead->block, python);
    u64 bytes = text.characters * text.width;
    mixed = mix(mixed, bytes);
    u64 here = mix_read(&mixed, text.address - object - 16, bytes, got, most - 24, ahead);
    if (bytes <= here)
        return mixed;
    mixed = mix_block(mixed, text.address + here, bytes - here, BLOCK_BYTES, ahead);
    return mix_last(mixed, text.address + here, bytes - here, BLOCK_BYTES, ahead);
}

/* Mix in a line table: whole up to LINE_BLOCKS blocks; of a longer one what lies before the last block is represented by its place. */
static __always_inline u64 mix_lines(u64 mixed, u64 object, struct interpreter *python, struct read_ahead *ahead)
{
    u64 got = read_object(object, BLOCK_BYTES, ahead), bytes = ahead->block[0], address = object + python->bytes_data;
    mixed = mix(mixed, bytes);
    u64 here = mix_read(&mixed, python->bytes_data - 16, bytes, got, BLOCK_BYTES - 16, ahead);
    if (bytes <= here)
        return mixed;
    address += here;
    bytes -= here;
#pragma nounroll
    for (u32 block = 0; block < LINE_BLOCKS; block++) {
        u64 at = block * BLOCK_BYTES;
        if (at >= bytes)
            return mixed;
        mixed = mix_block(mixed, address + at, bytes - at, BLOCK_BYTES, ahead);
    }
    if (bytes <= LINE_BLOCKS * BLOCK_BYTES)
        return mixed;
    return mix(mix_last(mixed, address, bytes, BLOCK_BYTES, ahead), address);
}

/* Returns how many bytes were copied of a memory of `bytes`. `most` is a power of two. */
static __always_inline u32 copy(u8 *into, u64 most, u64 address, u64 bytes, struct read_ahead *ahead)
{
    u64 fits = less(bytes, most);
    bytes = ((bytes & fits) | ((most - 4) & ~fits)) & (most - 1);
    ahead->failed |= read_user(into, bytes, (void *)address);
    return bytes;
}

static __always_inline struct code_place place_in(struct image *image, u64 code)
{
    return (struct code_place){.signal = image->signal, .since_ns = image->since_ns, .code = code};
}

/* The key of a code object that was read before, 0: it is not known. */
static __always_inline u64 known_key(struct walk *walk, u64 code, struct known_code *seen)
{
    u64 key = 0;
    if (!seen->version || !walk->is_main)
        return 0;
#pragma nounroll
    for (int i = 0; i < IMAGES; i++) {
        u32 image = walk->image & 3;
        if (image >= IMAGES)
            image = 0;
        struct code_place place = place_in(&walk->images[image], code);
        struct known_code *known = place.signal ? known_codes.lookup(&place) : 0;
        if (known && known->known_ns < walk->images[image].until_ns && known->version == seen->version && known->path == seen->path &&
            known->name == seen->name && known->lines == seen->lines) {
            key = known->key;
            break;
        }
        walk->image = image + 1;
    }
    return key && sent_codes.lookup(&key) ? key : 0;
}

static __always_inline void remember(struct walk *walk, u64 code, struct known_code *seen, u64 key)
{
    struct code_place place = place_in(&walk->images[0], code);
    if (!seen->version || !walk->is_main)
        return;
    seen->key = key;
    seen->known_ns = walk->time_ns;
    known_codes.update(&place, seen);
}

static __always_inline void send_code(int walker, u64 key, struct interpreter *python, u64 path, u64 name, u64 lines, u32 first_line,
                                      struct read_ahead *ahead)
{
    struct code_record *record = sending.lookup(&walker);
    struct text text;
    u64 bytes = 0, name_bytes, path_bytes, lines_bytes;
    u8 one = 1;
    if (!record)
        return;
    record->key = key;
    record->kind = CODE;
    record->version = python->version;
    record->file = python->file;
    record->first_line = first_line;
    text = text_at(name, python, ahead);
    record->name_width = text.width;
    name_bytes = copy(record->data, NAME_BYTES, text.address, text.characters * text.width, ahead) & (NAME_BYTES - 1);
    record->name_bytes = name_bytes;
    text = text_at(path, python, ahead);
    record->path_width = text.width;
    path_bytes = copy(record->data + name_bytes, PATH_BYTES, text.address, text.characters * text.width, ahead) & (PATH_BYTES - 1);
    record->path_bytes = path_bytes;
    ahead->failed |= READ_USER(bytes, lines + 16);
    record->lines_whole = bytes;
    lines_bytes = copy(record->data + name_bytes + path_bytes, LINES_BYTES, lines + python->bytes_data, bytes, ahead);
    lines_bytes &= LINES_BYTES - 1;
    record->lines_bytes = lines_bytes;
    if (ahead->failed)
        return;
    bytes = sizeof(struct code_record) - CODE_BYTES + name_bytes + path_bytes + lines_bytes;
    if (ring.ringbuf_output(record, bytes, NO_WAKEUP))
        lose(CODE);
    else
        sent_codes.update(&key, &one);
}

#define SIGNALS 64

/* Whether a frame may be that of a signal handler: its first two variables, or the second and third of a method, or a tuple that is
 * the first (`*args`), are a signal's number and a frame. It is one if that frame turns out to be its caller, which has not called
 * it. */
static __always_inline void look_for_handler(struct walk *walk, struct interpreter *python, u64 frame, u32 place)
{
    u64 variables[5] = {};
    read_user(variables, 24, (void *)(frame + python->frame_locals));
    read_user(&variables[3], 16, (void *)((variables[0] & ~7ULL) + python->tuple_items));
    walk->handler = place;
#pragma unroll
    for (int i = 0; i < CANDIDATES; i++) {
        int at = i == 2 ? 3 : i;
        u64 interrupted = variables[at + 1] & ~7ULL;
        walk->numbers[i] = 0;
        READ_USER(walk->numbers[i], (variables[at] & ~7ULL) + python->int_digit);
        if (python->frame_of_object)
            READ_USER(interrupted, interrupted + python->frame_of_object);
        walk->interrupted[i] = interrupted;
    }
}

/* `frame` comes next in the stack: was it interrupted by the one before? Returns the signal, 0: it was not. */
static __always_inline u32 handled_before(struct walk *walk, u64 frame)
{
    u32 number = 0;
#pragma unroll
    for (int i = 0; i < CANDIDATES; i++)
        if (walk->interrupted[i] == frame && walk->numbers[i] <= SIGNALS)
            number = walk->numbers[i];
    return number;
}

/* Read the next frame, and go to its caller; 0: there is none. */
static __always_inline int walk_frame(int walker, struct walk *walk, struct interpreter *python, struct stack_record *record,
                                      struct read_ahead *ahead)
{
    u64 frame = walk->frame, stack = walk->stack;
    u32 count = walk->count;
    if (!frame || count >= walk->most)
        return 0;
    struct frame *slot = &record->frames[count & (STACK_FRAMES - 1)];
    if (read_user(ahead->frame, python->frame_bytes & 127, (void *)frame))
        goto unreadable;
    walk->frame = *(u64 *)(ahead->frame + (python->frame_back & 127));
    walk->count = count + 1;
    if (python->frame_owner && ahead->frame[python->frame_owner & 127] >= OWNED_BY_C) {
        slot->code = slot->instruction = slot->handled = 0;
        walk->stack = mix(stack, 0);
        return 1;
    }
    if (walk->handles) {
        u32 number = handled_before(walk, frame);
        if (number) {
            record->frames[walk->handler & (STACK_FRAMES - 1)].handled = number;
            stack = mix(stack, number);
        }
        look_for_handler(walk, python, frame, count);
    }
    u64 code = *(u64 *)(ahead->frame + (python->frame_code & 127)) & ~7ULL; /* from 3.14 on the lowest bits are a tag */
    u64 instruction = *(u64 *)(ahead->frame + (python->frame_instruction & 127));
    instruction &= python->instruction_is_pointer | 0xffffffff;
    instruction -= (code + python->code_instructions) & python->instruction_is_pointer;
    u64 key = walk->key;
    if (code != walk->code) { /* else it called itself */
        if (read_user(ahead->code, 128, (void *)(code + 32)))
            goto unreadable;
        u64 path = *(u64 *)(ahead->code + ((python->code_path - 32) & 127));
        u64 name = *(u64 *)(ahead->code + ((python->code_name - 32) & 127));
        u64 lines = *(u64 *)(ahead->code + ((python->code_lines - 32) & 127));
        u32 first_line = *(u32 *)(ahead->code + ((python->code_first_line - 32) & 127));
        struct known_code *seen = &ahead->seen;
        seen->path = path;
        seen->name = name;
        seen->lines = lines;
        seen->version = *(u32 *)(ahead->code + ((python->code_version - 32) & 127)) & -(u64)(python->code_version != 0);
        key = known_key(walk, code, seen);
        if (key)
            goto known;
        ahead->failed = 0;
        if (path != walk->path) {
            walk->path_key = mix_text(python->version, path, BLOCK_BYTES, python, ahead);
            walk->path = path;
        }
        key = mix_lines(mix(walk->path_key, first_line), lines, python, ahead);
        key = mix_text(key, name, 64, python, ahead);
        key |= 1; /* 0 is a call from C */
        if (!ahead->failed && !sent_codes.lookup(&key))
            send_code(walker, key, python, path, name, lines, first_line, ahead);
        if (ahead->failed) {
            walk->path = 0;
            goto unreadable;
        }
        remember(walk, code, seen, key);
    known:
        walk->code = code;
        walk->key = key;
    }
    slot->code = key;
    slot->instruction = instruction;
    slot->handled = 0;
    walk->stack = mix(mix(stack, key), instruction);
    return 1;
unreadable:
    walk->frame = frame;
    walk->count = count;
    if (walk->faults++ < walk->most_faults)
        return 1;
    walk->status = READ_FAULT;
    walk->frame = 0;
    return 0;
}

/* Read up to FRAMES_A_CALL frames on. What goes from frame to frame is kept in memory, not in registers, of which the verifier would
 * follow every combination. */
static __always_inline void walk_frames(int walker, struct walk *walk, struct interpreter *python)
{
    struct stack_record *record = walked.lookup(&walker);
    struct read_ahead *ahead = reading.lookup(&walker);
    if (!record || !ahead)
        return;
#pragma nounroll
    for (int i = 0; i < FRAMES_A_CALL; i++) {
        if (!walk_frame(walker, walk, python, record, ahead))
            return;
        KEEP_APART();
    }
}

/* All frames are read: give the stack its id, and send it if it is new. */
static __always_inline void finish_walk(int walker, struct walk *walk)
{
    struct stack_record *record = walked.lookup(&walker);
    u64 id = walk->stack | 1;
    u32 count = walk->count;
    u8 one = 1;
    if (walk->frame)
        walk->status = TRUNCATED;
    else if (walk->status == NO_THREAD_STATE && count)
        walk->status = STACK_OK;
    walk->stack = 0;
    if (!count || !record)
        return;
    walk->stack = id;
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

/* One step of the walk: to the first frame, or some frames on. */
static __always_inline struct walk *step(int walker, enum program now)
{
    struct walk *walk = walk_of(walker);
    u64 signal = signal_of(bpf_get_current_task());
    struct process *process = followed.lookup(&signal);
    struct interpreter *python = process ? interpreter_of(process) : 0;
    if (!walk || !python)
        return walk;
    if (now == FIND_FRAME)
        find_frame(walk, python);
    else
        walk_frames(walker, walk, python);
    if (walk->status == READ_FAULT)
        process->gave_up = second_of(walk);
    return walk;
}

int raw_find_frame(struct bpf_raw_tracepoint_args *ctx)
{
    struct walk *walk = step(RAW, FIND_FRAME);
    if (!walk)
        return 0;
    if (walk->frame)
        raw_programs.call(ctx, WALK_FRAMES);
    raw_programs.call(ctx, walk->then);
    return 0;
}

int raw_walk_frames(struct bpf_raw_tracepoint_args *ctx)
{
    struct walk *walk = step(RAW, WALK_FRAMES);
    if (!walk)
        return 0;
    if (walk->frame && walk->count < walk->most)
        raw_programs.call(ctx, WALK_FRAMES);
    finish_walk(RAW, walk);
    raw_programs.call(ctx, walk->then);
    return 0;
}

int sys_find_frame(void *ctx)
{
    struct walk *walk = step(SYSCALL, FIND_FRAME);
    if (!walk)
        return 0;
    if (walk->frame)
        sys_programs.call(ctx, WALK_FRAMES);
    sys_programs.call(ctx, walk->then);
    return 0;
}

int sys_walk_frames(void *ctx)
{
    struct walk *walk = step(SYSCALL, WALK_FRAMES);
    if (!walk)
        return 0;
    if (walk->frame && walk->count < walk->most)
        sys_programs.call(ctx, WALK_FRAMES);
    finish_walk(SYSCALL, walk);
    sys_programs.call(ctx, walk->then);
    return 0;
}
#endif
