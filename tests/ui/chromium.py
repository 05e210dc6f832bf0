"""A headless Chromium driven over its DevTools protocol: enough to open a page, wait, click and take a picture."""

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

PROGRAM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
QUIET = [
    *["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
    *["--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars"],
]


class Chromium:
    """One browser with one page; a context manager that ends the browser.

    Args:
        width: Of the window, in pixels.
        height: Of the window, in pixels.
        scale: Device pixels per pixel.
    """

    def __init__(self, *, width=1500, height=900, scale=1.0):
        self._folder = tempfile.mkdtemp(prefix="chromium-")
        self._process = subprocess.Popen(
            [
                *[PROGRAM, *QUIET, f"--user-data-dir={self._folder}", "--remote-debugging-port=0"],
                *[f"--window-size={width},{height}", f"--force-device-scale-factor={scale}", "about:blank"],
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._numbers = itertools.count(1)
        self.errors = []
        self._socket = connect(self._page_url(), max_size=None, open_timeout=30, legacy=True)
        self._ask("Page.enable")
        self._ask("Runtime.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", **size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()
        self._process.terminate()
        self._process.wait(timeout=20)
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, url):
        """Go to a page."""
        self._ask("Page.navigate", url=url)

    def evaluate(self, script):
        """The value of a JavaScript expression on the page."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def text(self):
        """What a person reads on the page."""
        return self.evaluate("document.body ? document.body.innerText : ''")

    def wait_for(self, text, *, seconds=60):
        """Until the page shows a text."""
        self.wait_until(
            f"document.body && document.body.innerText.includes({json.dumps(text)})", seconds=seconds, what=text
        )

    def wait_until(self, script, *, seconds=60, what=None):
        """Until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(f"!!({script})"):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s for {what or script}; the page shows:\n{self.text()[:3000]}")
            time.sleep(0.3)

    def settle(self, *, seconds=60):
        """Until what the page says has stayed the same for two seconds: nothing is being loaded or laid out."""
        deadline = time.monotonic() + seconds
        before = None
        while (now := self.evaluate("document.body.innerHTML")) != before:
            assert time.monotonic() < deadline, "the page does not come to rest"
            before = now
            time.sleep(2)

    def click(self, text, *, selector="button, a, [role=button], [role=menuitem], [role=option], label", nth=0):
        """Click the nth visible element of the selector whose text is, or else contains, a text; as a mouse does."""
        script = f"""(() => {{
            const shown = [...document.querySelectorAll({json.dumps(selector)})].filter(e => e.offsetParent !== null);
            const same = shown.filter(e => e.innerText.trim() === {json.dumps(text)});
            const found = (same.length ? same : shown.filter(e => e.innerText.includes({json.dumps(text)})))[{nth}];
            if (!found) return null;
            found.scrollIntoView({{block: 'center'}});
            const box = found.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        deadline = time.monotonic() + 30
        while (place := self.evaluate(script)) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing to click says {text!r}; the page shows:\n{self.text()[:3000]}")
            time.sleep(0.3)
        self.press(*place)

    def press(self, x, y):
        """Press and release the mouse at a place of the window."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def picture(self, path, *, of=None, margin=24):
        """Save what is seen as a PNG; or the part of it that holds all elements of a selector, with a margin."""
        part = {}
        if of is not None:
            left, top, right, bottom = self.evaluate(f"""(() => {{
                const boxes = [...document.querySelectorAll({json.dumps(of)})].map(e => e.getBoundingClientRect());
                const sides = ['left', 'top', 'right', 'bottom'].map(side => boxes.map(box => box[side]));
                return [Math.min(...sides[0]), Math.min(...sides[1]), Math.max(...sides[2]), Math.max(...sides[3])];
            }})()""")
            size = {"width": right - left + 2 * margin, "height": bottom - top + 2 * margin}
            part = {"clip": {"x": left - margin, "y": top - margin, "scale": 1, **size}}
        data = self._ask("Page.captureScreenshot", format="png", **part)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def scroll_to(self, text):
        """Bring the first element whose own text is `text` to the top of what scrolls it."""
        self.evaluate(f"""[...document.querySelectorAll('*')].find(e => !e.childElementCount
            && e.innerText?.trim() === {json.dumps(text)}).scrollIntoView({{block: 'start'}})""")

    def seen(self):
        """The texts whose place is inside the window."""
        return self.evaluate("""[...document.querySelectorAll('*')].filter(e => !e.childElementCount && e.innerText)
            .filter(e => { const box = e.getBoundingClientRect(); const x = box.left + 2, y = box.top + box.height / 2;
                const top = document.elementFromPoint(x, y); return top && (top === e || top.contains(e)); })
            .map(e => e.innerText).join('\\n')""")

    def _page_url(self):
        port_file = Path(self._folder) / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert time.monotonic() < deadline, "Chromium did not start"
            time.sleep(0.1)
        port = port_file.read_text().split("\n")[0]
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                pages = [target for target in json.load(answer) if target["type"] == "page"]
            if pages:
                return pages[0]["webSocketDebuggerUrl"]
            time.sleep(0.1)

    def _ask(self, method, **params):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(message["params"]["exceptionDetails"])
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
