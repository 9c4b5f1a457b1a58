"""Customers who send files over both protocols, with the clients that customers have, until the file `stop` appears.

customers.py DIR COUNT. Each writes into the journal what it begins (`begin`) and what it saw in the end (`seen`: ok, refused
or lost), so that check.py can hold the server to it.
"""
import ftplib
import io
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time

import paramiko

from settings import DIR, MARKER, SETTINGS, Journal, sha

NOTES = Journal("customers")
COUNT = int(sys.argv[2])
SSH = ["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR", "-oConnectTimeout=5",
       "-oServerAliveInterval=5", "-oIdentitiesOnly=yes"]
LOST = (OSError, EOFError, ftplib.error_temp, ftplib.error_proto, ssl.SSLError, paramiko.SSHException)


def stopped():
    return (DIR / "stop").exists()


class Refused(Exception):
    pass


def close(session, file):
    """CLOSE with its answer. paramiko's own takes a refusal and a lost connection for success."""
    file.flush()
    file._closed = True
    session._request(paramiko.sftp.CMD_CLOSE, file.handle)


class Customer:
    def __init__(self, number):
        self.number = number
        self.account = SETTINGS["accounts"][number % len(SETTINGS["accounts"])]
        self.other = SETTINGS["accounts"][(number + 1) % len(SETTINGS["accounts"])]
        self.user, self.folder = self.account["user"], self.account["folder"]
        # The same draw for the same number; what the server does in between is never the same.
        self.rng = random.Random(number)
        self.made = 0
        self.sent = {}

    # The ways in: each gives the whole content a name, and returns what was seen.

    def by_sftp(self, path, content):
        source = DIR / "sources" / f"{self.number}.bin"
        source.write_bytes(content)
        said = subprocess.run(["sftp", *SSH, "-i", str(DIR / self.account["key"]), "-P", str(SETTINGS["port"]), "-b", "-",
                               f"{self.user}@127.0.0.1"], input=f'put "{source}" "{path}"\n', capture_output=True, text=True,
                              timeout=120)
        if said.returncode:
            raise Refused(said.stderr)

    def by_paramiko(self, path, content):
        with self.ssh() as s, s.open(path, "wb") as f:
            f.set_pipelined(True)
            f.write(content)
            close(s, f)

    def by_filepart(self, path, content):
        """As WinSCP does: a temporary name, then the final one."""
        with self.ssh() as s:
            with s.open(path + ".filepart", "wb") as f:
                f.write(content)
                close(s, f)
            # From here on it may be complete, also if the answer is lost.
            s.rename(path + ".filepart", path)

    def by_curl(self, path, content):
        source = DIR / "sources" / f"{self.number}.bin"
        source.write_bytes(content)
        # The password is no argument: it would stand in `ps`.
        said = subprocess.run(["curl", "-sS", "--ssl-reqd", "--insecure", "--connect-timeout", "5", "--max-time", "60", "-K", "-",
                               "-T", str(source), f"ftp://127.0.0.1:{SETTINGS['ftps_port']}{path}"],
                              input=f'user = "{self.user}:{self.account["password"]}"\n', capture_output=True, text=True,
                              timeout=120)
        if said.returncode:
            raise Refused(said.stderr)

    def by_lftp(self, path, content):
        source = DIR / "sources" / f"{self.number}.bin"
        source.write_bytes(content)
        script = ("set net:max-retries 1\nset net:timeout 20\nset ssl:verify-certificate no\nset ftp:ssl-force true\n"
                  "set ftp:ssl-protect-data true\nset cmd:fail-exit true\n"
                  f'open -u {self.user},"{self.account["password"]}" ftp://127.0.0.1:{SETTINGS["ftps_port"]}\n'
                  f'put "{source}" -o "{path}"\n')
        said = subprocess.run(["lftp"], input=script, capture_output=True, text=True, timeout=120)
        if said.returncode:
            raise Refused(said.stderr)

    def by_ftplib(self, path, content):
        f = self.ftps()
        try:
            f.storbinary("STOR " + path, io.BytesIO(content))
        finally:
            f.close()

    def ssh(self):
        t = paramiko.Transport(socket.create_connection(("127.0.0.1", SETTINGS["port"]), 10))
        t.banner_timeout = t.auth_timeout = 30
        try:
            t.connect(username=self.user, pkey=paramiko.Ed25519Key.from_private_key_file(str(DIR / self.account["key"])))
            s = paramiko.SFTPClient.from_transport(t)
        except BaseException:
            t.close()
            raise
        s.get_channel().settimeout(60)
        return Closing(s, t)

    def ftps(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        f = ftplib.FTP_TLS(context=context, timeout=60, encoding="utf-8")
        try:
            f.connect("127.0.0.1", SETTINGS["ftps_port"])
            f.login(self.user, self.account["password"])
            f.prot_p()
        except BaseException:
            f.close()
            raise
        return f

    # What a customer does.

    def content(self, n, inside=b""):
        """Says at its head whose it is, so that whatever arrives can be told."""
        size = self.rng.choice([0, 800, 9_000, 60_000, 60_000, 300_000, 2_500_000 if n % 8 == 0 else 20_000])
        return f"{self.user} {self.number} {n}\n".encode() + inside + self.rng.randbytes(size)

    def attempt(self, kind, way, path, content, **more):
        """One try, noted before and after. True if it was accepted."""
        protocol = "ftps" if way.__name__ in ("by_curl", "by_lftp", "by_ftplib") else "sftp"
        head = dict(who=self.user, kind=kind, way=way.__name__, protocol=protocol, path=path, sha=sha(content), size=len(content))
        NOTES.note(begin=True, **head, **more)
        seen, text = "ok", ""
        try:
            way(path, content)
        except (Refused, ftplib.error_perm) as error:
            seen, text = "refused", str(error)[-300:]
        except (*LOST, subprocess.TimeoutExpired) as error:
            # With a status of the server it is an answer, not a loss.
            seen = "refused" if type(error) is OSError and "cut off" not in str(error) else "lost"
            text = f"{type(error).__name__} {error}"[-300:]
        NOTES.note(seen=seen, text=text, **head, **more)
        return seen == "ok"

    def put(self, kind="put", path=None):
        """The same again until it is accepted, as people and scripts do; some give up."""
        n = self.made
        path = path or f"{self.folder}/{self.user}-{self.number}-{n}.bin"
        way = self.rng.choice([self.by_sftp, self.by_paramiko, self.by_filepart] if self.number % 2 == 0
                              else [self.by_curl, self.by_lftp, self.by_ftplib])
        content = self.content(n)
        while not self.attempt(kind, way, path, content):
            if stopped() or self.rng.random() < 0.05:
                return
            time.sleep(0.3)
        self.sent[path] = content

    def again(self):
        if self.sent:
            self.put("again", self.rng.choice(sorted(self.sent)))

    def virus(self):
        path = f"{self.folder}/{self.user}-{self.number}-{self.made}-virus.bin"
        way = self.by_paramiko if self.number % 2 == 0 else self.by_ftplib
        self.attempt("virus", way, path, self.content(self.made, MARKER))

    def broken(self):
        """The connection goes in the middle; half of them go on later."""
        path = f"{self.folder}/{self.user}-{self.number}-{self.made}-abbruch.bin"
        content = self.content(self.made, b"x" * 40_000)
        half = len(content) // 2
        self.attempt("broken", self.half_sftp if self.number % 2 == 0 else self.half_ftps, path, content[:half])
        if self.rng.random() < 0.5:
            time.sleep(0.5)
            self.attempt("put", self.rest_sftp if self.number % 2 == 0 else self.rest_ftps, path, content)

    def half_sftp(self, path, content):
        with self.ssh() as s, s.open(path, "wb") as f:
            f.set_pipelined(False)
            f.write(content)
            s.transport.sock.shutdown(socket.SHUT_RDWR)
            raise OSError("cut off on purpose")

    def half_ftps(self, path, content):
        f = self.ftps()
        try:
            data = f.transfercmd("STOR " + path)
            data.sendall(content)
            # Without close_notify.
            socket.socket.shutdown(data, socket.SHUT_RDWR)
            data.close()
            f.voidresp()
        finally:
            f.close()

    def rest_sftp(self, path, content):
        with self.ssh() as s:
            at = s.stat(path).st_size
            with s.open(path, "r+b") as f:
                f.seek(at)
                f.write(content[at:])
                close(s, f)

    def rest_ftps(self, path, content):
        f = self.ftps()
        try:
            f.voidcmd("TYPE I")
            at = f.size(path)
            f.storbinary("STOR " + path, io.BytesIO(content[at:]), rest=at)
        finally:
            f.close()

    def spy(self):
        """Nothing of another customer is there."""
        theirs = self.other["folder"]
        found = []
        with self.ssh() as s:
            for look in (s.stat, s.listdir, lambda p: s.open(p + "/x", "wb").close(), s.rmdir):
                try:
                    look(theirs)
                    found.append(str(look))
                except OSError:
                    if s.transport.is_active() is False:
                        raise
            listed = s.listdir("/")
            names = s.listdir(self.folder)
        strange = [n for n in names if n != "Status.txt" and not n.startswith(self.user + "-")]
        NOTES.note(who=self.user, kind="spy", seen="ok", found=found + strange,
                   listed=[n for n in listed if n not in ("Status.txt", self.folder.strip("/").split("/")[0])])

    def back(self):
        """What was accepted reads back as it was, once it is released."""
        if not self.sent:
            return
        path = self.rng.choice(sorted(self.sent))
        with self.ssh() as s:
            try:
                with s.open(path, "rb") as f:
                    content = f.read()
            except OSError as error:
                if not s.transport.is_active():
                    raise
                NOTES.note(who=self.user, kind="back", seen="refused", path=path, text=str(error))
                return
        NOTES.note(who=self.user, kind="back", seen="ok", path=path, sha=sha(content))

    def work(self):
        doings = [self.put] * 12 + [self.again] * 2 + [self.virus] * 2 + [self.broken] * 3 + [self.spy, self.back, self.back]
        while not stopped():
            self.made += 1
            try:
                self.rng.choice(doings)()
            except (*LOST, subprocess.TimeoutExpired):
                time.sleep(0.3)
            except Exception as error:
                NOTES.note(who=self.user, kind="broken program", seen="bug", text=repr(error))
                raise
            time.sleep(self.rng.random() * SETTINGS["pause"])


class Closing:
    """An SFTP session that closes its connection too."""

    def __init__(self, session, transport):
        self.session, self.transport = session, transport

    def __enter__(self):
        self.session.transport = self.transport
        return self.session

    def __exit__(self, *_):
        self.transport.close()


(DIR / "sources").mkdir(exist_ok=True)
threads = [threading.Thread(target=Customer(n).work) for n in range(COUNT)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os._exit(0)
