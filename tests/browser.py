"""A headless Chromium without network, driven over its DevTools protocol by a pair of pipes: no port, no driver, no library."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

PROGRAMS: Final = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
PATIENCE_S: Final = 60.0
OPTIONS: Final = (
    *("--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-component-update"),
    "--disable-ipc-flooding-protection",  # which leaves out links that follow each other fast
    *("--disable-extensions", "--force-device-scale-factor=1", "--hide-scrollbars=false"),
)


def program() -> str | None:
    """Return the path of a Chromium; None: there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """One window. `said` is what its console and its errors said."""

    def __init__(self, process: subprocess.Popen[bytes], read: int, write: int) -> None:
        self._process, self._read, self._write = process, read, write
        self._number, self._data = 0, b""
        self._answers: dict[int, dict[str, Any]] = {}
        self.said: list[str] = []
        self.requests: list[str] = []
        self._session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        number, end_s = self._number, time.monotonic() + PATIENCE_S
        while number not in self._answers:
            self._receive(end_s)
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self, end_s: float) -> None:
        ready, _, _ = select.select([self._read], [], [], max(end_s - time.monotonic(), 0))
        assert ready, "the browser does not answer"
        more = os.read(self._read, 1 << 20)
        assert more, "the browser has ended"
        *messages, self._data = (self._data + more).split(b"\0")
        for message in messages:
            self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        method, about = message.get("method", ""), message.get("params", {})
        if "id" in message:
            self._answers[message["id"]] = message
        elif method == "Runtime.exceptionThrown":
            self.said.append(str(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.said.append(str(about["args"]))
        elif method == "Log.entryAdded":
            self.said.append(about["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])

    def ask(self, script: str) -> Any:
        """Return what an expression is in the page; a promise is awaited."""
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression is true."""
        end_s = time.monotonic() + PATIENCE_S
        while not self.ask(script):
            assert time.monotonic() < end_s, (script, self.said)
            time.sleep(0.01)

    def open(self, path: Path, fragment: str = "", *, dark: bool = False, width: int = 1280, height: int = 900) -> None:
        """Open a page of forktrace and wait until it is drawn."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=f"{path.resolve().as_uri()}{fragment}")
        self.wait("document.documentElement?.dataset.ready || document.getElementById('failure')?.hidden === false")
        self.frames()

    def frames(self) -> None:
        """Wait until what is to be drawn is drawn."""
        self.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Send a mouse event: `mouseMoved`, `mousePressed`, `mouseReleased`, `mouseWheel`."""
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        """Press and release the button."""
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)
        self.frames()

    def press(self, key: str, text: str = "") -> None:
        """Press and release a key."""
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.frames()

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.send("Input.insertText", text=text)

    def place(self, selector: str) -> tuple[float, float, float, float]:
        """Return left, top, width and height of an element."""
        found = (
            f"(r => [r.left, r.top, r.width, r.height])(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        left, top, width, height = self.ask(found)
        return left, top, width, height

    def picture(self, path: Path) -> None:
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a Chromium with a profile of its own, and end it."""
    path = program()
    assert path, "there is no chromium: apt-get install chromium"
    its_read, write = os.pipe()
    read, its_write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="forktrace-browser-") as profile:
        process = _start([path, *OPTIONS, f"--user-data-dir={profile}"], its_read, its_write, profile)
        os.close(its_read)
        os.close(its_write)
        try:
            yield Browser(process, read, write)
        finally:
            os.close(write)
            os.close(read)
            _end(process)


def _start(line: list[str], read: int, write: int, home: str) -> subprocess.Popen[bytes]:
    """Start it with its pipes as descriptors 3 and 4."""
    shell = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash", *line]  # sh knows descriptors of one digit only
    quiet = subprocess.DEVNULL
    environment = dict(os.environ) | {"HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
    return subprocess.Popen(
        shell, pass_fds=(read, write), stdin=quiet, stdout=quiet, stderr=quiet, env=environment, start_new_session=True
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
