#!/usr/bin/env python3
"""Drives the real FileZilla against an FTPS server (explicit TLS): it connects from a site file, lists a folder,
uploads a file into it, lists the folder again and ends.

    drive.py HOST PORT USER PASSWORD CERTIFICATE_PEM LOCAL_FILE REMOTE_FOLDER SCRATCH_DIR [--screenshot FILE] [--debug]

Prints FileZilla's own log. Exits 0 when the upload was answered with 226, FileZilla called it successful, the new
listing has the file with its size, every data connection resumed the TLS session, FileZilla said no "Error:" and ended
on Ctrl+Q as for any user. Exits 1 with the reason in the last line when it was not so within a minute.

Nothing is clicked, and nothing depends on where it is on the screen. What FileZilla has to know is in its
configuration before it starts, the transfer too: it waits in the queue that FileZilla keeps between two runs. One key
stroke, Ctrl+P ("Process Queue"), sets it off; F5 lists again; Ctrl+Q ends. Every step waits for the line in FileZilla's
log that tells of it, never for a time. No window manager is needed.

Debian packages: filezilla, xvfb, xdotool; scrot for --screenshot.
"""

import argparse
import base64
import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path
from xml.sax.saxutils import escape

LIMIT = 60.0  # seconds for all of it
AGAIN = 5.0  # seconds after which a key stroke that has changed nothing is repeated
SITE = "ptportal"
SCREEN = "1280x960x24"
PROGRAMS = ("filezilla", "Xvfb", "xdotool")

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """Why the test has failed, in one line."""


def file_zilla_path(folder):
    """A remote folder in FileZilla's own notation: type (1: Unix), length of the prefix, length and name each."""
    return " ".join(["1 0"] + [f"{len(name)} {name}" for name in names(folder)])


def names(folder):
    return [name for name in folder.split("/") if name]


def write_configuration(config, given, log):
    """Writes what keeps FileZilla from asking anything, and the site and the transfer."""
    config.mkdir(parents=True)
    settings = {
        # A greeting newer than any FileZilla: no welcome window.
        "Greeting version": "99.0.0",
        "Update Check": "0",
        # What this test reads: commands and replies are always in the file; added are the listings as they came and,
        # from level 2 on, what became of each TLS handshake. Level 4 is all there is.
        "Logging file": str(log),
        "Logging filesize limit": "0",
        "Logging Raw Listing": "1",
        "Logging Debug Level": "4" if given.debug else "2",
        # One try, not three: the first error is the one of interest.
        "Reconnect count": "0",
        "Timeout": "20",
        # A file that is already there is overwritten without a question.
        "File exists action upload": "1",
        # Nothing rings, pops up or is shut down when the queue is done.
        "Queue completion action": "0",
    }
    rows = "".join(f'<Setting name="{key}">{escape(value)}</Setting>\n' for key, value in settings.items())
    write(config / "filezilla.xml", f"<Settings>\n{rows}</Settings>")

    # The certificate is trusted for this host and port as if a user had ticked "always trust". The times are only those
    # outside of which FileZilla forgets the entry.
    der = ssl.PEM_cert_to_DER_cert(first_certificate(given.certificate))
    now = int(time.time())
    write(
        config / "trustedcerts.xml",
        f"<TrustedCerts><Certificate><Data>{der.hex()}</Data><ActivationTime>{now - 86400}</ActivationTime>"
        f"<ExpirationTime>{now + 86400}</ExpirationTime><Host>{escape(given.host)}</Host><Port>{given.port}</Port>"
        "<TrustSANs>0</TrustSANs></Certificate></TrustedCerts>",
    )

    # Protocol 4: FTP over explicit TLS, required. Logontype 1: normal, the password is stored.
    password = base64.b64encode(given.password.encode()).decode()
    remote = file_zilla_path(given.remote_folder)
    write(
        config / "sitemanager.xml",
        f"<Servers><Server><Host>{escape(given.host)}</Host><Port>{given.port}</Port><Protocol>4</Protocol><Type>0</Type>"
        f'<User>{escape(given.user)}</User><Pass encoding="base64">{password}</Pass><Logontype>1</Logontype>'
        f"<EncodingType>Auto</EncodingType><BypassProxy>0</BypassProxy><Name>{SITE}</Name>"
        f"<LocalDir>{escape(str(given.local_file.parent))}</LocalDir><RemoteDir>{escape(remote)}</RemoteDir>"
        f"{SITE}</Server></Servers>",
    )
    write_queue(config / "queue.sqlite3", given, remote)


