"""Clients that hold on to a server without wanting anything from it.

Usage: clients.py KIND PORT COUNT SECONDS. Prints how many of them were cut off, and when the last one was.
  idle      connects and says nothing
  slow      sends its banner a byte every half second
  ignore    a good banner, then SSH_MSG_IGNORE for ever
  endless   a banner without an end
  kex       a good banner and KEXINIT, and half of what follows
  tls       begins TLS and does not go on
"""
import selectors
import socket
import struct
import sys
import time

kind, port, count, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
BANNER = b"SSH-2.0-Slow_1.0\r\n"
IGNORE = struct.pack(">IB", 12, 6) + b"\x02" + struct.pack(">I", 0) + b"\0" * 6
LISTS = ["curve25519-sha256", "ssh-ed25519", "aes128-gcm@openssh.com", "aes128-gcm@openssh.com", "hmac-sha2-256",
         "hmac-sha2-256", "none", "none", "", ""]
PAYLOAD = b"\x14" + b"c" * 16 + b"".join(struct.pack(">I", len(l)) + l.encode() for l in LISTS) + b"\0" * 5
PAD = 8 - (5 + len(PAYLOAD)) % 8 + 8
KEXINIT = struct.pack(">IB", len(PAYLOAD) + PAD + 1, PAD) + PAYLOAD + b"\0" * PAD
# ECDH_INIT with the head of a key.
HALF = struct.pack(">IBBI", 44, 6, 30, 32) + b"k" * 10
HELLO = bytes.fromhex("1603010200010001fc0303") + b"\0" * 40

began, cut, last = time.monotonic(), 0, 0.0
selector = selectors.DefaultSelector()
live = {}
for n in range(count):
    try:
        # Not the customer's address.
        s = socket.create_connection(("127.0.0.1", port), 5, source_address=("127.0.0.2", 0))
    except OSError:
        cut += 1
        continue
    s.setblocking(False)
    live[s] = 0
    selector.register(s, selectors.EVENT_READ)


def say(s, step):
    if kind == "slow":
        s.send(BANNER[step % len(BANNER):][:1] if step < len(BANNER) - 2 else b"x")
    elif kind == "ignore":
        s.send(BANNER if step == 0 else IGNORE)
    elif kind == "endless":
        s.send(b"SSH-2.0-" + b"x" * 4000 if step == 0 else b"x" * 4000)
    elif kind == "kex":
        s.send({0: BANNER, 1: KEXINIT, 2: HALF}.get(step, b""))
    elif kind == "tls":
        s.send(HELLO[step * 8:step * 8 + 8] or b"")


def drop(s):
    global cut, last
    cut, last = cut + 1, time.monotonic() - began
    selector.unregister(s)
    s.close()
    del live[s]


while live and time.monotonic() - began < seconds:
    for key, _ in selector.select(0.1):
        s = key.fileobj
        if s not in live:
            continue
        try:
            if not s.recv(65536):
                drop(s)
        except BlockingIOError:
            pass
        except OSError:
            drop(s)
    for s in list(live):
        try:
            say(s, live[s])
        except BlockingIOError:
            pass
        except OSError:
            drop(s)
            continue
        live[s] += 1
    time.sleep(0.4)
print(cut, round(last, 1))
