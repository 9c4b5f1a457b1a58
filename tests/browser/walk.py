#!/usr/bin/python3
"""Walks through the customers' pages with a real Chromium, as a customer does.

    walk.py activate --web URL --link URL/activate/TOKEN --username NAME --password NEW --axe FILE --out DIR
    walk.py state    --web URL --username NAME --password NOW --new-password NEW --expect-file NAME --expect-text TEXT
                     --axe FILE --out DIR

activate: from the link of the mail to the first login; leaves DIR/filezilla.xml. state: a login later; waits for the state
of an upload, changes the password, adds and removes an SSH key, logs out. `--shows TEXT` (repeated) names what has to be on
the form of the link (its `--company`) and on /home. `--language` is the browser's and has to be the account's. `--shots`
keeps a picture of every page in DIR.

Every page is loaded and every form is sent with JavaScript switched off. Every page and state has to have its HTTP status,
its language, one h1 and a title; neither a violation of axe-core's default rules (desktop, phone, dark) nor anything wider
than a phone; and nothing in the browser's console, which tells of breaches of the Content-Security-Policy.

Exits 0 with `done` in the last line; else 1 with the reason in the last line. Debian packages: chromium, chromium-driver,
python3-selenium, openssh-client. axe.min.js: see fetch-axe.
"""

import argparse
import base64
import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait

LIMIT = 20  # seconds for one step
PATIENCE = 30  # seconds for the state of an upload
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage --no-proxy-server --hide-scrollbars"
)
# Name, width, height, as a phone, colour scheme. The first is how pages are met.
LOOKS = (("desktop", 1280, 900, False, "light"), ("phone", 390, 844, True, "light"), ("dark", 1280, 900, False, "dark"))
SCRIPT_PROBE = "data:text/html,<title>off</title><script>document.title = 'on'</script>"
# Long enough, and refused all the same.
COMMON_PASSWORD = "password1234"


class Failed(Exception):
    """Why the test has failed."""


def need(condition, reason):
    if not condition:
        raise Failed(reason)


