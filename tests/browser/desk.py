"""The operators' page in a real browser: desk.py BASE TOKEN AXE LANGUAGE HOME. Logs in, releases the held file, looks at each page with
axe-core on a desktop and a phone. Prints what it saw; ends with 1 at the first thing that is wrong."""

import contextlib
import json
import sys
import time

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

base, token, axe, language, home = sys.argv[1:]
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage --no-proxy-server"
)


def need(condition, reason):
    if not condition:
        sys.exit(f"desk.py: {reason}")


def until(holds, reason):
    """A click returns before the next page is there."""
    for _ in range(100):
        with contextlib.suppress(WebDriverException):
            if holds():
                return
        time.sleep(0.1)
    need(False, reason())


options = Options()
options.binary_location = "/usr/bin/chromium"
for flag in [*FLAGS.split(), f"--user-data-dir={home}/profile", f"--lang={language}"]:
    options.add_argument(flag)
options.add_experimental_option("prefs", {"intl.accept_languages": language})
browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def look(name):
    """No rule of axe-core is broken, and nothing is wider than the window."""
    for width, height in ((1280, 900), (390, 844)):
        browser.set_window_size(width, height)
        browser.execute_script(open(axe).read())
        found = browser.execute_async_script("const done = arguments[0]; axe.run().then(r => done(r.violations))")
        need(not found, f"{name} at {width}: {json.dumps([[v['id'], v['nodes'][0]['html']] for v in found])}")
        wide = browser.execute_script("return document.documentElement.scrollWidth > document.documentElement.clientWidth")
        need(not wide, f"{name} is wider than a window of {width}")
    browser.set_window_size(1280, 900)
    browser.save_screenshot(f"{home}/{name}.png")


def click(selector):
    browser.find_element(By.CSS_SELECTOR, selector).click()


def text():
    return browser.find_element(By.TAG_NAME, "main").text


try:
    browser.get(base + "/")
    until(lambda: browser.current_url.endswith("/login"), lambda: browser.current_url)
    look("login")
    browser.find_element(By.ID, "token").send_keys(token)
    click("main button[type=submit]")
    until(lambda: "geheim.pdf" in text(), text)
    look("board")
    click("#held td a")
    until(lambda: "PUA.Test.Doubtful" in text(), text)
    look("held")
    browser.find_element(By.ID, "reason").send_keys("angesehen")
    click("button[value=release]")
    until(lambda: all(word in text() for word in ("released", "browser-test", "angesehen")), text)
    look("released")
    browser.get(base + "/customers")
    browser.find_element(By.ID, "q").send_keys("söhne")
    click("main button[type=submit]")
    look("customers")
    click("tbody a")
    until(lambda: "wrong password" in text(), text)
    need(("nicht aktiv" if language == "de" else "inactive") in text(), text())
    look("customer")
    click("main p a")
    until(lambda: "geheim.pdf" in text() and "2026-0815" in text(), text)
    look("view")
    click("header form button")
    until(lambda: browser.current_url.endswith("/login"), lambda: browser.current_url)
    browser.get(base + "/")
    need(browser.current_url.endswith("/login"), "logged out, and still inside")
    print("seen")
finally:
    browser.quit()
