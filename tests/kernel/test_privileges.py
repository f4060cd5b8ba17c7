"""Only the recorder is root, and no longer than it has to be: an ordinary user records, through sudo or with capabilities."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from people import PASSWORD, Person, make_pipx, make_user_site, make_venv, recorder_line
from recorded import DEBIAN, MARK, PATIENCE_S, ROOT_IS_A_MOUNT, Recorded, processes_with, python3s, wait_until
from terminal import Terminal

import forktrace
from forktrace.system.capabilities import NEEDED, needed, nobody_for

pytestmark = pytest.mark.root

Workload = Callable[[str], str]

# Another sudo first on the PATH, and modules that root must not import: they say who did.
EVIL = "import os\nopen({log!r}, 'a').write('{name} as ' + str(os.geteuid()) + '\\n')\n"
OWN = ("Uid", "Gid", "Groups", "Umask", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")


def traps(person: Person) -> tuple[dict[str, str], Path]:
    """Set traps for root where the person can write; return the environment that leads there, and the log of who fell in."""
    place, log = person.home / "traps", person.home / "fell-in"
    own = person.home / ".local/lib/python{}.{}/site-packages".format(*sys.version_info)
    for folder in (place, own):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("numpy", "pyarrow", "bcc", "sitecustomize"):
        (place / f"{name}.py").write_text(EVIL.format(log=str(log), name=name))
    (own / "usercustomize.py").write_text(EVIL.format(log=str(log), name="usercustomize"))
    (place / "sudo").write_text(f"#!/bin/sh\necho sudo as 0 >> {log}\nexit 1\n")
    (place / "sudo").chmod(0o755)
    log.write_text("")
    for each in (place, log, person.home / ".local"):
        person.owns(each)
    return {"PYTHONPATH": str(place), "PATH": f"{place}:/usr/bin:/bin", "BCC_KERNEL_SOURCE": str(place)}, log


def in_terminal(person: Person, script: str, mark: str = "", **more: str) -> Terminal:
    """Run a script of the person's in a terminal of its own."""
    script = f"cd {shlex.quote(str(person.home))} && {script}"
    return Terminal(person.command(["/bin/sh", "-c", script]), person.environment(mark, **more), bare=True)


def closed(path: Path, person: Person) -> forktrace.Recording:
    """A recording that is whole and the person's, who alone can read it."""
    about = path.stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (person.uid, person.gid, 0o600)
    recording = forktrace.read(path)
    assert recording.cut is None
    assert recording.header["user"] == person.name
    return recording


def installed(kind: str, person: Person, place: Path) -> list[str]:
    """Install forktrace in one of the ways that there are, and return how to call it."""
    if kind == "venv":
        command = make_venv(person.home / "app/.venv", place)
        person.owns(person.home / "app")
    elif kind == "pipx":
        command = make_pipx(person, place)
    elif kind == "user site":
        return make_user_site(person, place)
    else:
        command = make_venv(place / "system", place)
    return [str(command)]


@pytest.mark.parametrize(
    ("kind", "tty"), [("venv", "use_pty"), ("pipx", "!use_pty"), ("system", "use_pty"), ("user site", "!use_pty")]
)
def test_the_target_is_the_persons_own(kind: str, tty: str, person: Person, open_place: Path, workload: Workload) -> None:
    """Without root the target sees what it sees without a recorder, sudo runs one command, and root nothing of the person's."""
    call, program = installed(kind, person, open_place), workload("surroundings")
    python = call[0] if len(call) > 1 else str(Path(os.path.realpath(call[0])).with_name("python"))
    surroundings, log = traps(person)
    before, after, trace = (person.home / f"{kind.replace(' ', '-')}.{name}" for name in ("before", "after", "arrows"))
    record = shlex.join([*call, "record", "-q", "-o", str(trace), "--", program, "a", "b c"])
    script = (
        f"umask 027; ulimit -n 512; trap '' USR2; exec 7<{program} 3</dev/null;"
        f"printf hello | {program} a 'b c' >{before}; printf hello | {record} >{after}"
    )
    with person.may(recorder_line(python, person), tty):
        terminal = in_terminal(person, script, **({} if len(call) > 1 else surroundings))
        assert terminal.wait() == 0, terminal.text
    bare, recorded = (file.read_text().replace(str(after), str(before)).splitlines() for file in (before, after))
    assert {"stdin 5 bytes", "argument b c", "Umask:\t0027", "CapPrm:\t0000000000000000"} <= set(bare)
    assert any(line.startswith(f"group {terminal.pid} session {terminal.pid} foreground") for line in bare)
    assert recorded == bare
    assert closed(trace, person).lifecycles()["comm"].tolist() == ["surroundings"]
    assert "as 0" not in log.read_text(), "root ran what the person had put there"
    assert not [path for path in person.home.rglob("*") if path.lstat().st_uid != person.uid]


