"""Every message number in every phase of SSH, where it does not belong.

Usage: phases.py PORT USER KEYFILE. Exits with 0 if no stranger ever got a channel, a service or a login by it.
"""
import socket
import struct
import sys

import paramiko
from paramiko.common import MSG_USERAUTH_SUCCESS

port, user = int(sys.argv[1]), sys.argv[2]
key = paramiko.Ed25519Key.from_private_key_file(sys.argv[3])
# What only somebody who is logged in may see: USERAUTH_SUCCESS, CHANNEL_OPEN_CONFIRMATION, CHANNEL_DATA,
# CHANNEL_SUCCESS.
PRIZES = {52, 91, 94, 99}
OPEN = struct.pack(">I", 7) + b"session" + struct.pack(">III", 0, 1 << 20, 1 << 15)


def bodies(number):
    """What may stand behind the number: nothing, a good channel, a good request, nonsense."""
    request = struct.pack(">I", len(user)) + user.encode() + struct.pack(">I", 14) + b"ssh-connection"
    return [b"", OPEN, request + struct.pack(">I", 4) + b"none", bytes(range(64))] if number in (
        50, 52, 60, 61, 90) else [OPEN]


def plain(number, body):
    """Before any key exchange, unencrypted."""
    s = socket.create_connection(("127.0.0.1", port), 5)
    s.settimeout(0.05)
    s.sendall(b"SSH-2.0-Phases_1.0\r\n")
    payload = bytes([number]) + body
    got = b""
    try:
        for packet in (payload, b"\x5a" + OPEN):
            pad = 8 - (5 + len(packet)) % 8 + 8
            s.sendall(struct.pack(">IB", len(packet) + pad + 1, pad) + packet + b"\0" * pad)
        while True:
            piece = s.recv(65536)
            if not piece:
                break
            got += piece
    except (TimeoutError, OSError):
        pass
    s.close()
    rest = got.split(b"\r\n", 1)[1] if b"\r\n" in got else b""
    while len(rest) >= 6:
        length = struct.unpack(">I", rest[:4])[0]
        assert rest[5] not in PRIZES | {6}, (number, rest[5])
        rest = rest[4 + length:]


class Watched(paramiko.Transport):
    """Writes down which messages come."""

    def __init__(self, sock):
        super().__init__(sock)
        self.seen = []
        read = self.packetizer.read_message

        def watched():
            kind, message = read()
            self.seen.append(kind)
            return kind, message

        self.packetizer.read_message = watched


def encrypted(numbers, login):
    """After the key exchange; `login` brings the connection into the phase. Gives the numbers that were not reached."""
    t = Watched(socket.create_connection(("127.0.0.1", port), 5))
    t.start_client(timeout=10)
    login(t)
    rest = list(numbers)
    while rest and t.is_active():
        number = rest.pop(0)
        for body in bodies(number):
            for payload in (bytes([number]) + body, b"\x5a" + OPEN):
                try:
                    t._send_message(paramiko.Message(payload))
                except Exception:
                    break
        if number in (1, 20, 21, 30, 31, 50) or number % 16 == 0:
            # These may end it: see what comes before the next.
            t.join(0.1)
    t.join(0.3)
    seen = set(t.seen)
    t.close()
    return rest, seen


def every(login, may):
    rest = list(range(1, 256))
    rounds = 0
    while rest:
        left, seen = encrypted(rest, login)
        assert not (seen & PRIZES) - may, (rest[0], seen & PRIZES)
        rest = left if len(left) < len(rest) else rest[1:]
        rounds += 1
    return rounds


for number in range(1, 256):
    plain(number, bodies(number)[-1])
print("before the key exchange: 255")


def refused(t):
    try:
        t.auth_password(user, "falsch")
    except paramiko.SSHException:
        pass


print("before the service:", every(lambda t: None, set()))
print("after a refused password:", every(refused, set()))
# Logged in, the numbers of the key exchange and of the login have no effect on others; a channel may be had.
print("logged in:", every(lambda t: t.auth_publickey(user, key), {MSG_USERAUTH_SUCCESS, 91}))

# Another name between two attempts: what one name has shown counts for no other.
t = Watched(socket.create_connection(("127.0.0.1", port), 5))
t.start_client(timeout=10)
refused(t)
for name in ("stranger", "zweite"):
    try:
        t.auth_publickey(name, key)
        raise AssertionError("logged in as " + name)
    except paramiko.AuthenticationException:
        pass
t.auth_publickey(user, key)
names = paramiko.SFTPClient.from_transport(t).listdir("/")
print("the tree of", user, names)
