"""A headless Chromium, driven over the pipe of its DevTools protocol: nothing but Python's own library is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Nothing here takes so long; what does, hangs.
WAIT_MAX = 60


def find():
    """The browser's path, or None."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for path in map(shutil.which, NAMES) if path), None)


class Failed(Exception):
    """What was waited for did not come, or the browser refused."""


class Browser:
    """One tab. Use it with `with`."""

    def __init__(self, width=1200, height=900):
        self.size = (width, height)
        self.folder = tempfile.mkdtemp(prefix="hubferry-browser-")
        read_in, self._to = os.pipe()
        self._from, write_out = os.pipe()

        def ends():
            # The browser reads commands from 3 and writes answers to 4. Moved out of the way first, so that neither is closed by the other.
            a, b = os.dup(read_in), os.dup(write_out)
            os.dup2(a, 3)
            os.dup2(b, 4)

        path = find()
        if path is None:
            raise Failed("no Chromium here")
        self._process = subprocess.Popen(
            [
                path, "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-sandbox", "--disable-gpu",
                "--disable-dev-shm-usage", "--hide-scrollbars", "--lang=en-GB", f"--user-data-dir={self.folder}",
                "--disable-background-networking", "--disable-component-update", "--disable-sync", "about:blank",
            ],
            preexec_fn=ends, close_fds=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "TZ": "UTC", "LANG": "en_GB.UTF-8"},
        )
        os.close(read_in)
        os.close(write_out)
        self._buffer, self._number, self.events = b"", 0, []
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setLocaleOverride", locale="en-GB")
        self.call("Emulation.setTimezoneOverride", timezoneId="UTC")
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, until):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            chunk = os.read(self._from, 1 << 16) if ready else b""
            if not chunk:
                raise Failed("the browser does not answer")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _call(self, method, session=None, **parameters):
        self._number += 1
        number = self._number
        command = {"id": number, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        os.write(self._to, json.dumps(command).encode() + b"\0")
        until = time.monotonic() + WAIT_MAX
        while True:
            message = self._read(until)
            if message.get("id") == number:
                if "error" in message:
                    raise Failed(f"{method}: {message['error'].get('message')}")
                return message.get("result", {})
            self.events.append(message)

    def call(self, method, **parameters):
        """A command to the tab."""
        return self._call(method, self._session, **parameters)

    def resize(self, width, height):
        self.size = (width, height)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self, is_dark):
        feature = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[feature])

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'", "the page " + address)

    def js(self, text):
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise Failed(f"{text}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def wait(self, condition, what, seconds=WAIT_MAX):
        """Waits until an expression is true."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if self.js(f"Boolean({condition})"):
                    return
            except Failed as error:
                # Between two pages there is nothing to ask.
                if "does not answer" in str(error):
                    raise
            time.sleep(0.1)
        shown = self.js("document.body ? document.body.innerText.slice(0, 2000) : ''")
        raise Failed(f"{what} did not come within {seconds} s; the page says:\n{shown}")

    def text(self, selector):
        return self.js(f"(document.querySelector({json.dumps(selector)}) || {{}}).innerText || ''")

    def click(self, selector):
        """A click with the mouse, in the middle of an element."""
        found = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null; e.scrollIntoView({{block: 'center'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        if not found:
            raise Failed(f"there is no {selector}")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=found[0], y=found[1], button="left", clickCount=1)

    def press(self, key, code=None, text=None):
        """A key."""
        numbers = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowDown": 40}
        more = {"text": "\r"} if key == "Enter" else ({"text": text} if text else {})
        number = numbers.get(key, 0)
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=code or key, windowsVirtualKeyCode=number, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code or key, windowsVirtualKeyCode=number)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def fill(self, selector, text):
        """Writes over what a field holds, as a person does."""
        self.js(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select && e.select(); }})()")
        self.type(text)

    def choose_file(self, selector, path):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def screenshot(self, path, whole=False, most=4000):
        if whole:
            height = self.js("document.documentElement.scrollHeight")
            width, old = self.size
            self.resize(width, min(int(height), most))
            time.sleep(0.3)
            self._shoot(path)
            self.resize(width, old)
        else:
            self._shoot(path)

    def _shoot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def pdf(self, path):
        data = self.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def complaints(self):
        """What the page reported: errors of the script, and what the policy kept it from."""
        self.js("1")
        all_ = []
        for event in self.events:
            if event.get("method") == "Log.entryAdded":
                entry = event["params"]["entry"]
                if entry["level"] == "error":
                    all_.append(f"{entry['text']} {entry.get('url', '')}")
            elif event.get("method") == "Runtime.exceptionThrown":
                all_.append(event["params"]["exceptionDetails"].get("text", "exception"))
        return all_

    def requested(self):
        """Addresses that the page asked for."""
        all_ = (event["params"]["request"]["url"] for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return sorted(set(all_))