def test_the_rule_that_doctor_prints(person: Person, in_venv: str) -> None:
    """Installed as it is printed, it lets the person record without a password, and do nothing else as root."""
    printed = person.run([in_venv, "doctor", "--sudoers"])
    assert printed.returncode == 0, printed.stderr
    assert "whoever can is root by this rule" in printed.stdout
    rule, trace = Path("/etc/sudoers.d", person.name), person.home / "by-rule.arrows"
    rule.write_text(printed.stdout)
    rule.chmod(0o440)
    try:
        subprocess.run(["visudo", "-c", "-q", "-f", str(rule)], check=True)
        done = person.run([in_venv, "record", "-o", str(trace), "--", "/bin/true"])
        assert done.returncode == 0, done.stderr
        assert closed(trace, person).lifecycles()["comm"].tolist() == ["true"]
        assert person.run(["/usr/bin/sudo", "-n", "/bin/true"]).returncode != 0
    finally:
        rule.unlink()


def test_the_doctor_under_sudo(person: Person, in_venv: str) -> None:
    """It tries out what there is, as the one line says that it prints without root."""
    with person.may("ALL"):
        assert person.run([in_venv, "doctor"]).stdout.endswith('sudo "$(command -v forktrace)" doctor\n')
        done = person.run(["/usr/bin/sudo", in_venv, "doctor"])
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "forktrace can record here"), done.stdout


CAUGHT = "stty -a; read line; echo got $line; trap 'echo caught; exit 5' INT; echo it is up; while :; do sleep 0.1; done"


@pytest.mark.parametrize("tty", ["use_pty", "!use_pty"])
def test_a_password(tty: str, person: Person, in_venv: str) -> None:
    """sudo asks for it on the terminal, which afterwards is the target's alone: input, Ctrl-C, settings."""
    trace = person.home / f"password-{tty.strip('!')}-{len(tty)}.arrows"
    record = shlex.join([in_venv, "record", "-o", str(trace), "--", "/bin/sh", "-c", CAUGHT])
    with person.may("ALL", tty, password=True):
        terminal = in_terminal(person, f"stty -a; exec {record}")
        terminal.until("password for")
        terminal.press(PASSWORD.encode() + b"\n")
        wait_until(lambda: terminal.read().count("extproc") == 2, "the target has the terminal, and has told its settings")
        terminal.press(b"hello\n")
        terminal.until("got hello")
        terminal.until("it is up\r\n")
        terminal.press(b"\x03")
        assert terminal.wait() == 5, terminal.text
    before, after = re.findall(r"speed .*?extproc", terminal.text, re.DOTALL)
    assert before == after, "the settings of the terminal"
    assert PASSWORD not in terminal.text
    assert terminal.text.count("caught") == 1
    table = closed(trace, person).lifecycles()
    assert table["exit_code"].tolist()[0] == 5
    assert "events of" in terminal.text


STAYS = "trap : HUP; echo it is up; while [ -e {mark} ]; do sleep 0.1; done; /bin/true; exit 3"


