"""How long a refusal takes for a name that exists and for one that does not.

Usage: timing.py sftp|ftps|page|link PORT USER COUNT. Prints both medians in milliseconds.
"""
import ftplib
import http.client
import ssl
import statistics
import sys
import time
import urllib.parse

import paramiko

what, port, user, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])


def source(n):
    """Each pair from an address of its own, so that no limit answers in place of the check."""
    return f"127.1.{n // 200}.{n % 200 + 1}"


def sftp(name, n):
    t = paramiko.Transport(("127.0.0.1", port))
    t.start_client(timeout=10)
    began = time.perf_counter()
    try:
        t.auth_password(name, "falsch geraten", fallback=False)
    except paramiko.AuthenticationException:
        pass
    took = time.perf_counter() - began
    t.close()
    return took


def ftps(name, n):
    context = ssl._create_unverified_context()
    f = ftplib.FTP_TLS(context=context, timeout=20)
    f.connect("127.0.0.1", port)
    f.auth()
    began = time.perf_counter()
    try:
        f.sendcmd("USER " + name)
        f.sendcmd("PASS falsch geraten")
    except ftplib.error_perm:
        pass
    took = time.perf_counter() - began
    f.close()
    return took


def post(path, fields, n):
    c = http.client.HTTPConnection("localhost", port, timeout=20, source_address=(source(n), 0))
    c.connect()
    began = time.perf_counter()
    c.request("POST", path, urllib.parse.urlencode(fields), {
        "Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"})
    answer = c.getresponse()
    body = answer.read()
    took = time.perf_counter() - began
    c.close()
    seen.add((answer.status, len(body) - body.count(fields["username"].encode()) * len(fields["username"])))
    return took


seen = set()
run = {"sftp": sftp, "ftps": ftps,
       "page": lambda name, n: post("/", {"username": name, "password": "falsch geraten"}, n),
       "link": lambda name, n: post("/link", {"username": name}, n)}[what]
times = {True: [], False: []}
for n in range(count):
    for known in ((True, False) if n % 2 else (False, True)):
        times[known].append(run(user if known else f"gibt-es-nicht-{n}"[:len(user) + 12], n) * 1000)
assert len(seen) <= 1, seen
print(round(statistics.median(times[True]), 2), round(statistics.median(times[False]), 2))
