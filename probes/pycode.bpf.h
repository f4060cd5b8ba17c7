/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The key of the code object of a frame: a hash of its path, name, first line and line table (of a table beyond 1 KiB also of its
 * address). Never the address of the code object alone, which Python reuses (docs/decisions/0002).
 */
#define LINE_BLOCKS 8

/* Keys of code objects and ids of stacks that were sent. User space removes the id of a stack that it has dropped.
 * Map full: the least recently used entry is dropped, and sent again when it occurs again. */
BPF_TABLE("lru_hash", u64, u8, sent_codes, CODES);
BPF_TABLE("lru_hash", u64, u8, sent_stacks, CODES);

/* (memory image, address) of a code object -> its key, so that its texts are read once. From CPython 3.12 on each code object of an
 * interpreter has a unique version (InternalDocs/interpreter.md; 0 when 2^32 are used up), and a fork copies it. So the same version at the
 * same address is the same object: in that image, and in copies of the image made after it was read.
 * Main interpreter only: the others have versions of their own. Map full: the least recently used entry is dropped, and read again. */
BPF_TABLE("lru_hash", struct code_place, struct known_code, known_codes, CODES);

static __always_inline u64 mix(u64 mixed, u64 word)
{
    mixed = (mixed ^ word) * 0xff51afd7ed558ccdULL;
    return mixed ^ mixed >> 32;
}

/* a < b, as a mask. The hashing avoids branches: each one doubles the paths that the verifier follows. */
static __always_inline u64 less(u64 a, u64 b)
{
    u64 difference = a - b;
    asm volatile("" : "+r"(difference)); /* else the compiler makes it a branch */
    return (u64)((s64)difference >> 63);
}

/* Mix work->block_bytes bytes at work->block_address into work->block_mixed, at most BLOCK_BYTES. The size of the read is constant. Near
 * the end of a page it begins `shift` bytes earlier, so that it never touches a page that the object does not reach. */
u64 shared_mix_block(u64 slot)
{
    struct work *work = work_of(slot);
    if (!work)
        return 0;
    u64 size = work->block_bytes, address = work->block_address, mixed = work->block_mixed;
    u64 room = 4096 - (address & 4095), whole = less(BLOCK_BYTES, size);
    size = (BLOCK_BYTES & whole) | (size & ~whole);
    u64 shift = (BLOCK_BYTES - room) & less(room, BLOCK_BYTES) & ~less(room, size) & (BLOCK_BYTES - 1);
    work->unreadable |= !!(read_user(work->block, BLOCK_BYTES, (void *)(address - shift)) & less(0, size));
    *(u64 *)((u8 *)work->block + ((shift + size) & 255)) = 0;
#pragma nounroll
    for (u32 i = 0; i < BLOCK_BYTES / 8; i++)
        mixed = mix(mixed, *(u64 *)((u8 *)work->block + shift + 8 * i) & less(8 * i, size));
    work->block_mixed = mixed;
    return 0;
}

static __always_inline u64 mixed_block(struct work *work, u32 slot, u64 mixed, u64 address, u64 bytes)
{
    work->block_mixed = mixed;
    work->block_address = address;
    work->block_bytes = bytes;
    mix_block(slot);
    return work->block_mixed;
}

/* Mix in the last BLOCK_BYTES, or all if there are fewer. */
static __always_inline u64 mixed_last(struct work *work, u32 slot, u64 mixed, u64 address, u64 bytes)
{
    return mixed_block(work, slot, mixed, address + ((bytes - BLOCK_BYTES) & less(BLOCK_BYTES, bytes)), bytes);
}

/* A str after the header of every object. The object is longer in every version. */
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

/* The characters of a str; in Python 2 of a bytes object. */
static __always_inline struct text text_of(u64 object, struct text_head *head, struct interpreter *python)
{
    u32 state = (u32)head->state >> (python->text_kind & 31);
    u64 ascii = -(u64)(state >> 4 & 1);
    struct text text = {.characters = head->length};
    text.width = (state & python->text_width_mask) | python->text_width;
    text.address = object + ((python->text_ascii & ascii) | (python->text_compact & ~ascii));
    return text;
}

static __always_inline struct text text_at(struct work *work, u64 object)
{
    struct text_head head = {};
    work->unreadable |= !!READ_USER(head, object + work->python.head_bytes);
    return text_of(object, &head, &work->python);
}

