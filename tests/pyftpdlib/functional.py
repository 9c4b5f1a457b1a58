#!/usr/bin/env python3
# Adapted from tests/test_functional.py and tests/test_functional_ssl.py of pyftpdlib 2.2.0
# (https://github.com/giampaolo/pyftpdlib). What was left out or changed stands in README.md.
#
# MIT License
#
# Copyright (c) 2007 Giampaolo Rodola'
#
# Permission is hereby granted, free of charge, to any person obtaining a copy of
# this software and associated documentation files (the "Software"), to deal in
# the Software without restriction, including without limitation the rights to
# use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies
# of the Software, and to permit persons to whom the Software is furnished to do
# so, subject to the following conditions:
#
# The above copyright notice and this permission notice shall be included in all
# copies or substantial portions of the Software.
#
# THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
# IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
# FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
# AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
# LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
# OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
# SOFTWARE.
"""pyftpdlib's functional tests against a running ptportal, as a client sees it.

Comments that begin with "ptportal:" tell where an expectation is not pyftpdlib's, and why.
"""

import calendar
import contextlib
import ftplib
import io
import os
import re
import socket
import ssl
import struct
import time
import unittest
import uuid
import warnings

HOST = os.environ.get("PTPORTAL_HOST", "127.0.0.1")
PORT = int(os.environ.get("PTPORTAL_PORT", "2121"))
USER = os.environ.get("PTPORTAL_USER", "acme")
PASSWORD = os.environ.get("PTPORTAL_PASSWORD", "")
FOLDER = os.environ.get("PTPORTAL_FOLDER", "/2026-0815/Eingehend").rstrip("/")

# Seconds. No reply of a healthy server takes that long.
TIMEOUT = 10
BUFSIZE = 1024
INTERRUPTED_TRANSF_SIZE = 32768

# TELNET "interpret as command", "interrupt process", "data mark" (RFC 854).
IAC, IP, DM = b"\xff", b"\xf4", b"\xf2"

# Wrong passwords on one connection until the server hangs up.
WRONG_PASSWORDS_MAX = 6

# What ftplib raises on a connection that the server has ended.
SOCKET_ENDS = (OSError, EOFError)


def fresh(prefix="pyftpdlib"):
    return f"{prefix}-{uuid.uuid4().hex}"


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class FTPSClient(ftplib.FTP_TLS):
    """An FTP_TLS that secures the data connection after login(), and can resume TLS sessions for it."""

    resumes = False

    def login(self, *args, **kwargs):
        resp = super().login(*args, **kwargs)
        self.prot_p()
        return resp

    def ntransfercmd(self, cmd, rest=None):
        if not self.resumes:
            return super().ntransfercmd(cmd, rest)
        conn, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        session = self.sock.session
        conn = self.context.wrap_socket(conn, server_hostname=self.host, session=session)
        return conn, size


class TestCase(unittest.TestCase):
    """A connection per test; nothing is shared."""

    tls_version = None
    resumes = False

    def connect(self, client_class=FTPSClient):
        """Connected, not logged in."""
        context = tls_context()
        if self.tls_version is not None:
            context.minimum_version = context.maximum_version = self.tls_version
        client = client_class(context=context, timeout=TIMEOUT, encoding="utf-8")
        client.resumes = self.resumes
        client.connect(HOST, PORT)
        self.addCleanup(client.close)
        return client

    def enter(self):
        """Logged in, with a fresh empty folder as working folder."""
        self.client = self.connect()
        self.client.login(USER, PASSWORD)
        self.folder = f"{FOLDER}/{fresh()}"
        self.client.mkd(self.folder)
        self.client.cwd(self.folder)

    def reply(self, cmd, client=None):
        """The reply to a command, also if it is an error."""
        client = client or self.client
        client.putcmd(cmd)
        return client.getmultiline()

    def assert_reply(self, cmd, *codes, client=None):
        resp = self.reply(cmd, client)
        self.assertIn(resp[:3], codes, f"{cmd!r}: {resp!r}")
        return resp

    @contextlib.contextmanager
    def refused(self, *codes):
        with self.assertRaises(ftplib.Error) as caught:
            yield
        self.assertIn(str(caught.exception)[:3], codes, str(caught.exception))

    def assert_disconnected(self, client=None):
        client = client or self.client
        client.sock.settimeout(TIMEOUT)
        with self.assertRaises(SOCKET_ENDS) as caught:
            client.sendcmd("noop")
        self.assertNotIsInstance(caught.exception, TimeoutError)

    def store(self, name, data=b"", cmd="stor"):
        return self.client.storbinary(f"{cmd} {name}", io.BytesIO(data))

    def retrieve(self, name, client=None):
        received = io.BytesIO()
        (client or self.client).retrbinary(f"retr {name}", received.write)
        return received.getvalue()

    def assert_same(self, found, expected):
        """Like assertEqual, without a megabyte in the message."""
        self.assertEqual(len(found), len(expected))
        self.assertTrue(found == expected, "the bytes differ")

    def names(self, cmd="nlst"):
        lines = []
        self.client.retrlines(cmd, lines.append)
        return lines


# =====================================================================
# --- plain FTP tests, all of them over TLS
# =====================================================================


class TestFtpAuthentication(TestCase):
    """Test: USER, PASS."""

    def setUp(self):
        self.client = self.connect()

    def assert_auth_failed(self, user, passwd):
        with self.refused("530"):
            self.client.login(user, passwd)

    def test_auth_ok(self):
        self.client.login(USER, PASSWORD)

    # ptportal: there are no anonymous accounts.
    def test_anon_auth(self):
        self.assert_auth_failed("anonymous", "anon@")
        self.assert_auth_failed("anonymous", "")

    def test_auth_failed(self):
        self.assert_auth_failed(USER, "wrong")
        self.assert_auth_failed("wrong", PASSWORD)
        self.assert_auth_failed("wrong", "wrong")
        # not tested by pyftpdlib: a mistyped password is no end.
        self.client.login(USER, PASSWORD)

    def test_wrong_cmds_order(self):
        self.client.auth()
        self.assert_reply("pass " + PASSWORD, "503")
        self.client.login(USER, PASSWORD)
        self.assert_reply("pass " + PASSWORD, "503")

    # ptportal: six tries, and 421 as the last word.
    def test_max_auth(self):
        for _ in range(WRONG_PASSWORDS_MAX - 1):
            self.assert_auth_failed(USER, "wrong")
        with self.refused("421", "530"):
            self.client.login(USER, "wrong")
        self.assert_disconnected()

    # ptportal: a session has one account; USER in it is refused and changes nothing.
    def test_user(self):
        self.client.login(USER, PASSWORD)
        self.assert_reply("user " + USER, "503")
        self.client.sendcmd("pwd")

    def test_user_during_transfer(self):
        self.enter()
        name = fresh()
        data = b"abcde12345" * 1000000
        self.store(name, data)
        received = io.BytesIO()
        with contextlib.closing(self.client.transfercmd("retr " + name)) as conn:
            user_sent = False
            while chunk := conn.recv(BUFSIZE * 8):
                received.write(chunk)
                # stop transfer while it isn't finished yet
                if received.tell() > INTERRUPTED_TRANSF_SIZE and not user_sent:
                    user_sent = True
                    self.client.putcmd("user " + USER)
        # ptportal: replies come in the order of the commands, so the transfer's is first.
        self.assertEqual(self.client.voidresp()[:3], "226")
        self.assertEqual(self.client.getmultiline()[:3], "503")
        self.client.sendcmd("pwd")
        self.assert_same(received.getvalue(), data)


