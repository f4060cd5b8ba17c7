"""Attacks on whoever reads this program's memory and files: argv[1] names one, argv[2] is a folder for it. CPython 3.11."""

import ctypes
import mmap
import os
import struct
import sys

libc = ctypes.CDLL(None)
libc.fork.restype = ctypes.c_int
WORD = ctypes.c_uint64
FRAME_OF_OBJECT, CODE_OF_FRAME, PREVIOUS_OF_FRAME = 24, 32, 48
LENGTH, STATE = 16, 32  # of a str; of a bytes object the length
HUGE = [0, 1, 4095, 4096, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
NOWHERE = [0, 8, 0xFFFF888000000000, 0xFFFFFFFF81000000, 0x800000000000, (1 << 64) - 8, 1 << 63, 0x7FFFFFFFF000]


def forks():
    """Fork while the memory is as it is; nothing of Python runs in the child."""
    if libc.fork() == 0:
        libc._exit(0)
    libc.wait(None)


def while_it_reads(address, value):
    """Fork with `value` in place of the word at `address`."""
    word = WORD.from_address(address)
    before = word.value
    word.value = value
    forks()
    word.value = before


def frame_of(depth=0):
    """The address of the interpreter's frame of a caller."""
    return WORD.from_address(id(sys._getframe(depth + 1)) + FRAME_OF_OBJECT).value


def frames(folder):
    """Chains that go in a circle or nowhere, and code objects that are none."""
    mine, caller = frame_of(), frame_of(1)
    for value in [mine, caller, *NOWHERE]:
        while_it_reads(mine + PREVIOUS_OF_FRAME, value)
        while_it_reads(caller + PREVIOUS_OF_FRAME, value)
        while_it_reads(caller + CODE_OF_FRAME, value)


def names(folder):
    """Texts and line tables of any length, in any encoding."""
    code = victim.__code__
    for value in HUGE:
        for one in (code.co_filename, code.co_name, code.co_linetable):
            address = id(one) + LENGTH
            victim(address, value)
            for bits in range(0, 256, 37):
                victim(id(code.co_name) + STATE, bits)


def victim(address, value):
    """Its own code object is the one that is spoiled."""
    while_it_reads(address, value)


def scribbles(folder):
    """Another process changes the frames of this one all the time, while it forks."""
    places = [frame_of() + PREVIOUS_OF_FRAME, id(scribbles.__code__.co_name) + LENGTH]
    before = [WORD.from_address(place).value for place in places]
    pid = os.fork()
    if pid == 0:
        with open(f"/proc/{os.getppid()}/mem", "wb", buffering=0) as memory:
            while True:
                for value in NOWHERE + before:
                    for place in places:
                        os.pwrite(memory.fileno(), struct.pack("<Q", value), place)
    forked_often()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    for number, place in enumerate(places):
        WORD.from_address(place).value = before[number]


def forked_often():
    """Fork as a callee of the one that is changed."""
    for _ in range(300):
        forks()


def codes(folder):
    """New code objects without end, with tables of 16 KiB, and new stacks of a thousand frames with paths of a kilobyte."""
    table = "x = 1\n" * 3000
    for number in range(400):
        space = {"fork": forks}
        text = table + f"def f(n):\n  {'x;' * (number % 50)}\n  return fork() if n == 0 else f(n - 1)\nf({number % 900})"
        sys.setrecursionlimit(2000)
        exec(compile(text, f"/{number}" + "p" * 1000, "exec"), space)


def libraries(folder):
    """A libpython that has another size each time it is mapped, more often than the probes' map has room."""
    with open(folder + "/libpython3.11.so.1.0", "w+b") as file:
        file.write(b"\x7fELF\x02\x01" + bytes(250))
        for size in range(256, 6256):
            file.truncate(size)
            mmap.mmap(file.fileno(), 256).close()
    forks()


def programs(folder):
    """As many programs, each another file for the probes, for it has another size."""
    path = folder + "/program"
    with open(sys.argv[3], "rb") as file:
        data = file.read()
    for number in range(2500):
        with open(path, "wb") as file:
            file.write(data + bytes(number))
        os.chmod(path, 0o755)
        pid = os.posix_spawn(path, [path], {})
        os.waitpid(pid, 0)
    forks()


def words(folder):
    """Names and arguments with whatever a terminal obeys, of any length, in no encoding."""
    for text in (
        b"\x1b[2J\x1b]0;owned\x07",
        b"a\nb\rc",
        b"\xff\xfe\x80",
        b"\x00",
        b"'\";$(reboot)",
        b"x" * 100_000,
        b"\xe2\x80\xae",
    ):
        pid = os.fork()
        if pid == 0:
            libc.prctl(15, text[:15], 0, 0, 0)
            if os.fork() == 0:
                os.execv("/bin/true", [b"true", text.replace(b"\0", b"")])
            os.wait()
            os._exit(0)
        os.waitpid(pid, 0)
        name = os.path.join(os.fsencode(folder), text.replace(b"\0", b"").replace(b"/", b"")[:200] + b"x")
        os.symlink("/bin/true", name)
        os.waitpid(os.posix_spawn(name, [text.replace(b"\0", b"") or b"true"], {}), 0)


def bomb(folder):
    """Forks that fork, as many as a limit lets it, as an ordinary user."""
    import resource

    resource.setrlimit(resource.RLIMIT_NPROC, (200, 200))
    os.setuid(int(sys.argv[3]))
    for _ in range(1000):
        try:
            if os.fork() == 0:
                try:
                    os.fork()
                finally:
                    os._exit(0)
        except OSError:
            os.wait()
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
    print('{"case": "attack"}')