def test_a_terminal_that_closes(person: Person, in_venv: str) -> None:
    """The command need not end of it, nor does the recording, though sudo passes the signal on; the status is the command's."""
    trace, mark = person.home / "closes.arrows", person.home / "closes"
    mark.touch()
    record = shlex.join([in_venv, "record", "-o", str(trace), "--", "/bin/sh", "-c", STAYS.format(mark=mark)])
    with person.may("ALL", "use_pty"):
        terminal = in_terminal(person, f"exec {record}")
        terminal.until("it is up")
        os.close(terminal.master)
        time.sleep(1)
        mark.unlink()
        assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == 3
    table = closed(trace, person).lifecycles()
    assert table["comm"].tolist()[-1] == "true"


@pytest.mark.parametrize("tty", ["use_pty", "!use_pty"])
def test_a_wrong_password(tty: str, person: Person, in_venv: str) -> None:
    """The command does not run, nothing is left, and the status is 125."""
    trace, ran = person.home / "refused.arrows", person.home / "ran"
    with person.may("ALL", tty, "passwd_tries=1", password=True):
        terminal = in_terminal(person, shlex.join([in_venv, "record", "-o", str(trace), "--", "touch", str(ran)]))
        terminal.until("password for")
        terminal.press(b"wrong\n")
        assert terminal.wait() == 125, terminal.text
    assert "forktrace: sudo did not start the recorder\r\n" in terminal.text
    assert not trace.exists()
    assert not ran.exists()


def test_no_terminal(person: Person, in_venv: str) -> None:
    """Where sudo cannot ask, the status is 125, and what it says can be typed in a terminal as it is, and works."""
    trace, shown = person.home / "no terminal.arrows", person.home / "shown"
    with person.may("ALL", "use_pty", password=True):
        done = person.run([in_venv, "record", "-q", "-o", str(trace), "--", "/bin/sh", "-c", f"id -u >{shown}; exit 3"])
        assert (done.returncode, done.stdout) == (125, "")
        assert not trace.exists()
        message, hint = done.stderr.splitlines()[-2:]
        assert message == "forktrace: sudo did not start the recorder"
        typed = hint.removeprefix("  type in a terminal: ")
        assert typed.startswith(f"sudo {in_venv} record -q ")
        terminal = in_terminal(person, typed)
        terminal.until("password for")
        terminal.press(PASSWORD.encode() + b"\n")
        assert terminal.wait() == 3, terminal.text
    assert shown.read_text() == f"{person.uid}\n"
    closed(trace, person)


def section(text: str, name: str) -> list[str]:
    """The lines of one part of what the workload prints."""
    return text.partition(f"== {name}\n")[2].partition("\n== ")[0].splitlines()


@pytest.mark.parametrize("tty", ["use_pty", "!use_pty"])
def test_under_sudo(tty: str, person: Person, open_place: Path, workload: Workload) -> None:
    """`sudo forktrace record`: the target is the caller's, numbers, umask and environment; the terminal is that of sudo."""
    program, system = workload("surroundings"), open_place / "system"
    call = system / "bin/forktrace" if system.exists() else make_venv(system, open_place)
    before, after = person.home / "bare", person.home / "under-sudo"
    trace = person.home / f"sudo-{len(tty)}.arrows"
    script = f"umask 002; {program} >{before} </dev/null; sudo forktrace record -q -o {trace} -- {program} >{after} </dev/null"
    with person.may("ALL", tty, f"secure_path={call.parent}:/usr/bin:/bin"):
        terminal = in_terminal(person, script)
        assert terminal.wait() == 0, terminal.text
    bare, under = before.read_text(), after.read_text()
    for key in OWN:
        found = [re.findall(rf"^{key}:.*", text, re.MULTILINE) for text in (bare, under)]
        assert found[0] == found[1] != [], key
    assert section(bare, "/proc/self/environ") == section(under, "/proc/self/environ") != []
    assert re.findall("^directory .*", bare, re.MULTILINE) == re.findall("^directory .*", under, re.MULTILINE)
    ttys = [re.findall(r"tty (\S+)", text)[0] for text in (bare, under)]
    assert (ttys[0] == ttys[1]) == (tty == "!use_pty")
    closed(trace, person)