class TestFtpDummyCmds(TestCase):
    """Test: TYPE, STRU, MODE, NOOP, SYST, ALLO, HELP, SITE HELP, REST, FEAT, OPTS."""

    def setUp(self):
        self.client = self.connect()
        self.client.login(USER, PASSWORD)

    def test_type(self):
        self.client.sendcmd("type a")
        self.client.sendcmd("type i")
        self.client.sendcmd("type l8")
        # not tested by pyftpdlib: the form of RFC 959.
        self.client.sendcmd("type L 8")
        self.client.sendcmd("type A N")
        # ptportal: bytes have eight bits.
        self.assert_reply("type l7", "504")
        self.assert_reply("type ?!?", "501", "504")
        self.assert_reply("type e", "504")

    def test_stru(self):
        self.client.sendcmd("stru f")
        self.client.sendcmd("stru F")
        self.assert_reply("stru p", "504")
        self.assert_reply("stru r", "504")
        self.assert_reply("stru ?!?", "501", "504")

    def test_mode(self):
        self.client.sendcmd("mode s")
        self.client.sendcmd("mode S")
        self.assert_reply("mode b", "504")
        self.assert_reply("mode c", "504")
        self.assert_reply("mode ?!?", "501", "504")

    def test_noop(self):
        self.client.sendcmd("noop")

    def test_syst(self):
        self.assert_reply("syst", "215")

    # ptportal: the announced size is looked at.
    def test_allo(self):
        self.client.sendcmd("allo 10")
        self.client.sendcmd("allo 10 R 10")
        self.assert_reply("allo x", "501")

    def test_quit(self):
        self.assert_reply("quit", "221")
        self.assert_disconnected()

    # ptportal: HELP is one text, whatever it is asked.
    def test_help(self):
        self.assert_reply("help", "214")
        self.assert_reply("help stor", "214")
        self.assert_reply("help ?!?", "214", "501")

    def test_site(self):
        self.assert_reply("site", "501", "504")
        self.assert_reply("site ?!?", "500", "501", "504")
        self.assert_reply("site foo bar", "500", "501", "504")
        self.assert_reply("sitefoo bar", "500")

    def test_site_help(self):
        self.assert_reply("site help", "214")
        self.assert_reply("site help help", "214")
        # ptportal: SITE HELP is one text too.
        self.assert_reply("site help ?!?", "214", "501")

    def test_rest(self):
        # Test error conditions only; resumed data transfers are tested later.
        self.client.sendcmd("type i")
        self.assert_reply("rest", "501")
        self.assert_reply("rest str", "501")
        self.assert_reply("rest -1", "501")
        self.assert_reply("rest 10.1", "501")
        # ptportal: TYPE A never changes bytes, so offsets mean the same in it.
        self.client.sendcmd("type a")
        self.assert_reply("rest 10", "350")

    def test_feat(self):
        resp = self.client.sendcmd("feat")
        for feature in ("UTF8", "TVFS", "MDTM", "MFMT", "SIZE", "REST STREAM", "EPSV"):
            self.assertRegex(resp, rf"(?m)^ {feature}$")
        # not tested by pyftpdlib: names are UTF-8 with and without the option.
        self.client.sendcmd("opts utf8 on")
        self.client.sendcmd("OPTS UTF8 ON")

    def mlst_facts(self):
        """The facts string from the FEAT response."""
        resp = self.client.sendcmd("feat")
        return re.search(r"^\s*MLST\s+(\S+)$", resp, re.MULTILINE).group(1)

    def test_opts_feat(self):
        self.assert_reply("opts not_mlst", "501")
        for fact in ("type*;", "perm*;", "size*;", "modify*;"):
            self.assertIn(fact, self.mlst_facts())
        self.assertEqual(self.client.sendcmd("opts mlst type;"), "200 MLST OPTS type;")
        self.assertEqual(self.client.sendcmd("opts mLSt TypE;"), "200 MLST OPTS type;")
        for fact in ("type*;", "perm;", "size;", "modify;"):
            self.assertIn(fact, self.mlst_facts())

        self.assertEqual(self.client.sendcmd("opts mlst").rstrip(), "200 MLST OPTS")
        self.assertNotIn("*", self.mlst_facts())

        self.assertEqual(self.client.sendcmd("opts mlst fish;cakes;").rstrip(), "200 MLST OPTS")
        self.assertNotIn("*", self.mlst_facts())

        self.assertEqual(self.client.sendcmd("opts mlst fish;cakes;type;"), "200 MLST OPTS type;")
        self.assertIn("type*;", self.mlst_facts())
        self.assertEqual(self.mlst_facts().count("*"), 1)

    def test_opts_mlst_invalid(self):
        # Of test_opts_feat. RFC 3659 section 7.9 has the example "opts MLst unique type;": 501,
        # and the facts stay as they were.
        before = self.mlst_facts()
        for cmd in ("opts mlst bad_fact", "opts mlst type ;", "opts MLst unique type;"):
            with self.subTest(cmd):
                self.assert_reply(cmd, "501")
                self.assertEqual(self.mlst_facts(), before)


class TestFtpCmdsSemantic(TestCase):
    arg_cmds = [
        "allo",
        "appe",
        "dele",
        "mdtm",
        "mfmt",
        "mkd",
        "mode",
        "opts",
        "rest",
        "retr",
        "rmd",
        "rnfr",
        "rnto",
        "site chmod",
        "size",
        "stor",
        "stru",
        "type",
        "user",
        "xmkd",
        "xrmd",
        # not tested by pyftpdlib:
        "cwd",
        "site utime",
    ]

    # What a login is needed for, with arguments that could be carried out.
    auth_cmds = [
        "abor",
        "allo 10",
        "appe x",
        "cdup",
        "cwd /",
        "dele x",
        "eprt |1|127.0.0.1|2000|",
        "epsv",
        "hash x",
        "list",
        "mdtm x",
        "mfmt 20170921013410 x",
        "mkd x",
        "mlsd",
        "mlst",
        "mode s",
        "nlst",
        "pasv",
        "port 127,0,0,1,100,100",
        "pwd",
        "rest 10",
        "retr x",
        "rmd x",
        "rnfr x",
        "rnto x",
        "site chmod 644 x",
        "size x",
        "stat /",
        "stor x",
        "stou",
        "stru f",
        "type i",
        "xcup",
        "xcwd /",
        "xmkd x",
        "xpwd",
        "xrmd x",
        "xsha256 x",
    ]

    def setUp(self):
        self.client = self.connect()

    def test_arg_cmds(self):
        # Test commands requiring an argument.
        self.client.login(USER, PASSWORD)
        for cmd in self.arg_cmds:
            with self.subTest(cmd):
                self.assert_reply(cmd, "501")
        # ptportal: active mode is not offered, with or without an argument.
        self.assert_reply("port", "501", "502")
        self.assert_reply("eprt", "501", "502")
        self.client.sendcmd("noop")

    # ptportal: an argument too many harms nobody; each command still gets exactly one reply.
    def test_no_arg_cmds(self):
        self.client.login(USER, PASSWORD)
        for cmd in ("abor", "cdup", "feat", "noop", "pasv", "pwd", "syst", "xcup", "xpwd"):
            with self.subTest(cmd):
                self.assertRegex(self.reply(cmd + " arg"), r"^(2..|501)")
        self.assert_reply("pwd", "257")

    def test_auth_cmds(self):
        # Test those commands requiring client to be authenticated.
        # ptportal: there is no REIN, so this is before the login.
        self.client.auth()
        self.client.voidcmd("pbsz 0")
        self.client.voidcmd("prot p")
        for cmd in self.auth_cmds:
            with self.subTest(cmd):
                self.assert_reply(cmd, "530")

    def test_no_auth_cmds(self):
        # Test those commands that do not require client to be authenticated.
        self.client.auth()
        for cmd in ("feat", "help", "noop", "syst", "opts utf8 on"):
            with self.subTest(cmd):
                self.client.sendcmd(cmd)
        # ptportal: STAT and SITE tell nothing before the login.
        for cmd in ("stat", "stat /", "site help"):
            with self.subTest(cmd):
                self.assert_reply(cmd, "530")
        self.assert_reply("quit", "221")

    # pyftpdlib has REIN: ptportal says that it does not, and the session stays as it is.
    def test_not_offered_cmds(self):
        self.client.login(USER, PASSWORD)
        for cmd in ("rein", "smnt /", "host example.org", "lang de"):
            with self.subTest(cmd):
                self.assert_reply(cmd, "502")
        self.client.sendcmd("pwd")


