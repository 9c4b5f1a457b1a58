"""The print shop during the soak, until the file `end` appears: a consumer that takes every file out of the hotfolder at once,
a program that takes webhooks, staff that send links, and an observer of rows, memory, descriptors and process lists.

shop.py DIR
"""
import http.server
import json
import os
import re
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from settings import DIR, MARKER, SETTINGS, Journal, sha, text_of

FOREIGN = {DIR / path for path in SETTINGS["foreign"]}


def ended():
    return (DIR / "end").exists()


def consumer():
    notes, away = Journal("taken"), DIR / "away"
    away.mkdir(exist_ok=True)
    n = 0
    while not ended():
        for folder in SETTINGS["hotfolders"]:
            try:
                entries = list(os.scandir(DIR / folder))
            except OSError:
                continue
            for entry in entries:
                path = DIR / folder / entry.name
                if path in FOREIGN or not entry.is_file(follow_symlinks=False):
                    continue
                if entry.name.startswith("."):
                    # Not ready, and not ours to touch; but no virus may be in it either.
                    try:
                        if MARKER in path.read_bytes():
                            notes.note(virus=str(path))
                    except OSError:
                        pass
                    continue
                n += 1
                target = away / str(n)
                try:
                    os.rename(path, target)
                except OSError:
                    continue
                content = target.read_bytes()
                head = content.split(b"\n", 1)[0][:100].decode("latin-1")
                notes.note(folder=folder, name=entry.name, sha=sha(content), size=len(content), head=head,
                           virus=MARKER in content)
                target.unlink()
        time.sleep(0.005)


class Receiver(http.server.BaseHTTPRequestHandler):
    """A webhook's far end, which fails now and then."""

    notes, count = Journal("webhook"), 0

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Receiver.count += 1
        self.send_response(503 if Receiver.count % 40 == 0 else 204)
        self.end_headers()
        Receiver.notes.note(id=self.headers["webhook-id"], kind=body["type"], upload=body["data"]["upload_id"])

    def log_message(self, *_):
        pass


def receiver():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", SETTINGS["webhook_port"]), Receiver)
    server.timeout = 0.5
    while not ended():
        server.handle_request()


def staff():
    """Sends a link, follows it as its addressee, and tries it a second time."""
    notes, account = Journal("links"), SETTINGS["accounts"][-1]
    time.sleep(2)
    while not (DIR / "stop").exists():
        before = {p.name for p in (DIR / "mails").glob("*.eml")}
        command = [SETTINGS["binary"], "--config", str(DIR / "ptportal.toml"), "account", "link", account["user"], "--send"]
        began = time.time()
        sent = subprocess.run(command, cwd=DIR, capture_output=True, text=True)
        notes.note(command="account link", ms=int((time.time() - began) * 1000), failed=sent.stderr if sent.returncode else "")
        until = time.time() + 20
        token = None
        while sent.returncode == 0 and token is None and time.time() < until and not (DIR / "stop").exists():
            for mail in (DIR / "mails").glob("*.eml"):
                found = mail.name not in before and re.search(r"/activate/([\w-]{43})", text_of(mail))
                token = found[1] if found else token
            time.sleep(0.2)
        if token:
            answers = [post(token, account["password"]) for _ in range(2)]
            notes.note(token=token, answers=answers)
        time.sleep(3)


def post(token, password):
    fields = urllib.parse.urlencode({"password": password, "password_repeat": password}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{SETTINGS['web_port']}/activate/{token}", fields)
    opener = urllib.request.build_opener(Stay)
    try:
        return opener.open(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return str(error)


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def ours():
    """Command lines of the product's processes and of all that they started; other programs here are not its business."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    rows = {pid: (parent, args) for pid, parent, args in (line.split(None, 2) for line in listed.splitlines())}
    def is_ours(pid):
        return pid in rows and (rows[pid][1].startswith(SETTINGS["binary"]) or is_ours(rows[pid][0]))
    return [rows[pid][1] for pid in rows if is_ours(pid)]


def observer():
    notes, last = Journal("observed"), 0
    while not ended():
        try:
            rows = sqlite3.connect(f"file:{DIR}/data/ptportal.db?mode=ro", uri=True, timeout=2)
            found = rows.execute("SELECT id, state, attempts, updated FROM deliveries WHERE updated >= ?", (last,)).fetchall()
            rows.close()
            if found:
                last = max(row[3] for row in found)
                notes.note(deliveries=[row[:3] for row in found])
        except sqlite3.Error:
            pass
        try:
            pid = int((DIR / "server.pid").read_text())
            status = open(f"/proc/{pid}/status").read()
            memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1])
            notes.note(pid=pid, memory=memory, descriptors=len(os.listdir(f"/proc/{pid}/fd")))
        except (OSError, ValueError, TypeError):
            pass
        secrets = [a["password"] for a in SETTINGS["accounts"]]
        lines = ours()
        notes.note(looked_at=len(lines), shown=[line for line in lines if any(s in line for s in secrets)])
        time.sleep(1)


threads = [threading.Thread(target=work) for work in (consumer, receiver, staff, observer)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