/* Read the start of an object, at most `most` bytes after its header, within its first page: the next page may belong to another object or
 * be unmapped. Returns how many bytes. */
static __always_inline u64 read_object(struct work *work, u64 object, u64 most)
{
    object += work->python.head_bytes;
    u64 bytes = 4096 - (object & 4095), little = less(bytes, sizeof(struct text_head)), much = less(most, bytes);
    bytes = (sizeof(struct text_head) & little) | (most & much) | (bytes & ~little & ~much);
    work->unreadable |= !!read_user(work->block, bytes & 255, (void *)object);
    return bytes;
}

/* Mix in up to `size` bytes from `start` on of the `got` bytes of an object in work->block. Returns how many. */
static __always_inline u64 mix_read(struct work *work, u64 *mixed, u64 start, u64 size, u64 got, u64 most)
{
    asm volatile("" : "+r"(start), "+r"(got) : : "memory");
    start &= 63;
    got = (got - start) & ~less(got, start); /* of the data */
    u64 here = (size & less(size, got)) | (got & ~less(size, got));
    u64 one = *mixed, other = here; /* two, so that their multiplications overlap */
    *(u64 *)((u8 *)work->block + ((start + here) & 255)) = 0;
#pragma nounroll
    for (int i = 0; i < most / 8; i += 2) {
        one = mix(one, *(u64 *)((u8 *)work->block + start + 8 * i) & less(8 * i, here));
        other = mix(other, *(u64 *)((u8 *)work->block + start + 8 * i + 8) & less(8 * i + 8, here));
        asm volatile("" : "+r"(one), "+r"(other));
    }
    *mixed = mix(one, other);
    return here;
}

/* Mix in a text. The middle of a very long one is left out: paths differ at the end. */
static __always_inline u64 mix_text(struct work *work, u32 slot, u64 mixed, u64 object, u64 most)
{
    u64 got = read_object(work, object, most);
    struct text text = text_of(object, (struct text_head *)work->block, &work->python);
    u64 bytes = text.characters * text.width;
    mixed = mix(mixed, bytes);
    u64 here = mix_read(work, &mixed, text.address - object - work->python.head_bytes, bytes, got, most - 24);
    if (bytes <= here)
        return mixed;
    mixed = mixed_block(work, slot, mixed, text.address + here, bytes - here);
    return mixed_last(work, slot, mixed, text.address + here, bytes - here);
}

/* Mix in a line table: up to LINE_BLOCKS blocks whole; of a longer one these, the last block and the address. */
static __always_inline u64 mix_lines(struct work *work, u32 slot, u64 mixed, u64 object)
{
    u64 data = work->python.bytes_data, address = object + data;
    u64 got = read_object(work, object, BLOCK_BYTES), bytes = work->block[0];
    mixed = mix(mixed, bytes);
    u64 here = mix_read(work, &mixed, data - work->python.head_bytes, bytes, got, BLOCK_BYTES - 16);
    if (bytes <= here)
        return mixed;
    address += here;
    bytes -= here;
#pragma nounroll
    for (u32 block = 0; block < LINE_BLOCKS; block++) {
        u64 at = block * BLOCK_BYTES;
        if (at >= bytes)
            return mixed;
        mixed = mixed_block(work, slot, mixed, address + at, bytes - at);
    }
    if (bytes <= LINE_BLOCKS * BLOCK_BYTES)
        return mixed;
    return mix(mixed_last(work, slot, mixed, address, bytes), address);
}

/* Set work->key to the key of the code object in work->seen. It is never 0: that is a call from C. */
u64 shared_make_key(u64 slot)
{
    struct work *work = work_of(slot);
    if (!work)
        return 0;
    work->unreadable = 0;
    if (work->seen.path != work->path) {
        work->path_key = mix_text(work, slot, work->python.version, work->seen.path, BLOCK_BYTES);
        work->path = work->seen.path;
    }
    u64 key = mix_lines(work, slot, mix(work->path_key, work->first_line), work->seen.lines);
    work->key = mix_text(work, slot, key, work->seen.name, 64) | 1;
    return 0;
}

/* Copy `bytes` bytes; of `most` (a power of two) or more only `most` - 4. Returns how many. */
static __always_inline u32 copy(struct work *work, u8 *into, u64 most, u64 address, u64 bytes)
{
    u64 fits = less(bytes, most);
    bytes = ((bytes & fits) | ((most - 4) & ~fits)) & (most - 1);
    work->unreadable |= !!read_user(into, bytes, (void *)address);
    return bytes;
}

