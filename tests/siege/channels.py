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
for what in (lambda c: c.get_pty(), lambda c: c.invoke_shell(), lambda c: c.exec_command("id"),
             lambda c: c.request_x11(), lambda c: c.request_forward_agent(print) or (_ for _ in ()).throw(
                 paramiko.SSHException("no answer wanted")),
             lambda c: c.set_environment_variable("LD_PRELOAD", "/tmp/x"), lambda c: c.invoke_subsystem("shell")):
    c = t.open_session(timeout=10)
    try:
        what(c)
        print("request", what.__code__.co_names)
    except paramiko.SSHException:
        pass
    c.close()
try:
    t.request_port_forward("", 0)
    print("port forward")
except paramiko.SSHException:
    pass
print("the tree", paramiko.SFTPClient.from_transport(t).listdir("/"))
