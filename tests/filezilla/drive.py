#!/usr/bin/env python3
"""Drives the real FileZilla against an FTPS server (explicit TLS): it connects from a site file, lists a folder, uploads a file
into it and ends.

    drive.py HOST PORT USER PASSWORD CERTIFICATE_PEM LOCAL_FILE REMOTE_FOLDER SCRATCH_DIR [--screenshot FILE]

Prints FileZilla's own log. Exits 0 when the folder was listed, the upload was answered with 226, FileZilla called it successful
and could be ended with Ctrl+Q like any user ends it; exits 1 when it was not so within a minute.

Nothing is clicked and nothing is at a place on the screen. Everything FileZilla has to know is in its configuration before it
starts, the transfer too: it waits in the queue that FileZilla keeps between two runs. One key stroke, Ctrl+P ("process queue"),
sets it off, and a second one ends the program. No window manager is needed.

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
import time
from pathlib import Path
from xml.sax.saxutils import escape

LIMIT = 60.0  # seconds for everything up to the successful upload
STROKE_AGAIN = 5.0  # seconds until a key stroke without effect is repeated
SITE = "ptportal"
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """Why the test has failed, in one line."""


def file_zilla_path(folder):
    """A remote folder in FileZilla's own notation: type (1 = Unix), length of the prefix (none), then length and name each."""
    names = [name for name in folder.split("/") if name]
    return " ".join(["1 0"] + [f"{len(name)} {name}" for name in names])


def write_configuration(config, given, log):
    """Writes what keeps FileZilla from asking anything, and the site and the transfer."""
    config.mkdir(parents=True)
    settings = {
        # A greeting newer than any FileZilla: no welcome window.
        "Greeting version": "99.0.0",
        "Greeting resources": "",
        "Update Check": "0",
        "Disable update footer": "1",
        "Logging file": str(log),
        "Logging filesize limit": "0",
        # Replies and commands are always there; level 2 adds TLS versions, ciphers and whether a session was resumed.
        "Logging Debug Level": given.debug,
        "Timeout": "20",
        # One try: a test wants the first error, not the third.
        "Reconnect count": "0",
        # The site's own connection may be used for nothing else, so that the transfer needs a connection of its own, as with any
        # second transfer of a user. Existing files are overwritten without a question (0 asks, 1 overwrites).
        "File exists action upload": "1",
        "Default file exists action": "1",
        # Nothing pops up, rings or shuts down when the queue is done.
        "Queue completion action": "0",
        "Last local directory": str(given.local_file.parent),
        "Window position and size": "0 0 0 1280 900 0",
    }
    rows = "".join(f'<Setting name="{name}">{escape(value)}</Setting>\n' for name, value in settings.items())
    write(config / "filezilla.xml", f"<Settings>\n{rows}</Settings>")

    # The certificate is trusted for this host and port as if a user had ticked "always trust". The times are only those after
    # which FileZilla forgets the entry.
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
        f"<SyncBrowsing>0</SyncBrowsing>{SITE}</Server></Servers>",
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


def main():
    raise SystemExit("todo")
