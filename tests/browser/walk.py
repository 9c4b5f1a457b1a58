#!/usr/bin/python3
"""Walks through the customers' pages with a real Chromium, as a customer does.

    walk.py activate --web URL --link URL/activate/TOKEN --username NAME --password NEW --axe FILE --out DIR
    walk.py state --web URL --username NAME --password NOW --new-password NEW --expect-file NAME --expect-text TEXT
                  --axe FILE --out DIR

activate: from the link of the mail to the first login; leaves DIR/filezilla.xml. state: a login later; waits for the state
of an upload, changes the password, adds and removes an SSH key, logs out. See --help for the rest.

Every page is loaded and every form is sent with JavaScript switched off. Each page and state has to have its address, HTTP
status, language, one h1 and a title, and no script; no violation of axe-core's default rules (desktop, phone, dark) and
nothing wider than the screen; and nothing in the browser's console, which tells of breaches of the Content-Security-Policy.

Exits 0 with `done` in the last line, else 1 with what is wrong; the page is then in DIR/failed.png. Debian packages:
chromium, chromium-driver, python3-selenium, openssh-client. axe.min.js: see fetch-axe.
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
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

STEP = 20  # seconds for one step
PATIENCE = 30  # seconds for the state of an upload
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage --no-proxy-server"
)
# Name, width, height, whether it is a phone, colour scheme. The first is how pages are met.
LOOKS = (("desktop", 1280, 900, False, "light"), ("phone", 390, 844, True, "light"), ("dark", 1280, 900, False, "dark"))
PROBE = "data:text/html,<title>off</title><script>document.title = 'on'</script>"
LINK = "/activate/…"
HOME_PASSWORD = "form[action='/home/password'] button"
HOME_KEYS = "form[action='/home/keys'] button"


class Failed(Exception):
    """Why the walk cannot go on."""


def need(condition, reason):
    if not condition:
        raise Failed(reason)


def until(what, reached, seconds):
    deadline = time.monotonic() + seconds
    while not reached():
        need(time.monotonic() < deadline, f"not within {seconds} s: {what}")
        time.sleep(0.2)


@contextlib.contextmanager
def chromium(language, home, downloads):
    """A browser without a past. Everything that it writes is below `home`, but for its downloads."""
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for flag in [*FLAGS.split(), f"--user-data-dir={home}/profile"]:
        options.add_argument(flag)
    languages = {"de": "de-DE,de", "en": "en-GB,en"}[language]
    preferences = {"intl.accept_languages": languages, "download.default_directory": str(downloads)}
    options.add_experimental_option("prefs", preferences)
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
        driver.get(PROBE)
        need(driver.title == "off", "JavaScript is on")

    def scripts(self, on):
        """Of pages; what this test itself runs in them goes on, but for what axe-core puts off to later."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not on})

    def look(self, width, height, phone, scheme):
        size = {"width": width, "height": height, "mobile": phone, "deviceScaleFactor": 1}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    # Steps.

    def open(self, address):
        self.driver.get(address if "://" in address else self.given.web + address)

    def leave(self, act):
        """Does what leads to another page, and waits for that page."""
        # Told by the time at which a page began: while pages change, elements of the old one answer with any error.
        now = "return [performance.timeOrigin, document.readyState]"
        begun = self.driver.execute_script(now)[0]
        what = f"not within {STEP} s: another page than {self.where()}"
        act()

        def is_there(driver):
            origin, ready = driver.execute_script(now)
            return origin != begun and ready == "complete"

        WebDriverWait(self.driver, STEP, 0.1, [WebDriverException]).until(is_there, what)
        need(self.all("footer"), f"{self.where()} is no page of the portal: {self.find('body').text}")

    def send(self, button, **fields):
        """Fills in a form and presses its button."""
        for name, text in fields.items():
            field = self.find(f"[name={name}]")
            field.clear()
            field.send_keys(text)
        self.leave(self.find(button).click)

    def keys(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    def log_in_by_keyboard(self):
        """From the top of the page, without a mouse: the link that skips the head, two fields, Enter."""
        self.open("/")
        self.keys(Keys.TAB)
        skips = self.driver.switch_to.active_element.get_attribute("href") or ""
        need(skips.endswith("#main"), "the first stop of the Tab key does not skip the head")
        self.keys(Keys.ENTER)
        self.keys(Keys.TAB, self.given.username, Keys.TAB, self.given.password)
        self.leave(lambda: self.keys(Keys.ENTER))

    def unfold(self):
        for summary in self.all("summary"):
            summary.click()

    # What is on the page.

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def find(self, selector):
        found = self.all(selector)
        need(found, f"nothing on {self.where()} is {selector}")
        return found[0]

    def where(self):
        """The address; a link's token is left out."""
        return re.sub(r"/activate/[^/?#]+", LINK, self.driver.current_url.removeprefix(self.given.web))

    def has(self, *texts):
        """Also in fields, and in a part that is folded up."""
        shown = self.find("main").get_attribute("textContent")
        shown += "\n".join(field.get_attribute("value") for field in self.all("input, textarea"))
        for text in texts:
            need(text in shown, f"{text!r} is not on {self.where()}: {self.find('main').text}")

    def says_yes(self):
        need(self.find("[role=status]").text, f"{self.where()} does not say what happened")

    def says_no(self):
        """In an alert, in the title, and at the fields in question."""
        need(self.find("[role=alert]").text, f"the alert on {self.where()} is empty")
        need(re.match("(Fehler|Error): ", self.driver.title), f"the title does not say so: {self.driver.title}")
        need(self.find("[aria-invalid]").get_attribute("aria-describedby"), "the field does not refer to the reason")

    # Checks.

    def meet(self, name, path, status=200):
        """Checks the page that the browser is on; `name` is for people and pictures."""
        self.met += 1
        print(f"{self.met:2} {name}: {self.driver.title}", flush=True)
        need(self.where() == path, f"{name}: at {self.where()} instead of {path}")
        found = self.driver.execute_script("return performance.getEntriesByType('navigation')[0].responseStatus")
        need(found == status, f"{name}: status {found} instead of {status}")
        language = self.find("html").get_attribute("lang")
        need(language == self.given.language, f"{name}: in the language {language}")
        need(self.driver.title and len(self.all("h1")) == 1, f"{name}: one title and one h1 are needed")
        need(not self.all("script"), f"{name}: there is a script")
        self.scripts(on=True)
        self.driver.execute_script(self.axe)
        for look in LOOKS:
            self.look(*look[1:])
            self.check_look(f"{name}, {look[0]}", width=look[1])
            if self.given.shots:
                file = f"{self.given.phase}-{self.met:02}-{name.replace(' ', '-')}-{self.given.language}-{look[0]}.png"
                self.shot(self.given.out / file)
        self.look(*LOOKS[0][1:])
        self.scripts(on=False)
        for entry in self.driver.get_log("browser"):
            # Chromium itself notes there when a page comes with the status of an error.
            own = f"the server responded with a status of {status} " in entry["message"] and status >= 400
            if not (own and entry["source"] == "network"):
                self.complaints.append(f"{name}: console: {entry['message']}")

    def check_look(self, name, width):
        wide = self.driver.execute_script("return document.documentElement.scrollWidth")
        if wide > width:
            self.complaints.append(f"{name}: {wide} pixels wide on a screen of {width}")
        script = "const end = arguments[0]; axe.run().then(end, error => end({error: String(error)}))"
        result = self.driver.execute_async_script(script)
        need("error" not in result, f"{name}: axe: {result.get('error')}")
        need(len(result["passes"]) > 10, f"{name}: axe has checked next to nothing")
        for violation in result["violations"]:
            for node in violation["nodes"]:
                why = " ".join(node["failureSummary"].split())
                self.complaints.append(f"{name}: axe: {violation['id']}: {node['html']}: {why}")

    def shot(self, path):
        """All of the page, however long it is."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        options = {"captureBeyondViewport": True, "clip": size | {"scale": 1}}
        image = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        path.write_bytes(base64.b64decode(image["data"]))


def activate(walk, given):
    save = "main form button"
    walk.open("/home")
    walk.meet("login", "/")
    walk.open("/no-such-page")
    walk.meet("not found", "/no-such-page", 404)
    walk.open("/activate/" + "A" * 43)
    walk.meet("unknown link", LINK, 404)
    walk.open("/link")
    walk.meet("ask for a link", "/link")
    # Nobody's name: all get the same answer, and no mail goes out.
    walk.send(save, username="nobody of this name")
    walk.meet("link is on its way", "/link")
    walk.says_yes()

    walk.open(given.link)
    walk.has(given.company, given.username)
    walk.unfold()
    walk.meet("set password", LINK)
    weak = "password1234"  # long enough, and refused all the same
    for name, password, repeat in (("passwords differ", given.password, weak), ("weak password", weak, weak)):
        walk.send(save, password=password, password_repeat=repeat)
        walk.meet(name, LINK, 422)
        walk.says_no()
        walk.has(given.company, given.username)
    walk.open(given.link)
    walk.send(save, password=given.password, password_repeat=given.password)
    walk.meet("led to the login", "/?notice=activated")
    walk.says_yes()
    walk.open(given.link)
    walk.meet("used link", LINK, 410)

    walk.open("/")
    walk.send(save, username=given.username, password=weak)
    walk.meet("wrong password", "/", 401)
    walk.says_no()
    walk.log_in_by_keyboard()
    walk.unfold()
    walk.meet("home", "/home")
    walk.has("SHA256:", *given.shows)
    file = given.out / "filezilla.xml"
    file.unlink(missing_ok=True)
    walk.find("a[href='/home/filezilla.xml']").click()
    until("the site file is downloaded", file.exists, STEP)
    servers = list(ElementTree.parse(file).iter("Server"))
    need(servers, "the site file has no server")
    for server in servers:
        walk.has(server.findtext("Host"), server.findtext("Port"))
        need(server.findtext("User") == given.username, "the site file has another user")
        need(server.find("Pass") is None, "the site file has a password")


def state(walk, given):
    def is_told():
        walk.open("/home")
        rows = [row.text for row in walk.all(".uploads > li")]
        return any(given.expect_file in row and given.expect_text in row for row in rows)

    walk.log_in_by_keyboard()
    until(f"{given.expect_file} is told as {given.expect_text!r}", is_told, PATIENCE)
    walk.has(*given.shows)
    walk.unfold()
    walk.meet("home with an upload", "/home")

    new = {"password": given.new_password, "password_repeat": given.new_password}
    walk.send(HOME_PASSWORD, current_password=given.new_password, **new)
    walk.meet("wrong current password", "/home/password", 422)
    walk.says_no()
    walk.send(HOME_PASSWORD, current_password=given.password, **new)
    walk.meet("password is changed", "/home?notice=password")
    walk.says_yes()

    key, fingerprint = ssh_key()
    walk.send(HOME_KEYS, key="ssh-ed25519 nothing")
    walk.meet("not a key", "/home/keys", 422)
    walk.says_no()
    walk.send(HOME_KEYS, key=key)
    walk.meet("key is added", "/home?notice=key-added")
    walk.says_yes()
    walk.has(fingerprint)
    walk.leave(walk.driver.find_element(By.XPATH, f"//li[contains(., '{fingerprint}')]//button").click)
    walk.meet("key is removed", "/home?notice=key-removed")
    walk.says_yes()
    need(fingerprint not in walk.find("main").text, "the removed key is still there")

    walk.send(".logout button")
    walk.meet("logged out", "/?notice=logged-out")
    walk.says_yes()
    walk.open("/home")
    walk.meet("home leads to the login", "/")
    walk.send("main form button", username=given.username, password=given.password)
    walk.meet("old password", "/", 401)


def ssh_key():
    """A new public key, and its fingerprint as OpenSSH tells it."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
        told = subprocess.run(["ssh-keygen", "-l", "-f", file], check=True, capture_output=True, text=True).stdout
        return Path(f"{file}.pub").read_text(encoding="ascii").strip(), told.split()[1]


def arguments():
    parser = argparse.ArgumentParser(description="Walks through the customers' pages with Chromium.")
    parser.add_argument("phase", choices=("activate", "state"))
    parser.add_argument("--web", required=True, help="base_url of the pages")
    parser.add_argument("--link", help="activate: from the mail")
    parser.add_argument("--company", default="", help="activate: the client's name, on the page of the link")
    parser.add_argument("--username", required=True)
    parser.add_argument("--password", required=True, help="activate: the one to set; state: the present one")
    parser.add_argument("--new-password", help="state: the one to change to")
    parser.add_argument("--expect-file", help="state: name of the upload")
    parser.add_argument("--expect-text", help="state: what has to stand beside it")
    parser.add_argument("--shows", action="append", default=[], metavar="TEXT", help="has to be on /home; repeatable")
    parser.add_argument("--language", choices=("de", "en"), default="de", help="of the browser and of the account")
    parser.add_argument("--axe", required=True, type=Path, help="axe.min.js")
    parser.add_argument("--out", required=True, type=Path, help="folder for what is kept")
    parser.add_argument("--shots", action="store_true", help="keep a picture of every page and look")
    given = parser.parse_args()
    needed = {"activate": ("link",), "state": ("new_password", "expect_file", "expect_text")}[given.phase]
    for name in needed:
        if getattr(given, name) is None:
            parser.error(f"{given.phase} needs --{name.replace('_', '-')}")
    given.out.mkdir(parents=True, exist_ok=True)
    given.out = given.out.resolve()
    return given


def run(walk, given):
    """What is wrong, in lines."""
    try:
        {"activate": activate, "state": state}[given.phase](walk, given)
    except (Failed, WebDriverException) as error:
        walk.complaints.append(getattr(error, "msg", None) or str(error) or type(error).__name__)
        with contextlib.suppress(WebDriverException):
            walk.shot(given.out / "failed.png")
    return walk.complaints


def main():
    # A termination is an exception, so that the browser is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = arguments()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        with chromium(given.language, home, given.out) as driver:
            wrong = run(Walk(driver, given), given)
    print("\n".join(wrong) or "done")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