def write(path, body):
    path.write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n<FileZilla3>\n{body}\n</FileZilla3>\n', encoding="utf-8")


def first_certificate(path):
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", path.read_text(), re.DOTALL)
    if found is None:
        raise Failed(f"no certificate in {path}")
    return found.group(0)


def write_queue(path, given, remote):
    """One upload in FileZilla's queue file (layout 7; a newer FileZilla adds its columns itself)."""
    local = str(given.local_file.parent).rstrip("/") + "/"
    with contextlib.closing(sqlite3.connect(path)) as queue, queue:
        queue.executescript(
            """
            CREATE TABLE servers (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, host TEXT NOT NULL, port INTEGER, user TEXT,
                password TEXT, account TEXT, keyfile TEXT, protocol INTEGER, type INTEGER, logontype INTEGER,
                timezone_offset INTEGER, transfer_mode TEXT, max_connections INTEGER, encoding TEXT, bypass_proxy INTEGER,
                post_login_commands TEXT, name TEXT, parameters TEXT, site_path TEXT DEFAULT NULL);
            CREATE TABLE files (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, server INTEGER NOT NULL, source_file TEXT,
                target_file TEXT, local_path INTEGER, remote_path INTEGER, size INTEGER, error_count INTEGER, priority INTEGER,
                flags INTEGER, default_exists_action INTEGER, extra_flags TEXT);
            CREATE INDEX server_index ON files (server);
            CREATE TABLE local_paths (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, path TEXT NOT NULL);
            CREATE TABLE remote_paths (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, path TEXT NOT NULL);
            PRAGMA user_version = 7;
            """
        )
        queue.execute(
            "INSERT INTO servers (id, host, port, user, password, protocol, type, logontype, timezone_offset, encoding,"
            " bypass_proxy, name, site_path) VALUES (1, ?, ?, ?, ?, 4, 0, 1, 0, 'Auto', 0, ?, ?)",
            (given.host, given.port, given.user, given.password, SITE, f"0/{SITE}"),
        )
        queue.execute("INSERT INTO local_paths VALUES (1, ?)", (local,))
        queue.execute("INSERT INTO remote_paths VALUES (1, ?)", (remote,))
        # Priority 2 is normal; no flag means an upload.
        queue.execute(
            "INSERT INTO files (server, source_file, target_file, local_path, remote_path, size, priority, flags)"
            " VALUES (1, ?, ?, 1, 1, ?, 2, 0)",
            (given.local_file.name, given.local_file.name, given.local_file.stat().st_size),
        )


def die_with_parent():
    """Has the kernel end a child when this program is killed in a way that it cannot clean up after."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def started(command, **options):
    """A child in a process group of its own. The group is gone when the block is left, however that happens."""
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent, **options
    )
    try:
        yield child
    finally:
        # Asked first: Xvfb then takes its socket away. Whatever is still in the group after that is killed.
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def display_number(x_server, pipe, deadline):
    """What Xvfb writes when it accepts clients: the number of the free display that it has found."""
    text = b""
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(pipe, 16) if ready else b""
        if not part:
            raise Failed(f"Xvfb does not start (exit code {x_server.poll()})")
        text += part
    return int(text)


class Log:
    """FileZilla's log file. A line is: date, time, process, connection, kind of message, colon, text."""

    LINE = re.compile(r"\S+ \S+ \d+ (\d+) (\w+):\s(.*)")

    def __init__(self, path):
        self.path = path

    def text(self):
        with contextlib.suppress(FileNotFoundError):
            return self.path.read_text(encoding="utf-8", errors="replace")
        return ""

    def lines(self):
        """(connection, kind, text) of each line that is complete."""
        whole, _, _ = self.text().rpartition("\n")
        return [found.groups() for found in map(self.LINE.match, whole.split("\n")) if found]