def test_root_for_somebody(person: Person, record: Callable[..., Recorded], workload: Workload) -> None:
    """`--user` of root without sudo: the target has the user's numbers and groups and no capability; so has the trace."""
    program = workload("surroundings")
    bare = person.run([program]).stdout
    recorded = record([program], "--user", person.name, stdin=subprocess.DEVNULL)
    for key in OWN[:3] + OWN[4:]:
        assert re.findall(rf"^{key}:.*", recorded.stdout, re.MULTILINE) == re.findall(rf"^{key}:.*", bare, re.MULTILINE) != []
    assert f"HOME={person.home}" in section(recorded.stdout, "/proc/self/environ")
    closed(recorded.path, person)


def test_nobody_becomes_somebody_else(person: Person, in_venv: str) -> None:
    """`--user` without root names who types it, or nobody."""
    done = person.run([in_venv, "record", "--user", "root", "--", "/bin/true"])
    assert (done.returncode, done.stderr.splitlines()[0]) == (125, "forktrace: only root can run a command as root")


def test_attach_without_root(person: Person, in_venv: str) -> None:
    """`record -p` too goes through sudo for processes of the user; those of others are refused, and leave no file."""
    own, others = person.home / "own.arrows", person.home / "others.arrows"
    script = f"""
        (while :; do /bin/true; sleep 0.05; done) & loop=$!
        {in_venv} record -q -d 1 -o {own} -p $loop; echo own $?
        {in_venv} record -q -d 1 -o {others} -p 1; echo others $?
        kill $loop
    """
    with person.may("ALL", "use_pty"):
        done = person.run(["/bin/sh", "-c", script])
    assert done.stdout == "own 0\nothers 125\n", done.stderr
    assert "process 1 is not yours" in done.stderr
    assert set(closed(own, person).lifecycles()["origin"]) == {"attached", "forked"}
    assert not others.exists()


def test_the_recorder_is_the_person(person: Person, in_venv: str) -> None:
    """Once it records it is root no more: the person's numbers, four capabilities, one in effect; nor can they look into it."""
    mark, trace = "the recorder's", person.home / "recorder.arrows"
    line = [in_venv, "record", "-q", "-o", str(trace), "--", "/bin/sleep", "600"]
    with person.may("ALL", "use_pty"):
        running = subprocess.Popen(person.command(line), env=person.environment(mark), cwd=person.home)
        try:
            wait_until(lambda: trace.exists() and trace.stat().st_size > 0, "it records")
            wait_until(lambda: "sleep" in map(comm, processes_with(f"{MARK}={mark}")), "the target")
            (target,) = (pid for pid in processes_with(f"{MARK}={mark}") if comm(pid) == "sleep")
            recorders = [pid for pid in descendants(running.pid) if "sudo_entry" in command_line(pid) and comm(pid) != "sudo"]
            status = {pid: Path(f"/proc/{pid}/status").read_text() for pid in recorders}
            limits = [Path(f"/proc/{pid}/limits").read_text() for pid in recorders]
            seen = "".join(person.run(["cat", f"/proc/{pid}/environ", f"/proc/{pid}/maps"]).stdout for pid in recorders)
        finally:
            for pid in processes_with(f"{MARK}={mark}"):
                if comm(pid) == "sleep":
                    os.kill(pid, signal.SIGTERM)
            assert running.wait(PATIENCE_S) == -signal.SIGTERM
    assert status, "no recorder"
    assert target not in status
    four = 1 << 39 | 1 << 40 | 1 << 19 | 1 << 2
    for text in status.values():  # it has a helper of its kind
        numbers = re.findall(r"^[UG]id:\t(.*)", text, re.MULTILINE)
        nobodys, own = str(nobody_for(person.uid)), str(person.uid)  # the command of this person cannot send it signals
        assert numbers == ["\t".join([nobodys, own, nobodys, own]), "\t".join([str(person.gid)] * 4)]
        has = re.findall(r"^Cap(?:Inh|Prm|Eff|Amb):\t(.*)", text, re.MULTILINE)
        assert has == [f"{bits:016x}" for bits in (0, four, 1 << 39, 0)]
        assert "NoNewPrivs:\t1\n" in text
    most = 1 - subprocess.run(["prlimit", "--rtprio=1:1", "true"], stderr=subprocess.DEVNULL, check=False).returncode
    assert all(re.search(rf"^Max realtime priority +{most} +{most} ", text, re.MULTILINE) for text in limits)
    assert not seen, "the person can look into it"


