import ftplib, hashlib, io, os, socket, ssl, sys, time


def context(version=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    if version:
        c.minimum_version = c.maximum_version = version
    return c


class Reusing(ftplib.FTP_TLS):
    """ftplib resumes no session on data connections by itself."""

    def ntransfercmd(self, cmd, rest=None):
        conn, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        if self._prot_p:
            conn = self.context.wrap_socket(conn, server_hostname=self.host, session=self.sock.session)
        return conn, size


def portal(reuse=False, version=None, timeout=30, user=USER, password=PASSWORD, ctx=None):
    f = (Reusing if reuse else ftplib.FTP_TLS)(context=ctx or context(version), timeout=timeout, encoding="utf-8")
    f.connect("127.0.0.1", PORT)
    f.login(user, password)
    f.prot_p()
    return f


def raw(timeout=30):
    s = socket.create_connection(("127.0.0.1", PORT), timeout)
    s.settimeout(timeout)
    return s


class Lines:
    """A control connection by hand."""

    def __init__(self, sock):
        self.sock, self.rest = sock, b""

    def send(self, line):
        self.sock.sendall(line if isinstance(line, bytes) else line.encode() + b"\r\n")

    def line(self):
        while b"\n" not in self.rest:
            data = self.sock.recv(4096)
            if not data:
                return None
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode().rstrip("\r")

    def reply(self):
        line = self.line()
        if line is None:
            return None
        last = line
        while last[3:4] == "-" or not last[:3].isdigit():
            last = self.line()
        return line

    def ask(self, line):
        self.send(line)
        return self.reply()


def by_hand(version=None):
    """Logged in with PROT P, all by hand."""
    s = raw()
    c = Lines(s)
    c.reply()
    assert c.ask("AUTH TLS").startswith("234"), "AUTH"
    c.sock = context(version).wrap_socket(s)
    assert c.ask("USER " + USER).startswith("331"), "USER"
    reply = c.ask("PASS " + PASSWORD)
    assert reply.startswith("230"), reply
    c.ask("PBSZ 0")
    assert c.ask("PROT P").startswith("200"), "PROT"
    return c


def passive(c):
    reply = c.ask("EPSV")
    assert reply.startswith("229"), reply
    return int(reply.split("|")[3])


def data(c, port=None, tls=True, source=None):
    port = port or passive(c)
    s = socket.create_connection(("127.0.0.1", port), 30, source_address=(source, 0) if source else None)
    return s


def wrapped(c, s, session=True):
    return c.sock.context.wrap_socket(s, session=c.sock.session if session else None)


def refused(call, code):
    try:
        call()
    except ftplib.Error as error:
        assert str(error).startswith(code), (code, error)
        return str(error)
    raise AssertionError(f"was not refused with {code}")