class TestFtpFsOperations(TestCase):
    """Test: PWD, CWD, CDUP, SIZE, RNFR, RNTO, DELE, MKD, RMD, MDTM, MFMT, SITE CHMOD."""

    def setUp(self):
        self.enter()
        self.tempfile = fresh()
        self.tempdir = fresh()
        self.store(self.tempfile)
        self.client.mkd(self.tempdir)

    def test_cwd(self):
        self.client.cwd(self.tempdir)
        self.assertEqual(self.client.pwd(), f"{self.folder}/{self.tempdir}")
        with self.refused("550"):
            self.client.cwd("subtempdir")
        # ptportal: CWD without a name is no way to the root.
        self.assert_reply("cwd", "501")
        self.assertEqual(self.client.pwd(), f"{self.folder}/{self.tempdir}")
        # not tested by pyftpdlib: a file is no folder
        with self.refused("550"):
            self.client.cwd(f"{self.folder}/{self.tempfile}")

    def test_pwd(self):
        self.assertEqual(self.client.pwd(), self.folder)
        self.client.cwd("/")
        self.assertEqual(self.client.pwd(), "/")

    def test_cdup(self):
        subfolder = fresh()
        self.client.mkd(f"{self.tempdir}/{subfolder}")
        self.client.cwd(self.tempdir)
        self.assertEqual(self.client.pwd(), f"{self.folder}/{self.tempdir}")
        self.client.cwd(subfolder)
        self.assertEqual(self.client.pwd(), f"{self.folder}/{self.tempdir}/{subfolder}")
        self.client.sendcmd("cdup")
        self.assertEqual(self.client.pwd(), f"{self.folder}/{self.tempdir}")
        self.client.sendcmd("cdup")
        self.assertEqual(self.client.pwd(), self.folder)
        # make sure we can't escape from root directory
        for _ in range(self.folder.count("/") + 1):
            self.client.sendcmd("cdup")
        self.assertEqual(self.client.pwd(), "/")
        self.client.cwd("../../..")
        self.assertEqual(self.client.pwd(), "/")

    def test_mkd(self):
        tempdir = fresh()
        dirname = self.client.mkd(tempdir)
        # the 257 response is supposed to include the absolute dirname
        self.assertEqual(dirname, f"{self.folder}/{tempdir}")
        # make sure we can't create directories which already exist
        with self.refused("550"):
            self.client.mkd(tempdir)
        # not tested by pyftpdlib: nor below one that does not exist, nor where all is read-only
        with self.refused("550"):
            self.client.mkd(f"{fresh()}/{fresh()}")
        with self.refused("550"):
            self.client.mkd(f"/{fresh()}")

    def test_rmd(self):
        self.client.rmd(self.tempdir)
        with self.refused("550"):
            self.client.rmd(self.tempdir)
        with self.refused("550"):
            self.client.rmd(self.tempfile)
        # make sure we can't remove the root directory
        with self.refused("550"):
            self.client.rmd("/")

    def test_rmd_not_empty(self):
        # not tested by pyftpdlib
        self.store(f"{self.tempdir}/{self.tempfile}")
        with self.refused("550"):
            self.client.rmd(self.tempdir)
        self.client.delete(f"{self.tempdir}/{self.tempfile}")
        self.client.rmd(self.tempdir)

    def test_dele(self):
        self.client.delete(self.tempfile)
        with self.refused("550"):
            self.client.delete(self.tempdir)
        with self.refused("550"):
            self.client.delete(self.tempfile)

    def test_rnfr_rnto(self):
        # rename file
        tempname = fresh()
        self.client.rename(self.tempfile, tempname)
        self.client.rename(tempname, self.tempfile)
        # rename dir
        tempname = fresh()
        self.client.rename(self.tempdir, tempname)
        self.client.rename(tempname, self.tempdir)
        # rnfr/rnto over non-existing paths
        with self.refused("550"):
            self.client.rename(fresh(), "/x")
        with self.refused("550"):
            self.client.rename(self.tempfile, "/")
        # rnto sent without first specifying the source
        self.assert_reply("rnto " + self.tempfile, "503")
        # make sure we can't rename root directory
        with self.refused("550"):
            self.client.rename("/", "/x")
        # not tested by pyftpdlib: all of that has changed nothing
        self.assertEqual(sorted(self.names()), sorted([self.tempfile, self.tempdir]))

    def test_rnfr_is_for_the_next_command(self):
        # not tested by pyftpdlib; RFC 959: RNFR "must be immediately followed by" RNTO
        self.assert_reply("rnfr " + self.tempfile, "350")
        self.assert_reply("noop", "200")
        self.assert_reply("rnto " + fresh(), "503")

    def test_mdtm(self):
        self.assertRegex(self.client.sendcmd("mdtm " + self.tempfile), r"^213 \d{14}$")
        with self.refused("550"):
            self.client.sendcmd("mdtm " + fresh())
        # ptportal: folders have a time as well.
        self.assertRegex(self.client.sendcmd("mdtm " + self.tempdir), r"^213 \d{14}$")

    def test_mfmt(self):
        # making sure MFMT is able to modify the timestamp for the file
        stamp = "20170921013410"
        resp = self.client.sendcmd(f"mfmt {stamp} {self.tempfile}")
        self.assertTrue(resp.startswith(f"213 Modify={stamp}; "), resp)
        self.assertEqual(self.client.sendcmd("mdtm " + self.tempfile), "213 " + stamp)
        # not tested by pyftpdlib
        self.assert_reply(f"mfmt {stamp} {fresh()}", "550")

    def test_invalid_mfmt_timeval(self):
        self.assert_reply("mfmt B017092101341A " + self.tempfile, "501")
        self.assert_reply("mfmt 20170921 " + self.tempfile, "501")
        # not tested by pyftpdlib: no such day
        self.assert_reply("mfmt 20170231013410 " + self.tempfile, "501")

    def test_missing_mfmt_timeval_arg(self):
        self.assert_reply("mfmt " + self.tempfile, "501")

    def test_use_gmt_times(self):
        # Of TestConfigurableOptions, whose switch ptportal has not: all times are UTC.
        resp = self.client.sendcmd("mdtm " + self.tempfile)
        stored = calendar.timegm(time.strptime(resp[4:], "%Y%m%d%H%M%S"))
        self.assertLess(abs(time.time() - stored), 120)
        self.assertIn(f"modify={resp[4:]};", self.client.sendcmd("mlst " + self.tempfile))
        line = self.client.sendcmd("stat " + self.tempfile)
        self.assertIn(time.strftime("%b %d", time.gmtime(stored)), line.replace("  ", " 0"))

    def test_size(self):
        # ptportal: TYPE A never changes bytes, so a size means the same in it.
        self.client.sendcmd("type a")
        self.assertEqual(self.client.sendcmd("size " + self.tempfile), "213 0")
        self.client.sendcmd("type i")
        self.assertEqual(self.client.size(self.tempfile), 0)
        # make sure we can't use size against directories
        with self.refused("550"):
            self.client.sendcmd("size " + self.tempdir)
        with self.refused("550"):
            self.client.sendcmd("size " + fresh())

    def test_site_chmod(self):
        # not enough args
        self.assert_reply("site chmod 777", "501")
        before = self.client.sendcmd("mlst " + self.tempfile)
        # ptportal: clients send it after an upload, so it succeeds; rights are the portal's.
        for mode in ("777", "755", "555"):
            self.assert_reply(f"site chmod {mode} {self.tempfile}", "200")
        self.assertEqual(self.client.sendcmd("mlst " + self.tempfile), before)
        self.assert_reply("site chmod 644 " + fresh(), "550")