class Drive:
    """A running FileZilla, its log and its keyboard."""

    def __init__(self, process, log, environment, deadline):
        self.process = process
        self.log = log
        self.environment = environment
        self.deadline = deadline

    def wait(self, what, reached, stroke=None):
        """Waits until `reached` is true of the log's lines. Presses `stroke` first, and again as long as it has begun
        nothing that FileZilla tells in a status line: a window that is not ready yet loses keys. Not more often: a second
        Ctrl+P would stop the queue again."""
        before = len(self.log.lines())
        pressed = None
        while True:
            if stroke and (pressed is None or time.monotonic() > pressed + AGAIN):
                begun = any(kind == "Status" for _, kind, _ in self.log.lines()[before:])
                if pressed is None or not begun:
                    self.press(stroke)
                    pressed = time.monotonic()
            ended = self.process.poll()
            lines = self.log.lines()
            for _, kind, text in lines:
                if kind == "Error":
                    raise Failed(f"FileZilla says: {text}")
            if reached(lines, before):
                return
            if ended is not None:
                raise Failed(f"FileZilla ended by itself with {ended} before: {what}")
            if time.monotonic() > self.deadline:
                raise Failed(f"not within {LIMIT:.0f} s: {what}; open windows: {self.titles()}")
            time.sleep(0.1)

    def end(self):
        """Ctrl+Q, as a user ends it: no window may hold it up."""
        pressed = None
        while self.process.poll() is None:
            if pressed is None or time.monotonic() > pressed + AGAIN:
                self.press("ctrl+q")
                pressed = time.monotonic()
            if time.monotonic() > self.deadline:
                raise Failed(f"FileZilla does not end on Ctrl+Q; open windows: {self.titles()}")
            time.sleep(0.1)
        if self.process.returncode != 0:
            raise Failed(f"FileZilla ended with {self.process.returncode}")

    def press(self, stroke):
        """Without a window manager nobody gives the window the keyboard, so that is done here. A stroke that found no
        window is none; the caller repeats it."""
        found = self.run("xdotool", "search", "--onlyvisible", "--name", "FileZilla$")
        for window in found.split()[:1]:
            self.run("xdotool", "windowfocus", window, "key", "--clearmodifiers", stroke)

    def titles(self):
        """A question that FileZilla asks is in a window of its own."""
        return self.run("xdotool", "search", "--onlyvisible", "--name", ".", "getwindowname", "%@").splitlines()

    def screenshot(self, path):
        """The log is ahead of what is painted, hence the moment of patience."""
        time.sleep(1.5)
        self.run("scrot", "--overwrite", str(path))

    def run(self, *command):
        try:
            done = subprocess.run(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"{command[0]}: {error}", file=sys.stderr)
            return ""
        return done.stdout


def listed(folder):
    """This folder was listed: when a site's folder is not there, FileZilla lists another one and says no error."""
    message = ("Status", f'Directory listing of "{folder}" successful')

    def reached(lines, before):
        return any((kind, text) == message for _, kind, text in lines[before:])

    return reached


def uploaded(name):
    """STOR of the file, 226 as the last reply on that connection, and FileZilla's own verdict."""

    def reached(lines, _):
        stored = None
        answered = False
        for connection, kind, text in lines:
            if kind == "Command" and text == f"STOR {name}":
                stored = connection
            elif connection == stored and kind == "Response":
                answered = text.startswith("226")
            elif connection == stored and kind == "Status" and text.startswith("File transfer successful"):
                return answered
        return False

    return reached


def check_listing(lines, name, size):
    """The file in the last listing as the server sent it: `type=file;size=5;modify=...; name`."""
    wanted = unicodedata.normalize("NFC", name)
    for _, kind, text in reversed(lines):
        if kind != "Listing":
            continue
        facts, _, listed_name = text.partition(" ")
        if unicodedata.normalize("NFC", listed_name) == wanted:
            if f"size={size};" not in facts.lower():
                raise Failed(f"the listing has another size than {size}: {text}")
            return
    raise Failed(f"{name} is not in the listing")