@contextlib.contextmanager
def chromium(language, home, downloads):
    """A browser without a past. Everything that it writes is below `home`, but for its downloads."""
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={home}/profile")
    options.add_experimental_option(
        "prefs",
        {
            "intl.accept_languages": {"de": "de-DE,de", "en": "en-GB,en"}[language],
            "download.default_directory": str(downloads),
            "credentials_enable_service": False,
        },
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    environment = {"HOME": home, "TMPDIR": home, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver", env=environment), options=options)
    try:
        yield driver
    finally:
        driver.quit()


class Walk:
    """The browser, and what holds for each page that it meets."""

    def __init__(self, driver, given):
        self.driver = driver
        self.given = given
        self.axe = given.axe.read_text(encoding="utf-8")
        self.met = 0
        self.complaints = []
        self.look(*LOOKS[0][1:])
        self.scripts(on=False)
        self.driver.get(SCRIPT_PROBE)
        need(self.driver.title == "off", "JavaScript is on")

    def scripts(self, on):
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not on})

    def look(self, width, height, mobile, scheme):
        size = {"width": width, "height": height, "mobile": mobile, "deviceScaleFactor": 1}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)

    # Steps.

    def open(self, address):
        self.driver.get(address if "://" in address else self.given.web + address)

    def leave(self, act):
        """Does what leads to another page, and waits for that page."""
        page = self.find("html")
        act()
        wait = WebDriverWait(self.driver, LIMIT)
        wait.until(expected_conditions.staleness_of(page))
        wait.until(expected_conditions.presence_of_element_located((By.CSS_SELECTOR, "footer")))

    def press(self, selector):
        self.leave(self.find(selector).click)

    def fill(self, **fields):
        for name, text in fields.items():
            field = self.find(f"[name={name}]")
            field.clear()
            field.send_keys(text)

    def keys(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    # What is on the page.

    def find(self, selector):
        try:
            return self.driver.find_element(By.CSS_SELECTOR, selector)
        except NoSuchElementException:
            raise Failed(f"nothing on {self.where()} is {selector}") from None

    def text(self, selector="main"):
        return self.find(selector).text

    def where(self):
        """Without the token of a link."""
        path = self.driver.current_url.removeprefix(self.given.web)
        return re.sub(r"/activate/[^/?#]+", "/activate/…", path)

    def has(self, *texts):
        """Also what is in a part that is folded up, and in fields."""
        shown = self.find("main").get_attribute("textContent")
        fields = self.driver.find_elements(By.CSS_SELECTOR, "input, textarea")
        shown += "\n".join(field.get_attribute("value") for field in fields)
        for text in texts:
            need(text in shown, f"{text!r} is not on {self.where()}: {self.text()}")

    def says_no(self):
        """The one alert at the head of the page, and in the title."""
        need(self.text("[role=alert]"), f"the alert on {self.where()} is empty")
        need(": " in self.driver.title, f"the title does not tell of the error: {self.driver.title}")
        need(self.find("[aria-invalid]"), "no field is marked as wrong")

    # Checks.

    def meet(self, name, path, status=200):
        """Checks the page that the browser is on; `name` is for people and pictures."""
        self.met += 1
        need(re.fullmatch(path, self.where()), f"{name} is on {self.where()} instead of {path}")
        entry = "return performance.getEntriesByType('navigation')[0].responseStatus"
        found = self.driver.execute_script(entry)
        need(found == status, f"{name}: status {found} instead of {status}")
        language = self.find("html").get_attribute("lang")
        need(language == self.given.language, f"{name}: in the language {language}")
        need(self.driver.title, f"{name}: no title")
        headings = self.driver.find_elements(By.CSS_SELECTOR, "h1")
        need(len(headings) == 1, f"{name}: {len(headings)} h1")
        self.scripts(on=True)
        try:
            self.driver.execute_script(self.axe)
            for look, width, height, mobile, scheme in LOOKS:
                self.look(width, height, mobile, scheme)
                self.check_look(f"{name}, {look}", width)
                if self.given.shots:
                    self.shot(f"{self.given.phase}-{self.met:02}-{name.replace(' ', '-')}-{self.given.language}-{look}")
        finally:
            self.look(*LOOKS[0][1:])
            self.scripts(on=False)
        self.check_console(name, status)
        print(f"{self.met:2} {name}: {self.driver.title}")

    def check_look(self, name, width):
        wide = self.driver.execute_script("return document.documentElement.scrollWidth")
        if wide > width:
            self.complaints.append(f"{name}: {wide} pixels wide on a screen of {width}")
        result = self.driver.execute_async_script(
            "const end = arguments[0]; axe.run().then(end, error => end({error: String(error)}))"
        )
        need("error" not in result, f"axe on {name}: {result.get('error')}")
        need(len(result["passes"]) > 10, f"axe checked next to nothing on {name}")
        for violation in result["violations"]:
            for node in violation["nodes"]:
                why = " ".join(node["failureSummary"].split())
                self.complaints.append(f"{name}: {violation['id']}: {' '.join(map(str, node['target']))}: {why}")

    def check_console(self, name, status):
        """Chromium itself notes the page's own error status there; anything else is wrong."""
        for entry in self.driver.get_log("browser"):
            own = f"the server responded with a status of {status} " in entry["message"]
            if not (own and status >= 400 and entry["source"] == "network"):
                self.complaints.append(f"{name}: console: {entry['level']}: {entry['message']}")

    def shot(self, name):
        """The whole page, however long it is."""
        options = {"format": "png", "captureBeyondViewport": True}
        image = self.driver.execute_cdp_cmd("Page.captureScreenshot", options | self.whole_page())
        (self.given.out / f"{name}.png").write_bytes(base64.b64decode(image["data"]))

    def whole_page(self):
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    # What both phases do.

    def log_in_by_keyboard(self, username, password):
        """From the top of the page, without a mouse: the link that skips the head, two fields, Enter."""
        self.keys(Keys.TAB)
        skip = self.driver.switch_to.active_element
        need(skip.get_attribute("href").endswith("#main"), "the first stop of the Tab key does not skip the head")
        self.keys(Keys.ENTER)
        self.keys(Keys.TAB, username, Keys.TAB, password)
        self.leave(lambda: self.keys(Keys.ENTER))

    def unfold(self):
        for summary in self.driver.find_elements(By.CSS_SELECTOR, "summary"):
            summary.click()


def activate(walk, given):
    link = "/activate/…"
    walk.open("/home")
    walk.meet("login", "/")
    walk.open("/no-such-page")
    walk.meet("not found", "/no-such-page", 404)
    walk.open("/activate/" + "A" * 43)
    walk.meet("unknown link", link, 404)
    walk.open("/link")
    walk.meet("ask for a link", "/link")
    # Nobody's name: what it says is the same for all, and no mail goes out.
    walk.fill(username="nobody of this name")
    walk.press("form[action='/link'] button")
    walk.meet("link is sent", "/link")
    need(walk.text("[role=status]"), "nothing tells that the link is on its way")

    walk.open(given.link)
    walk.has(given.company, given.username)
    walk.unfold()
    walk.meet("set password", link)
    walk.fill(password="kurz", password_repeat="kurz")
    walk.find("main form button").click()
    need(walk.driver.find_elements(By.CSS_SELECTOR, "#password:invalid"), "the browser sends a password of 4 characters")
    for name, password, repeat in (
        ("passwords differ", given.password, given.password + "x"),
        ("weak password", COMMON_PASSWORD, COMMON_PASSWORD),
    ):
        walk.fill(password=password, password_repeat=repeat)
        walk.press("main form button")
        walk.meet(name, link, 422)
        walk.says_no()
        walk.has(given.company, given.username)
    walk.open(given.link)
    walk.fill(password=given.password, password_repeat=given.password)
    walk.press("main form button")
    walk.meet("led to the login", r"/\?notice=activated")
    need(walk.text("[role=status]"), "nothing tells that the password is set")
    walk.open(given.link)
    walk.meet("used link", link, 410)

    walk.open("/")
    walk.fill(username=given.username, password=given.password + "x")
    walk.press("main form button")
    walk.meet("wrong password", "/", 401)
    walk.says_no()
    walk.open("/")
    walk.log_in_by_keyboard(given.username, given.password)
    walk.unfold()
    walk.meet("home", "/home")
    walk.has("SHA256:", *given.shows)
    site = download(walk, given.out / "filezilla.xml")
    for server in site.iter("Server"):
        walk.has(server.findtext("Host"), server.findtext("Port"), server.findtext("User"))
        need(server.findtext("User") == given.username, "the site file has another user")
    need(not list(site.iter("Pass")), "the site file has a password")


def download(walk, path):
    path.unlink(missing_ok=True)
    walk.find("a[href='/home/filezilla.xml']").click()
    until("the site file is downloaded", path.exists, LIMIT)
    site = ElementTree.parse(path)
    need(list(site.iter("Server")), "the site file has no server")
    return site


def state(walk, given):
    walk.open("/")
    walk.log_in_by_keyboard(given.username, given.password)
    walk.has(*given.shows)

    def is_told():
        walk.open("/home")
        rows = walk.driver.find_elements(By.CSS_SELECTOR, ".uploads > li")
        return any(given.expect_file in row.text and given.expect_text in row.text for row in rows)

    until(f"{given.expect_file} is told as {given.expect_text!r}", is_told, PATIENCE, lambda: walk.text("#orders"))
    walk.unfold()
    walk.meet("home with an upload", "/home")
    change_password(walk, given)
    change_keys(walk, given)
    walk.press(".logout button")
    walk.meet("logged out", r"/\?notice=logged-out")
    walk.open("/home")
    walk.meet("home leads to the login", "/")
    walk.fill(username=given.username, password=given.password)
    walk.press("main form button")
    walk.meet("old password", "/", 401)


def change_password(walk, given):
    button = "form[action='/home/password'] button"
    walk.fill(current_password=given.password + "x", password=given.new_password, password_repeat=given.new_password)
    walk.press(button)
    walk.meet("wrong current password", "/home/password", 422)
    walk.says_no()
    walk.fill(current_password=given.password, password=given.new_password, password_repeat=given.new_password)
    walk.press(button)
    walk.meet("password is changed", r"/home\?notice=password")
    need(walk.text("[role=status]"), "nothing tells that the password is changed")


def change_keys(walk, given):
    with tempfile.TemporaryDirectory() as folder:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "browser test", "-f", f"{folder}/key"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        shown = subprocess.run(["ssh-keygen", "-l", "-f", f"{folder}/key.pub"], check=True, capture_output=True, text=True)
        fingerprint = shown.stdout.split()[1]
        key = Path(folder, "key.pub").read_text(encoding="ascii").strip()
    button = "form[action='/home/keys'] button"
    walk.fill(key="ssh-ed25519 nothing")
    walk.press(button)
    walk.meet("not a key", "/home/keys", 422)
    walk.says_no()
    walk.fill(key=key)
    walk.press(button)
    walk.meet("key is added", r"/home\?notice=key-added")
    walk.has(fingerprint, "browser test")
    row = f"//li[contains(., '{fingerprint}')]//button"
    walk.leave(walk.driver.find_element(By.XPATH, row).click)
    walk.meet("key is removed", r"/home\?notice=key-removed")
    need(fingerprint not in walk.text(), "the key is still there")


def until(what, reached, seconds, instead=lambda: ""):
    deadline = time.monotonic() + seconds
    while not reached():
        need(time.monotonic() < deadline, f"not within {seconds} s: {what} {instead()}")
        time.sleep(0.2)


def arguments():
    parser = argparse.ArgumentParser(description="Walks through the customers' pages with Chromium.")
    parser.add_argument("phase", choices=("activate", "state"))
    parser.add_argument("--web", required=True, help="base_url of the pages")
    parser.add_argument("--link", help="activate: from the mail")
    parser.add_argument("--company", default="", help="activate: the client's name")
    parser.add_argument("--username", required=True)
    parser.add_argument("--password", required=True, help="activate: the one to set; state: the present one")
    parser.add_argument("--new-password", help="state: the one to change to")
    parser.add_argument("--expect-file", help="state: name of the upload")
    parser.add_argument("--expect-text", help="state: what has to stand beside it")
    parser.add_argument("--shows", action="append", default=[], metavar="TEXT", help="has to be on /home; repeatable")
    parser.add_argument("--language", choices=("de", "en"), default="de")
    parser.add_argument("--axe", required=True, type=Path, help="axe.min.js")
    parser.add_argument("--out", required=True, type=Path, help="folder for what is kept")
    parser.add_argument("--shots", action="store_true", help="keep a picture of every page")
    given = parser.parse_args()
    needed = ("link",) if given.phase == "activate" else ("new_password", "expect_file", "expect_text")
    missing = [name for name in needed if getattr(given, name) is None]
    if missing:
        parser.error(f"{given.phase} needs --" + ", --".join(missing).replace("_", "-"))
    given.web = given.web.rstrip("/")
    given.out.mkdir(parents=True, exist_ok=True)
    given.out = given.out.resolve()
    return given


def main():
    # A termination is an exception, so that the browser is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = arguments()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            with chromium(given.language, home, given.out) as driver:
                walk = Walk(driver, given)
                {"activate": activate, "state": state}[given.phase](walk, given)
        need(not walk.complaints, "\n".join(walk.complaints))
    except (Failed, WebDriverException) as error:
        print(f"failed: {error}", flush=True)
        sys.exit(1)
    print("done")


if __name__ == "__main__":
    main()