class TestFtpStoreData(TestCase):
    """Test STOR, STOU, APPE, REST, TYPE."""

    def setUp(self):
        self.enter()
        self.testfn = fresh()
        self.dummy_sendfile = io.BytesIO()

    def close_data(self, conn):
        """The proper end of an upload: close_notify, then the end of the connection."""
        conn.unwrap()
        conn.close()

    def test_stor(self):
        data = b"abcde12345" * 100000
        self.store(self.testfn, data)
        self.assert_same(self.retrieve(self.testfn), data)
        self.assertEqual(self.client.size(self.testfn), len(data))

    def store_ascii(self, cmd, fp, blocksize=8192):
        # like storbinary() except it sends "type a" instead of
        # "type i" before starting the transfer
        self.client.voidcmd("type a")
        with contextlib.closing(self.client.transfercmd(cmd)) as conn:
            while buf := fp.read(blocksize):
                conn.sendall(buf)
            conn.unwrap()
        return self.client.voidresp()

    # ptportal: TYPE A changes no byte of a file.
    def test_stor_ascii(self):
        data = b"abcde12345\r\n" * 100000
        self.store_ascii("stor " + self.testfn, io.BytesIO(data))
        self.assert_same(self.retrieve(self.testfn), data)

    def test_stor_ascii_2(self):
        # Test that no extra carriage returns are added to the file in ASCII mode in case CRLF
        # gets truncated in two chunks (issue 116)
        data = b"\r\n foo \r\n bar"
        self.store_ascii("stor " + self.testfn, io.BytesIO(data), blocksize=1)
        self.assertEqual(self.retrieve(self.testfn), data)

    def stou(self, wish=""):
        """Stores under a name that the server chooses; gives data and name."""
        data = b"abcde12345" * 100000
        self.client.voidcmd("TYPE I")
        address = self.client.makepasv()
        with contextlib.closing(socket.create_connection(address, TIMEOUT)) as sock:
            # filename comes in as "1xx FILE: <filename>" (RFC 1123 section 4.1.2.9)
            resp = self.client.sendcmd(f"stou {wish}".rstrip())
            self.assertRegex(resp, r"^1\d\d FILE: ")
            with contextlib.closing(self.client.context.wrap_socket(sock)) as conn:
                conn.sendall(data)
                conn.unwrap()
        # transfer finished, a 226 response is expected
        self.assertEqual(self.client.voidresp()[:3], "226")
        return data, resp.split("FILE: ")[1]

    # ptportal: over a passive data connection; pyftpdlib's own test needs an active one.
    def test_stou(self):
        data, first = self.stou()
        self.assert_same(self.retrieve(first), data)
        _, second = self.stou()
        self.assertNotEqual(first, second)
        self.assertEqual(len(self.names()), 2)

    def test_stou_wish(self):
        # not tested by pyftpdlib
        self.store(self.testfn + ".pdf", b"here already")
        data, name = self.stou(self.testfn + ".pdf")
        self.assert_same(self.retrieve(name), data)
        self.assertEqual(self.retrieve(self.testfn + ".pdf"), b"here already")

    def assert_refused_after_rest(self, cmd):
        """To drop the 10 in silence would store other bytes than the client means."""
        self.client.sendcmd("type i")
        self.client.makepasv()
        self.client.sendcmd("rest 10")
        resp = self.reply(cmd)
        # Any refusal will do; a 150 is none.
        self.assertRegex(resp, r"^[45]")
        # not tested by pyftpdlib: the marker is used up, the session goes on
        self.store(fresh(), b"abcde12345")

    def test_stou_rest(self):
        # Watch for STOU preceded by REST, which makes no sense.
        self.assert_refused_after_rest("stou")

    def test_stou_orphaned_file(self):
        # Check that no orphaned file gets left behind when STOU fails.
        # ptportal: in a folder that is read-only for everybody, and without a data connection.
        above = FOLDER.rsplit("/", 1)[0] or "/"
        before = self.names("nlst " + above)
        self.client.makepasv()
        self.assert_reply(f"stou {above}/{self.testfn}", "550")
        self.assertEqual(self.names("nlst " + above), before)
        self.assert_reply("stou " + self.testfn, "425")
        self.assertEqual(self.names(), [])

    def test_appe(self):
        data1 = b"abcde12345" * 100000
        data2 = b"fghil67890" * 100000
        self.store(self.testfn, data1)
        self.store(self.testfn, data2, cmd="appe")
        self.assert_same(self.retrieve(self.testfn), data1 + data2)

    def test_appe_new_file(self):
        # not tested by pyftpdlib; RFC 959: APPE creates a file that does not exist
        self.store(self.testfn, b"abcde12345", cmd="appe")
        self.assertEqual(self.retrieve(self.testfn), b"abcde12345")

    def test_appe_rest(self):
        # Watch for APPE preceded by REST, which makes no sense.
        self.assert_refused_after_rest("appe " + self.testfn)

    def test_appe_rest_not_at_the_end(self):
        # not tested by pyftpdlib: 20 bytes are here, and the client goes on behind the tenth
        self.store(self.testfn, b"abcde12345" * 2)
        self.assert_refused_after_rest("appe " + self.testfn)
        self.assertEqual(self.retrieve(self.testfn), b"abcde12345" * 2)

    def test_rest_on_stor(self):
        # Test STOR preceded by REST.
        data = b"abcde12345" * 100000
        self.client.voidcmd("TYPE I")
        conn = self.client.transfercmd("stor " + self.testfn)
        # stop transfer while it isn't finished yet
        conn.sendall(data[:INTERRUPTED_TRANSF_SIZE])
        self.close_data(conn)
        # transfer wasn't finished yet but server can't know this,
        # hence expect a 226 response
        self.assertEqual(self.client.voidresp()[:3], "226")
        # resuming transfer by using a marker value greater than the
        # file size stored on the server should result in an error
        # on stor
        file_size = self.client.size(self.testfn)
        self.assertEqual(file_size, INTERRUPTED_TRANSF_SIZE)
        self.client.makepasv()
        self.client.sendcmd(f"rest {file_size + 1}")
        with self.refused("554"):
            self.client.sendcmd("stor " + self.testfn)
        # not tested by pyftpdlib: the refusal has harmed nothing
        self.assert_same(self.retrieve(self.testfn), data[:INTERRUPTED_TRANSF_SIZE])
        self.client.sendcmd(f"rest {file_size}")
        self.store(self.testfn, data[file_size:])
        self.assert_same(self.retrieve(self.testfn), data)

    def test_rest_on_stor_after_loss(self):
        # pyftpdlib takes the end of the connection for the end of the file.
        # ptportal: without close_notify an upload is lost; what came is kept, unreadable, to resume.
        data = b"abcde12345" * 100000
        self.client.voidcmd("TYPE I")
        with contextlib.closing(self.client.transfercmd("stor " + self.testfn)) as conn:
            conn.sendall(data[:INTERRUPTED_TRANSF_SIZE])
        with self.refused("426"):
            self.client.voidresp()
        file_size = self.client.size(self.testfn)
        self.assertLessEqual(file_size, INTERRUPTED_TRANSF_SIZE)
        self.assertIn(self.testfn, self.names())
        with self.refused("450", "550"):
            self.retrieve(self.testfn)
        self.client.sendcmd(f"rest {file_size}")
        self.store(self.testfn, data[file_size:])
        self.assert_same(self.retrieve(self.testfn), data)

    def test_appe_after_loss(self):
        # As before, the way FileZilla and WinSCP go on.
        data = b"abcde12345" * 100000
        self.client.voidcmd("TYPE I")
        with contextlib.closing(self.client.transfercmd("stor " + self.testfn)) as conn:
            conn.sendall(data[:INTERRUPTED_TRANSF_SIZE])
        with self.refused("426"):
            self.client.voidresp()
        file_size = self.client.size(self.testfn)
        self.store(self.testfn, data[file_size:], cmd="appe")
        self.assert_same(self.retrieve(self.testfn), data)

    def test_failing_rest_on_stor(self):
        # Test REST -> STOR against a non existing file.
        self.client.sendcmd("type i")
        self.client.sendcmd("rest 10")
        with self.refused("550", "554"):
            self.store(self.testfn)
        # not tested by pyftpdlib: nothing is left of it
        self.assertEqual(self.names(), [])
        # if the first STOR failed because of REST, the REST marker
        # is supposed to be resetted to 0
        self.store(self.testfn, b"x" * 4096)
        self.assertEqual(self.retrieve(self.testfn), b"x" * 4096)

    def test_quit_during_transfer(self):
        # RFC-959 states that if QUIT is sent while a transfer is in
        # progress, the connection must remain open for result response
        # and the server will then close it.
        conn = self.client.transfercmd("stor " + self.testfn)
        conn.sendall(b"abcde12345" * 50000)
        self.client.putcmd("quit")
        conn.sendall(b"abcde12345" * 50000)
        self.close_data(conn)
        # expect the response (transfer ok)
        self.assertEqual(self.client.voidresp()[:3], "226")
        # ptportal: replies come in the order of the commands.
        self.assertEqual(self.client.voidresp()[:3], "221")
        # Make sure client has been disconnected.
        self.assert_disconnected()
        self.client = self.connect()
        self.client.login(USER, PASSWORD)
        self.assertEqual(self.client.size(f"{self.folder}/{self.testfn}"), 1000000)

    def test_stor_empty_file(self):
        self.store(self.testfn)
        self.assertEqual(self.client.size(self.testfn), 0)
        self.assertEqual(self.retrieve(self.testfn), b"")