def check_sessions(lines):
    """FileZilla tries to resume the control connection's TLS session for each data connection, of which there are three."""
    traces = [text for _, kind, text in lines if kind == "Trace"]
    tried = sum(text.startswith("Trying to resume") for text in traces)
    resumed = sum(text.startswith("TLS Session resumed") for text in traces)
    if tried < 3 or resumed != tried:
        raise Failed(f"{resumed} of {tried} data connections resumed the TLS session")


def drive(given, folder, log):
    needed = PROGRAMS + (("scrot",) if given.screenshot else ())
    missing = [program for program in needed if shutil.which(program) is None]
    if missing:
        raise Failed(f"not installed: {', '.join(missing)}")
    home = folder / "home"
    write_configuration(home / ".config" / "filezilla", given, log.path)
    deadline = time.monotonic() + LIMIT
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(home),
        "TMPDIR": str(folder),
        # English messages, because they are looked for; UTF-8 names of files.
        "LC_ALL": "C.UTF-8",
        # Without it FileZilla drops the settings for raw listings and debug messages when it starts.
        "FZDEBUG": "1",
        # GTK must neither look for a session bus nor start one, which would stay behind.
        "DBUS_SESSION_BUS_ADDRESS": "disabled:",
        "NO_AT_BRIDGE": "1",
        "GIO_USE_VFS": "local",
        "GSETTINGS_BACKEND": "memory",
    }
    if "TZ" in os.environ:
        environment["TZ"] = os.environ["TZ"]
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(open(folder / "output", "wb"))
        read_end, write_end = os.pipe()
        stack.callback(os.close, read_end)
        x_server = stack.enter_context(
            started(
                ["Xvfb", "-displayfd", str(write_end), "-screen", "0", SCREEN, "-nolisten", "tcp", "-noreset"],
                pass_fds=[write_end],
                env=environment,
                stdout=output,
                stderr=output,
            )
        )
        os.close(write_end)
        environment["DISPLAY"] = f":{display_number(x_server, read_end, deadline)}"
        process = stack.enter_context(
            started(["filezilla", f"--site=0/{SITE}"], env=environment, stdout=output, stderr=output)
        )
        window = Drive(process, log, environment, deadline)
        name = given.local_file.name
        remote = "/" + "/".join(names(given.remote_folder))
        try:
            window.wait(f"connected and {remote} listed", listed(remote))
            window.wait("uploaded", uploaded(name), stroke="ctrl+p")
            window.wait(f"{remote} listed again", listed(remote), stroke="F5")
            check_listing(log.lines(), name, given.local_file.stat().st_size)
            check_sessions(log.lines())
        finally:
            if given.screenshot:
                window.screenshot(given.screenshot)
        window.end()


def arguments():
    parser = argparse.ArgumentParser(description="Drives FileZilla against an FTPS server: list, upload, list, end.")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("user")
    parser.add_argument("password")
    parser.add_argument("certificate", type=Path, help="PEM file; its first certificate is trusted for HOST and PORT")
    parser.add_argument("local_file", type=Path)
    parser.add_argument("remote_folder", help="such as /2026-0815/Eingehend")
    parser.add_argument("scratch", type=Path, help="folder for FileZilla's home; all of it is removed at the end")
    parser.add_argument("--screenshot", type=Path, help="PNG of the window after the last step, also of a failed one")
    parser.add_argument("--debug", action="store_true", help="let FileZilla log all it can")
    given = parser.parse_args()
    given.local_file = given.local_file.resolve(strict=True)
    given.screenshot = given.screenshot and given.screenshot.resolve()
    return given


def main():
    # A termination is an exception, so that everything is cleaned up after it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    given = arguments()
    given.scratch.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="filezilla-", dir=given.scratch.resolve()) as folder:
        log = Log(Path(folder) / "log")
        reason = None
        try:
            drive(given, Path(folder), log)
        except (Failed, OSError, sqlite3.Error) as failed:
            reason = str(failed)
        print(log.text(), end="")
        if reason and not log.text():
            print((Path(folder) / "output").read_text(errors="replace"), end="")
    print(f"{'FAILED: ' + reason if reason else 'ok'} ({time.monotonic() - start:.1f} s)")
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