def comm(pid: int) -> str:
    """The name of a process, nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def command_line(pid: int) -> str:
    """The arguments of a process, nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """All processes below this one."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(deeper for child in children for deeper in descendants(child))]


# The interpreter that is to be looked into belongs to root by then, and is not on the person's PATH.
CAPABLE = """
mount -t tracefs tracefs /sys/kernel/tracing
exec setpriv --reuid "$1" --regid "$1" --init-groups --inh-caps "-all,$2" --ambient-caps "-all,$2" \
    --bounding-set "-all,+setuid,+setgid,+setpcap,+audit_write,+dac_override,$2" "$3" -c "$4" "$5" "$6"
"""
RECORDS = """
import sys
from forktrace.errors import ForktraceError
from forktrace.launcher import command
from forktrace.launcher.options import RecordOptions
from forktrace.system import capabilities
capabilities.missing = lambda: []
try:
    sys.exit(command.record(["/bin/sh", "-c", sys.argv[2]], RecordOptions(sys.argv[1], quiet=True)))
except ForktraceError as error:
    sys.exit(f"refused: {error}")
"""
ROOTS = (
    "grep -h Cap /proc/self/status; sudo {python} -c 'import subprocess, time; time.sleep(1); subprocess.run([\"/bin/true\"])'"
)


@pytest.fixture(scope="module")
def strange_python(open_place: Path) -> str:
    """An interpreter that nobody expects, where only root goes: pyenv's with its libpython, else a copy of one without."""
    place = open_place / "roots"
    place.mkdir(mode=0o700)
    if found := list(python3s().values()):
        (place / "strange").symlink_to(os.path.realpath(found[-1]))
    else:
        shutil.copy(os.path.realpath(DEBIAN), place / "strange")
    return str(place / "strange")


@pytest.mark.skipif(not ROOT_IS_A_MOUNT, reason="unshare --mount needs a root that is a mount, which this one is not")
@pytest.mark.parametrize("without", [None, *NEEDED])
def test_exactly_these_capabilities(without: str | None, person: Person, in_venv: str, strange_python: str) -> None:
    """With those of NEEDED, and tracefs mounted, a user who is not root records all; without any one something fails."""
    trace = person.home / f"with-{without}.arrows"
    if without and needed() != NEEDED:
        pytest.skip("kernel.perf_event_paranoid is such that CAP_SYS_ADMIN is needed, which stands for others")
    names = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in needed() if name != without)
    python = str(Path(in_venv).with_name("python"))
    line = ["unshare", "--mount", "sh", "-ec", CAPABLE, "sh", person.name, names, python, RECORDS, str(trace)]
    with person.may("ALL", "use_pty"):
        done = subprocess.run(
            [*line, ROOTS.format(python=strange_python)],
            env=person.environment(),
            cwd=person.home,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    if without in ("CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH"):
        assert "refused: " in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert re.findall(r"Cap(?:Inh|Prm|Eff|Amb):\t(\d+)", done.stdout) == ["0" * 16] * 4, "the target has some of them"
    table = closed(trace, person).lifecycles()
    (status,) = table.loc[table["comm"] == "true", "fork_stack_status"].tolist()
    in_library = without == "CAP_CHECKPOINT_RESTORE"  # without a libpython nothing needs it
    assert status == ("ok" if without is None or (in_library and not python3s()) else "no-runtime")