# pyftpdlib repeats these without sendfile() and with other Python files; here the TLS versions and
# session resumption make the difference.


class TestFtpStoreDataTls12(TestFtpStoreData):
    tls_version = ssl.TLSVersion.TLSv1_2


class TestFtpStoreDataResumed(TestFtpStoreData):
    resumes = True


class TestFtpStoreDataTls12Resumed(TestFtpStoreData):
    tls_version = ssl.TLSVersion.TLSv1_2
    resumes = True


class TestFtpRetrieveData(TestCase):
    """Test RETR, REST, TYPE."""

    def setUp(self):
        self.enter()
        self.testfn = fresh()

    def retrieve_ascii(self, cmd, blocksize=8192):
        """Like retrbinary but uses TYPE A instead."""
        received = io.BytesIO()
        self.client.voidcmd("type a")
        with contextlib.closing(self.client.transfercmd(cmd)) as conn:
            while data := conn.recv(blocksize):
                received.write(data)
            # not tested by pyftpdlib: the end is close_notify, not the end of the connection
            conn.unwrap()
        self.client.voidresp()
        return received.getvalue()

    def test_retr(self):
        data = b"abcde12345" * 100000
        self.store(self.testfn, data)
        self.assert_same(self.retrieve(self.testfn), data)
        # attempt to retrieve a file which doesn't exist
        with self.refused("550"):
            self.retrieve(fresh())

    # ptportal: TYPE A changes no byte of a file.
    def test_retr_ascii(self):
        data = b"abcde12345\n" * 100000
        self.store(self.testfn, data)
        self.assert_same(self.retrieve_ascii("retr " + self.testfn), data)

    def test_retr_ascii_already_crlf(self):
        # Test ASCII mode RETR for data with CRLF line endings.
        data = b"abcde12345\r\n" * 100000
        self.store(self.testfn, data)
        self.assert_same(self.retrieve_ascii("retr " + self.testfn), data)

    def test_restore_on_retr(self):
        data = b"abcde12345" * 1000000
        self.store(self.testfn, data)
        received = io.BytesIO()
        self.client.voidcmd("TYPE I")
        with contextlib.closing(self.client.transfercmd("retr " + self.testfn)) as conn:
            while received.tell() < INTERRUPTED_TRANSF_SIZE:
                chunk = conn.recv(BUFSIZE)
                self.assertTrue(chunk)
                received.write(chunk)
        # transfer wasn't finished yet so we expect a 426 response
        self.assertEqual(self.client.getline()[:3], "426")
        # resuming transfer by using a marker value greater than the
        # file size stored on the server should result in an error
        # on retr (RFC-1123)
        file_size = self.client.size(self.testfn)
        self.client.makepasv()
        self.client.sendcmd(f"rest {file_size + 1}")
        with self.refused("554"):
            self.client.sendcmd("retr " + self.testfn)
        # test resume
        self.client.sendcmd(f"rest {received.tell()}")
        self.client.retrbinary("retr " + self.testfn, received.write)
        self.assert_same(received.getvalue(), data)

    def test_restore_on_retr_at_the_end(self):
        # not tested by pyftpdlib: a complete file is "resumed" with no byte
        self.store(self.testfn, b"abcde12345")
        received = io.BytesIO()
        self.client.retrbinary("retr " + self.testfn, received.write, rest=10)
        self.assertEqual(received.getvalue(), b"")
        # and the marker is used up
        self.assertEqual(self.retrieve(self.testfn), b"abcde12345")

    def test_retr_empty_file(self):
        self.store(self.testfn)
        self.assertEqual(self.retrieve(self.testfn), b"")


class TestFtpRetrieveDataTls12(TestFtpRetrieveData):
    tls_version = ssl.TLSVersion.TLSv1_2


class TestFtpRetrieveDataResumed(TestFtpRetrieveData):
    resumes = True


class TestFtpRetrieveDataTls12Resumed(TestFtpRetrieveData):
    tls_version = ssl.TLSVersion.TLSv1_2
    resumes = True