/* Send the code object in work->seen, which is new to user space. */
u64 shared_send_code(u64 slot)
{
    u32 key_of_record = slot;
    struct work *work = work_of(slot);
    struct code_record *record = codes.lookup(&key_of_record);
    u64 bytes = 0, name_bytes, path_bytes, lines_bytes;
    u8 one = 1;
    if (!work || !record)
        return 0;
    u64 key = work->key, lines = work->seen.lines;
    record->key = key;
    record->kind = CODE;
    record->version = work->python.version;
    record->file = work->python.file;
    record->first_line = work->first_line;
    struct text text = text_at(work, work->seen.name);
    record->name_width = text.width;
    name_bytes = copy(work, record->data, NAME_BYTES, text.address, text.characters * text.width) & (NAME_BYTES - 1);
    record->name_bytes = name_bytes;
    text = text_at(work, work->seen.path);
    record->path_width = text.width;
    path_bytes = copy(work, record->data + name_bytes, PATH_BYTES, text.address, text.characters * text.width) & (PATH_BYTES - 1);
    record->path_bytes = path_bytes;
    work->unreadable |= !!READ_USER(bytes, lines + work->python.head_bytes);
    record->lines_whole = bytes;
    lines_bytes = copy(work, record->data + name_bytes + path_bytes, LINES_BYTES, lines + work->python.bytes_data, bytes);
    lines_bytes &= LINES_BYTES - 1;
    record->lines_bytes = lines_bytes;
    if (work->unreadable)
        return 0;
    bytes = sizeof(struct code_record) - CODE_BYTES + name_bytes + path_bytes + lines_bytes;
    if (ring.ringbuf_output(record, bytes, NO_WAKEUP))
        lose(CODE);
    else
        sent_codes.update(&key, &one);
    return 0;
}

static __always_inline struct code_place *place_in(struct work *work, struct image *image, u64 code)
{
    work->place.signal = image->signal;
    work->place.since_ns = image->since_ns;
    work->place.code = code;
    return &work->place;
}

/* The key of the code object in work->seen, at `code`, if it was read before and sent; 0: it is not known. */
static __always_inline u64 known_key(struct work *work, u64 code)
{
    struct known_code *seen = &work->seen;
    u64 key = 0;
    if (!seen->version || !work->is_main)
        return 0;
#pragma nounroll
    for (int i = 0; i < IMAGES; i++) {
        u32 image = work->image & 3;
        if (image >= IMAGES)
            image = 0;
        struct code_place *place = place_in(work, &work->images[image], code);
        struct known_code *known = place->signal ? known_codes.lookup(place) : 0;
        if (known && known->known_ns < work->images[image].until_ns && known->version == seen->version && known->path == seen->path &&
            known->name == seen->name && known->lines == seen->lines) {
            key = known->key;
            break;
        }
        work->image = image + 1;
    }
    return key && sent_codes.lookup(&key) ? key : 0;
}

static __always_inline void remember(struct work *work, u64 code)
{
    if (!work->seen.version || !work->is_main)
        return;
    work->seen.key = work->key;
    work->seen.known_ns = work->time_ns;
    known_codes.update(place_in(work, &work->images[0], code), &work->seen);
}

static __always_inline u64 code_word(struct work *work, u32 offset)
{
    return *(u64 *)(work->code_data + ((offset - 32) & 127));
}

/* Set work->key to the key of the code object at `code`, and send it if it is new. 0: it cannot be read. */
static __always_inline int see_code(struct work *work, u64 slot, u64 code)
{
    struct interpreter *python = &work->python;
    work->code = 0;
    if (read_user(work->code_data, 128, (void *)(code + 32)))
        return 0;
    work->seen.path = code_word(work, python->code_path);
    work->seen.name = code_word(work, python->code_name);
    work->seen.lines = code_word(work, python->code_lines);
    work->seen.version = (u32)code_word(work, python->code_version) & -(u64)(python->code_version != 0);
    work->first_line = code_word(work, python->code_first_line);
    u64 key = known_key(work, code);
    if (!key) {
        make_key(slot);
        key = work->key;
        if (!work->unreadable && !sent_codes.lookup(&key))
            send_code(slot);
        if (work->unreadable) {
            work->path = 0;
            return 0;
        }
        remember(work, code);
    }
    work->code = code;
    work->key = key;
    return 1;
}
