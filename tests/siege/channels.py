"""What a customer who is logged in may not open: forwarding, agents, shells.

Usage: channels.py PORT USER KEYFILE. Prints what was given; nothing should be.
"""
import sys

import paramiko

t = paramiko.Transport(("127.0.0.1", int(sys.argv[1])))
t.connect(username=sys.argv[2], pkey=paramiko.Ed25519Key.from_private_key_file(sys.argv[3]))
here = ("127.0.0.1", int(sys.argv[1]))
for kind in ("direct-tcpip", "forwarded-tcpip", "x11", "auth-agent@openssh.com", "tun@openssh.com",
             "nonsense"):
    try:
        addresses = (here, here) if "tcpip" in kind else (None, here)
        t.open_channel(kind, *addresses, timeout=10)
        print("channel", kind)
    except paramiko.ChannelException:
        pass
for what in (lambda c: c.get_pty(), lambda c: c.request_x11(), lambda c: c.invoke_subsystem("shell")):
    c = t.open_session(timeout=10)
    try:
        what(c)
        print("request", what.__code__.co_names)
    except paramiko.SSHException:
        pass
    c.close()
# These two are answered by a line that says what is served, and end at once.
for what in (lambda c: c.invoke_shell(), lambda c: c.exec_command("id")):
    c = t.open_session(timeout=10)
    c.settimeout(10)
    what(c)
    told = c.recv_stderr(1000)
    if c.recv_exit_status() == 0 or b"sftp connections only" not in told or c.recv(1000):
        print("program", what.__code__.co_names, told)
    c.close()
try:
    t.request_port_forward("", 0)
    print("port forward")
except paramiko.SSHException:
    pass
print("the tree", paramiko.SFTPClient.from_transport(t).listdir("/"))