class TestFtpListingCmds(TestCase):
    """Test LIST, NLST, MLSD, MLST, argumented STAT."""

    def setUp(self):
        self.enter()
        self.testfn = fresh()
        self.store(self.testfn)

    def _test_listing_cmds(self, cmd):
        """Tests common to LIST NLST and MLSD commands."""
        # assume that no argument has the same meaning of the working folder
        bare = self.names(cmd)
        self.assertEqual(len(bare), 1)
        self.assertEqual(bare, self.names(f"{cmd} {self.folder}"))
        if cmd != "mlsd":
            # if pathname is a file one line is expected
            lines = self.names(f"{cmd} {self.testfn}")
            self.assertEqual(len(lines), 1)
            self.assertTrue(lines[0].endswith(self.testfn))
        # non-existent path, 550 response is expected
        with self.refused("550"):
            self.names(f"{cmd} {fresh()}")
        # for an empty directory we excpect that the data channel is
        # opened anyway and that no data is received
        tempdir = fresh()
        self.client.mkd(tempdir)
        self.assertEqual(self.names(f"{cmd} {tempdir}"), [])
        # not tested by pyftpdlib: the root, and a name with blanks
        self.names(f"{cmd} /")
        self.client.mkd(tempdir + " a  b")
        self.assertTrue(any(line.endswith(tempdir + " a  b") for line in self.names(cmd)))

    def test_nlst(self):
        self._test_listing_cmds("nlst")

    def test_list(self):
        self._test_listing_cmds("list")
        # known incorrect pathname arguments (e.g. old clients) are
        # expected to be treated as if there were none
        bare = self.names("list")
        for options in ("-a", "-l", "-al", "-la"):
            self.assertEqual(self.names(f"list {options}"), bare)

    def mlstline(self, cmd):
        """The line of interest."""
        return self.client.voidcmd(cmd).split("\n")[1]

    def test_mlst(self):
        # the fact set must be preceded by a space
        self.assertTrue(self.mlstline("mlst").startswith(" "))
        # where TVFS is supported, a fully qualified pathname is expected
        self.assertTrue(self.mlstline("mlst " + self.testfn).endswith(f" {self.folder}/{self.testfn}"))
        self.client.cwd("/")
        self.assertTrue(self.mlstline("mlst").endswith(" /"))
        # assume that no argument has the same meaning of "/"
        self.assertEqual(self.mlstline("mlst"), self.mlstline("mlst /"))
        # non-existent path
        with self.refused("550"):
            self.client.sendcmd("mlst " + fresh())
        # test file/dir notations
        self.assertIn("type=dir", self.mlstline("mlst"))
        self.assertIn("type=file", self.mlstline(f"mlst {self.folder}/{self.testfn}"))
        # let's add some tests for OPTS command
        self.client.sendcmd("opts mlst type;")
        self.assertEqual(self.mlstline("mlst"), " type=dir; /")
        # where no facts are present, two leading spaces before the
        # pathname are required (RFC-3659)
        self.client.sendcmd("opts mlst")
        self.assertEqual(self.mlstline("mlst"), "  /")

    def test_mlsd(self):
        self._test_listing_cmds("mlsd")
        # if path is a file a 501 response code is expected
        with self.refused("501"):
            self.names("mlsd " + self.testfn)

    def test_mlsd_all_facts(self):
        feat = self.client.sendcmd("feat")
        # all the facts
        facts = re.search(r"^\s*MLST\s+(\S+)$", feat, re.MULTILINE).group(1)
        facts = facts.replace("*;", ";")
        self.client.sendcmd("opts mlst " + facts)
        # ptportal: of a file, because a folder has no size.
        line = self.mlstline("mlst " + self.testfn).strip()
        local = facts[:-1].split(";")
        returned = [fact.split("=")[0] for fact in line.split("; ")[0].split(";")]
        self.assertEqual(sorted(local), sorted(returned))
        # ptportal: there is no unique, unix.uid or unix.gid to be told.
        for fact in ("type", "size", "perm", "modify", "UNIX.mode"):
            self.assertIn(fact, returned)
        # not tested by pyftpdlib: MLSD and MLST tell the same
        self.assertEqual(self.names("mlsd")[0].split(" ")[0], line.split(" ")[0])

    def test_stat(self):
        # Test STAT provided with argument which is equal to LIST
        self.assert_reply("stat /", "211", "212", "213")
        resp = self.assert_reply("stat " + self.testfn, "211", "212", "213")
        self.assertIn(self.testfn, resp)
        # ptportal: patterns in the last part of a name are followed, old scripts use them.
        resp = self.assert_reply("stat *", "211", "212", "213")
        self.assertIn(self.testfn, resp)
        self.assert_reply("stat *.nothing-like-it", "450", "550")
        self.assert_reply("stat " + fresh(), "450", "550")

    def test_unforeseen_time_event(self):
        # A file with a modification time prior to year 1900, or after 9999 in some calendars, must
        # not break listings. ptportal: pyftpdlib lets its file system lie; here MFMT sets the time.
        for stamp in ("16841018160000", "00010101000000", "99991231235959"):
            with self.subTest(stamp):
                resp = self.assert_reply(f"mfmt {stamp} {self.testfn}", "213", "501", "550", "504")
                self.client.sendcmd("stat " + self.testfn)
                self.client.sendcmd("stat " + self.folder)
                line = self.mlstline("mlst " + self.testfn)
                if resp[:3] == "213":
                    self.assertIn(f"modify={stamp};", line)
                self.assertEqual(len(self.names("list")), 1)
                self.assertEqual(len(self.names("mlsd")), 1)
                # make sure client hasn't been disconnected
                self.client.sendcmd("noop")


class TestFtpAbort(TestCase):
    """Test: ABOR."""

    def setUp(self):
        self.enter()

    # ptportal: where pyftpdlib says 225, it is 226; RFC 959 allows either once nothing is running.
    def test_abor_no_data(self):
        # Case 1: ABOR while no data channel is opened.
        self.assert_reply("ABOR", "225", "226")
        self.names("list")

    def test_abor_pasv(self):
        # Case 2: user sends a PASV, a data-channel socket is listening
        # but not connected, and ABOR is sent.
        self.client.makepasv()
        self.assert_reply("ABOR", "225", "226")
        self.names("list")

    def abort_retr(self, abort):
        data = b"abcde12345" * 1000000
        testfn = fresh()
        self.store(testfn, data)
        self.client.voidcmd("TYPE I")
        with contextlib.closing(self.client.transfercmd("retr " + testfn)) as conn:
            bytes_recv = 0
            while bytes_recv < 65536:
                bytes_recv += len(conn.recv(BUFSIZE))
            # stop transfer while it isn't finished yet
            self.client.sock.sendall(abort)
            # transfer isn't finished yet so ftpd should respond with 426
            self.assertEqual(self.client.getline()[:3], "426")
            # transfer successfully aborted, so should now respond
            # with a 226
            self.assertEqual(self.client.voidresp()[:3], "226")
        # not tested by pyftpdlib: the session goes on
        self.assert_same(self.retrieve(testfn), data)

    def test_abor_during_transfer(self):
        # Case 4: ABOR while a data transfer on DTP channel is in
        # progress: close data channel, respond with 426, respond
        # with 226.
        self.abort_retr(b"ABOR\r\n")

    # ptportal: there is no urgent data in TLS, so Telnet IP/Synch comes in line (RFC 959 section 4.1.3).
    def test_oob_abor(self):
        self.client.sock.sendall(IAC + IP + IAC + DM + b"abor\r\n")
        self.assertIn(self.client.getresp()[:3], ("225", "226"))
        self.client.sendcmd("noop")

    def test_oob_abor_during_transfer(self):
        self.abort_retr(IAC + IP + IAC + DM + b"ABOR\r\n")

    def test_telnet_commands(self):
        # not tested by pyftpdlib: WILL and DO with an option, and a doubled IAC in a name
        self.client.sock.sendall(IAC + b"\xfb\x01" + b"NOOP\r\n")
        self.assertEqual(self.client.getresp()[:3], "200")
        self.client.sock.sendall(IAC + b"\xf1" + b"NO" + IAC + b"\xfd\x06" + b"OP\r\n")
        self.assertEqual(self.client.getresp()[:3], "200")
        # 255 is "ÿ" in Windows-1252
        self.client.sock.sendall(b"MKD x" + IAC + IAC + b"\r\n")
        self.assertIn("xÿ", self.client.getresp())

    def test_abor_during_stor(self):
        # Of TestCallbacks.test_on_incomplete_file_received.
        data = b"abcde12345" * 100000
        testfn = fresh()
        self.client.voidcmd("TYPE I")
        with contextlib.closing(self.client.transfercmd("stor " + testfn)) as conn:
            conn.sendall(data[:INTERRUPTED_TRANSF_SIZE])
            # ABOR may overtake the data; of an upload without a byte nothing is kept.
            self.wait_for_bytes()
            self.client.putcmd("abor")
            # If a data transfer is in progress server is supposed to send
            # a 426 reply followed by a 226 reply.
            self.assertEqual(self.client.getmultiline()[:3], "426")
            self.assertEqual(self.client.getmultiline()[:3], "226")
        # ptportal: what came is kept to be resumed, and not readable before.
        file_size = self.client.size(testfn)
        self.assertLessEqual(file_size, INTERRUPTED_TRANSF_SIZE)
        with self.refused("450", "550"):
            self.retrieve(testfn)
        self.client.sendcmd(f"rest {file_size}")
        self.store(testfn, data[file_size:])
        self.assert_same(self.retrieve(testfn), data)

    def wait_for_bytes(self):
        """Asks STAT until the running transfer has moved something."""
        give_up_at = time.monotonic() + TIMEOUT
        while not re.match(r"21\d [1-9]", self.reply("stat")):
            self.assertLess(time.monotonic(), give_up_at, "no byte arrives")

    def test_commands_during_transfer(self):
        # Instead of TestFtpAuthentication.test_rein_during_transfer. ptportal: NOOP and STAT are
        # answered at once, all others after the transfer, in their order.
        testfn = fresh()
        with contextlib.closing(self.client.transfercmd("stor " + testfn)) as conn:
            conn.sendall(b"abcde12345" * 1000)
            self.assert_reply("noop", "200")
            self.assert_reply("stat", "211", "213")
            self.client.putcmd("size " + testfn)
            self.client.putcmd("pwd")
            conn.sendall(b"abcde12345" * 1000)
            conn.unwrap()
        self.assertEqual(self.client.voidresp()[:3], "226")
        self.assertEqual(self.client.getmultiline(), "213 20000")
        self.assertEqual(self.client.getmultiline()[:3], "257")


