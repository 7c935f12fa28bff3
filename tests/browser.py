"""A headless Chromium, driven through the W3C WebDriver protocol by its chromedriver.

Two programs of the system and no Python package: https://www.w3.org/TR/webdriver2/.
"""

import contextlib
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request

#: The key of an element's id in the answers.
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_OPTIONS = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
SECONDS = 60


def programs():
    """The paths of a browser and its driver, or None."""
    browsers = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, browsers)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextlib.contextmanager
def start():
    """A browser with one page."""
    browser, driver = programs()
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stdout if "started successfully" in line)
        port = re.search(r"port (\d+)", line)[1]
        page = Page(f"http://127.0.0.1:{port}", browser)
        try:
            yield page
        finally:
            page.close()
    finally:
        process.terminate()
        process.wait(SECONDS)
        process.stdout.close()


class Page:
    """What a user does on a page. Every method waits for the page that a click loads."""

    def __init__(self, driver, browser):
        self.url = f"{driver}/session"
        chrome = {"binary": browser, "args": _OPTIONS}
        wanted = {"alwaysMatch": {"goog:chromeOptions": chrome}}
        self.url += "/" + self._send("POST", "", {"capabilities": wanted})["sessionId"]
        self._send("POST", "/timeouts", {"implicit": 10_000})

    def close(self):
        self._send("DELETE", "")

    def open(self, url):
        self._send("POST", "/url", {"url": url})

    def add_cookie(self, name, value):
        self._send("POST", "/cookie", {"cookie": {"name": name, "value": value}})

    def click(self, css):
        self._send("POST", f"/element/{self._find(css)}/click", {})

    def fill(self, name, value):
        """Type into the field; for a list of choices, type the label."""
        element = self._find(f'[name="{name}"]')
        if self._send("GET", f"/element/{element}/name") != "select":
            self._send("POST", f"/element/{element}/clear", {})
        self._send("POST", f"/element/{element}/value", {"text": value})

    def text(self, css):
        return self._send("GET", f"/element/{self._find(css)}/text")

    def value(self, name):
        element = self._find(f'[name="{name}"]')
        return self._send("GET", f"/element/{element}/property/value")

    def _find(self, css):
        found = self._send("POST", "/element", {"using": "css selector", "value": css})
        return found[_ELEMENT]

    def _send(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path,
            data,
            {"Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()}") from error