class TestIPv4Environment(TestCase):
    """Test PASV, EPSV, and that PORT and EPRT are refused."""

    def setUp(self):
        self.enter()
        is_ipv4 = self.client.af == socket.AF_INET
        self.proto = "1" if is_ipv4 else "2"
        self.other_proto = "2" if is_ipv4 else "1"

    # ptportal: no active mode, so that nobody can make the server connect elsewhere.
    def test_port_and_eprt_are_refused(self):
        for cmd in ("port 127,0,0,1,100,100", "eprt |1|127.0.0.1|2000|", "eprt ||||", "port x"):
            with self.subTest(cmd):
                self.assertEqual(self.reply(cmd)[0], "5")
        self.names("list")

    def test_epsv(self):
        # test wrong proto
        self.assert_reply("epsv " + self.other_proto, "522")
        # proto > 2
        self.assert_reply("epsv 3", "522")
        self.assert_reply("epsv x", "501")
        # test connection
        for cmd in ("EPSV", "EPSV " + self.proto):
            host, port = ftplib.parse229(self.client.sendcmd(cmd), self.client.sock.getpeername())
            with contextlib.closing(socket.create_connection((host, port), TIMEOUT)):
                self.assert_reply("abor", "225", "226")

    def test_epsv_all(self):
        self.assert_reply("epsv all", "200")
        for cmd in ("pasv", "port 127,0,0,1,100,100", "eprt |1|127.0.0.1|2000|"):
            with self.subTest(cmd):
                self.assertEqual(self.reply(cmd)[0], "5")
        # not tested by pyftpdlib: EPSV is what remains
        self.assert_reply("epsv", "229")

    def test_pasv_v4(self):
        address = ftplib.parse227(self.client.sendcmd("pasv"))
        with contextlib.closing(socket.create_connection(address, TIMEOUT)):
            pass

    def test_transfer_over_epsv(self):
        # not tested by pyftpdlib: ftplib takes EPSV for IPv6 only
        self.client.af = socket.AF_INET6
        name = fresh()
        self.store(name, b"abcde12345")
        self.assertEqual(self.retrieve(name), b"abcde12345")


class TestCornerCases(TestCase):
    """Tests for any kind of strange situation for the server to be in,
    mainly referring to bugs signaled on the bug tracker.
    """

    def setUp(self):
        self.enter()

    def test_quick_connect(self):
        # Clients that connected and disconnected quickly could cause
        # the server to crash, due to a failure to catch errors in the
        # initial part of the connection process.
        # Tracked in issues #91, #104 and #105.
        # See also https://bugs.launchpad.net/zodb/+bug/135108
        def connect(addr):
            with contextlib.closing(socket.socket()) as s:
                # Set SO_LINGER to 1,0 causes a connection reset (RST) to
                # be sent when close() is called, instead of the standard
                # FIN shutdown sequence.
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.settimeout(TIMEOUT)
                with contextlib.suppress(OSError):
                    s.connect(addr)

        for _ in range(10):
            connect((HOST, PORT))
        for _ in range(10):
            connect(self.client.makepasv())
        # not tested by pyftpdlib: and all goes on
        self.names("list")

    def test_transfer_without_pasv(self):
        # not tested by pyftpdlib
        for cmd in ("list", "nlst", "mlsd", "stor x", "appe x", "stou", "retr x"):
            with self.subTest(cmd):
                self.assert_reply(cmd, "425", "503")

    def test_pipelined_commands(self):
        # not tested by pyftpdlib: one reply per command, in order
        self.client.sock.sendall(b"PWD\r\nNOOP\r\nSYST\r\nFOO\r\nSIZE nothing\r\nNOOP\r\n")
        codes = [self.client.getmultiline()[:3] for _ in range(6)]
        self.assertEqual(codes, ["257", "200", "215", "500", "550", "200"])


class TestUnicodePathNames(TestCase):
    """Test FTP commands and responses by using path names with non
    ASCII characters.

    In pyftpdlib this class is switched off, because some platforms fail in it.
    """

    def setUp(self):
        self.enter()
        # Composed, as ptportal tells it back.
        self.unicode_dir = "Ordner ☃ 日本 " + fresh("é")
        self.unicode_file = "Müller & Söhne – 100 % „neu“ " + fresh("ß")
        self.client.mkd(self.unicode_dir)
        self.store(self.unicode_file, b"x")

    # --- fs operations

    def test_cwd(self):
        resp = self.client.cwd(self.unicode_dir)
        self.assertIn(self.unicode_dir, resp)
        self.assertEqual(self.client.pwd(), f"{self.folder}/{self.unicode_dir}")

    def test_mkd(self):
        self.client.rmd(self.unicode_dir)
        self.assertEqual(self.client.mkd(self.unicode_dir), f"{self.folder}/{self.unicode_dir}")

    def test_mkd_quotes(self):
        # not tested by pyftpdlib; RFC 959 appendix II: quotes are doubled
        name = fresh('a "b" ')
        self.assertEqual(self.client.mkd(name), f"{self.folder}/{name}")

    def test_rmdir(self):
        self.client.rmd(self.unicode_dir)
        self.assertEqual(self.names(), [self.unicode_file])

    def test_rnfr_rnto(self):
        name = fresh()
        self.client.rename(self.unicode_dir, name)
        self.client.rename(self.unicode_file, self.unicode_dir)
        self.assertEqual(sorted(self.names()), sorted([name, self.unicode_dir]))

    def test_size(self):
        self.client.sendcmd("type i")
        self.assertEqual(self.client.sendcmd("size " + self.unicode_file), "213 1")

    def test_mdtm(self):
        self.assertRegex(self.client.sendcmd("mdtm " + self.unicode_file), r"^213 \d{14}$")

    def test_stou(self):
        address = self.client.makepasv()
        with contextlib.closing(socket.create_connection(address, TIMEOUT)) as sock:
            resp = self.client.sendcmd("stou " + self.unicode_file)
            self.assertIn(self.unicode_file, resp)
            with contextlib.closing(self.client.context.wrap_socket(sock)) as conn:
                conn.unwrap()
        self.assertEqual(self.client.voidresp()[:3], "226")

    def test_site_chmod(self):
        self.assert_reply("site chmod 777 " + self.unicode_dir, "200")

    # --- listing cmds

    def _test_listing_cmds(self, cmd):
        lines = "\n".join(self.names(cmd))
        self.assertIn(self.unicode_dir, lines)
        self.assertIn(self.unicode_file, lines)

    def test_list(self):
        self._test_listing_cmds("list")

    def test_nlst(self):
        self._test_listing_cmds("nlst")

    def test_mlsd(self):
        self._test_listing_cmds("mlsd")

    def test_mlst(self):
        def mlstline(cmd):
            return self.client.voidcmd(cmd).split("\n")[1]

        self.assertIn("type=dir", mlstline("mlst " + self.unicode_dir))
        self.assertIn("/" + self.unicode_dir, mlstline("mlst " + self.unicode_dir))
        self.assertIn("type=file", mlstline("mlst " + self.unicode_file))
        self.assertIn("/" + self.unicode_file, mlstline("mlst " + self.unicode_file))

    # --- file transfer

    def test_stor(self):
        data = b"abcde12345" * 500
        self.client.delete(self.unicode_file)
        self.store(self.unicode_file, data)
        self.assertEqual(self.retrieve(self.unicode_file), data)

    def test_retr(self):
        data = b"abcd1234" * 500
        self.store(self.unicode_file, data)
        self.assertEqual(self.retrieve(self.unicode_file), data)


# =====================================================================
# --- dedicated FTPS tests
# =====================================================================


class TestFTPS(TestCase):
    """Specific tests for TLS."""

    def setUp(self):
        self.client = self.connect(ftplib.FTP_TLS)

    # ptportal: TLS is not optional (pyftpdlib's tls_control_required and tls_data_required).
    def test_auth(self):
        # unsecured
        with self.refused("530"):
            self.client.login(USER, PASSWORD, secure=False)
        self.assertNotIsInstance(self.client.sock, ssl.SSLSocket)
        # secured
        self.client.login(USER, PASSWORD)
        self.assertIsInstance(self.client.sock, ssl.SSLSocket)
        # AUTH issued twice
        self.assert_reply("auth tls", "503")
        # not tested by pyftpdlib: and still in TLS
        self.client.sendcmd("pwd")

    def test_auth_args(self):
        # not tested by pyftpdlib; RFC 2228: 504 for a mechanism that is not known
        self.assert_reply("auth", "501")
        self.assert_reply("auth kerberos_v4", "504")
        self.assert_reply("auth tls-c", "234")

    # ptportal: AUTH SSL is a name of times before TLS.
    def test_auth_ssl(self):
        self.assert_reply("auth ssl", "504")
        # FileZilla and ftplib go on with AUTH TLS.
        self.client.login(USER, PASSWORD)

    def test_pbsz(self):
        # unsecured; RFC 2228 section 3: "must be preceded by a successful security data exchange"
        self.assert_reply("pbsz 0", "503", "530")
        # secured
        self.client.login(USER, PASSWORD)
        self.assertTrue(self.assert_reply("pbsz 0", "200").startswith("200 PBSZ=0"))

    def test_prot(self):
        self.assert_reply("prot p", "503", "530")
        self.client.login(USER, PASSWORD)
        # secured
        self.client.prot_p()
        self.list_securely()
        # ptportal: no data in clear. The refused PROT C leaves PROT P as it is.
        with self.refused("534"):
            self.client.prot_c()
        self.assert_reply("prot s", "536")
        self.assert_reply("prot e", "536")
        self.assert_reply("prot x", "504")
        self.list_securely()

    def list_securely(self):
        sock = self.client.transfercmd("list")
        with contextlib.closing(sock):
            while sock.recv(1024):
                pass
            self.client.voidresp()
            self.assertIsInstance(sock, ssl.SSLSocket)

    def test_feat(self):
        feat = self.client.sendcmd("feat")
        for feature in ("AUTH TLS", "PBSZ", "PROT"):
            self.assertRegex(feat, rf"(?m)^ {feature}$")

    def test_unforseen_ssl_shutdown(self):
        self.client.login(USER, PASSWORD)
        sock = self.client.sock.unwrap()
        sock.settimeout(TIMEOUT)
        try:
            sock.sendall(b"noop\r\n")
            chunk = sock.recv(1024)
        except TimeoutError:
            raise
        except OSError:
            pass
        else:
            self.assertEqual(chunk, b"")
        sock.close()

    def test_tls_control_required(self):
        self.assert_reply("user " + USER, "530")
        self.assert_reply("pass " + PASSWORD, "530", "503")
        self.client.login(USER, PASSWORD, secure=True)

    def test_tls_data_required(self):
        self.client.login(USER, PASSWORD, secure=True)
        for cmd in ("list", "nlst", "mlsd"):
            with self.refused("521", "522"):
                self.client.retrlines(cmd, lambda line: None)
        # not tested by pyftpdlib: uploads, and over EPSV
        self.client.af = socket.AF_INET6
        with self.refused("521", "522"):
            self.client.storbinary(f"stor {FOLDER}/{fresh()}", io.BytesIO(b"x"))
        self.client.prot_p()
        self.client.retrlines("list", lambda line: None)

    def login_with(self, version):
        """Logs in with one TLS version and nothing else; gives what was agreed on."""
        context = tls_context()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
        client = FTPSClient(context=context, timeout=TIMEOUT)
        self.addCleanup(client.close)
        client.connect(HOST, PORT)
        client.login(USER, PASSWORD)
        client.retrlines("list", lambda line: None)
        return client.sock.version()

    # pyftpdlib's try_protocol_combo
    def test_protocol_combo(self):
        self.assertEqual(self.login_with(ssl.TLSVersion.TLSv1_3), "TLSv1.3")
        self.assertEqual(self.login_with(ssl.TLSVersion.TLSv1_2), "TLSv1.2")

    def test_old_protocols(self):
        # Of test_ssl_version and test_sslv2.
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with self.subTest(version), self.assertRaises(ssl.SSLError) as caught:
                self.login_with(version)
            # Refused by the server, not by this Python.
            self.assertIn("ALERT", str(caught.exception))
        self.client.login(USER, PASSWORD)

    # --- handshakes gone wrong; pyftpdlib has no tests for them from here on

    def end_of(self, sock):
        """All that comes until the server closes."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := sock.recv(BUFSIZE):
                received += chunk
        return received

    def test_clear_text_instead_of_handshake(self):
        self.assert_reply("auth tls", "234")
        self.client.sock.sendall(b"USER " + USER.encode() + b"\r\n")
        received = self.end_of(self.client.sock)
        self.assertNotIn(b"331", received)
        self.assertNotIn(b"530", received)

    def test_commands_behind_auth(self):
        self.client.sock.sendall(b"AUTH TLS\r\nUSER " + USER.encode() + b"\r\n")
        received = self.end_of(self.client.sock)
        self.assertTrue(received.startswith(b"421"), received)
        self.assertNotIn(b"331", received)

    def test_handshake_broken_off(self):
        for sent in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"):
            with self.subTest(sent):
                client = self.connect(ftplib.FTP_TLS)
                client.sendcmd("auth tls")
                client.sock.sendall(sent)
                client.close()
        self.client.login(USER, PASSWORD)

    def data_without_tls(self, cmd, sent):
        """The final reply to a transfer whose data connection speaks no TLS."""
        address = self.client.makepasv()
        with contextlib.closing(socket.create_connection(address, TIMEOUT)) as sock:
            self.assert_reply(cmd, "150")
            if sent:
                sock.sendall(sent)
            else:
                sock.close()
            return self.client.getmultiline()

    def test_data_handshake_gone_wrong(self):
        self.client.login(USER, PASSWORD)
        self.client.prot_p()
        folder = f"{FOLDER}/{fresh()}"
        self.client.mkd(folder)
        self.client.cwd(folder)
        name = fresh()
        for cmd in ("list", "stor " + name, "stou"):
            for sent in (b"", b"this is no TLS\r\n" * 100):
                with self.subTest(cmd=cmd, sent=sent[:16]):
                    resp = self.data_without_tls(cmd, sent)
                    self.assertIn(resp[:3], ("425", "426", "522", "535"), resp)
        # The session goes on, and nothing of it can be read.
        with self.refused("450", "550"):
            self.client.retrbinary("retr " + name, lambda chunk: None)
        self.client.storbinary("stor " + name, io.BytesIO(b"now with TLS"))
        received = io.BytesIO()
        self.client.retrbinary("retr " + name, received.write)
        self.assertEqual(received.getvalue(), b"now with TLS")


if __name__ == "__main__":
    unittest.main()
