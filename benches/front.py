#!/usr/bin/env python3
"""The SFTP front beside OpenSSH's sshd: same client, same cipher, alternating in one run, all files on tmpfs.

Scanning and mirror are off, so that the fronts are compared; SHA-256 and every fsync and commit are included.
Prints wall time and CPU of the server for 1 GiB up and down, files per second for small files, and memory.
"""
import argparse, json, os, pathlib, resource, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

TICK = os.sysconf("SC_CLK_TCK")
CIPHER = "aes128-gcm@openssh.com"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until_listening(port):
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.025)
    sys.exit(f"nothing listens on port {port}")


def rss(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def peak(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    return 0


class Portal:
    name = "ptportal"
    ftps = "listen = []\n"

    def __init__(self, binary, base, key):
        self.dir = base / "portal"
        self.dir.mkdir()
        self.port = free_port()
        self.user = "bench"
        self.root = "/1/Eingehend"
        (self.dir / "ptportal.toml").write_text(
            f'[sftp]\nlisten = ["127.0.0.1:{self.port}"]\n[scan]\nclamd = "off"\naccept_unscanned = true\n'
            f'[ftps]\n{self.ftps}[admin]\nlisten = []\n[web]\nlisten = []\n[api]\nlisten = []\n[hotfolder]\nroot = ""\ndeliver_repeats = true\n'
            '[limits]\nconnections_per_ip = 200\nsessions_per_account = 200\nmin_free = "1MiB"\n[log]\nlevel = "warn"\n'
        )
        self.binary = binary
        self.cli("client", "add", "1", "--name", "Bench", "--create-hotfolder")
        self.cli("account", "create", "1", "--username", self.user)
        self.cli("account", "key", "add", self.user, f"{key}.pub")
        self.cli("project", "add", "1", "1")

    def cli(self, *arguments):
        subprocess.run([self.binary, *arguments], cwd=self.dir, check=True, stdout=subprocess.DEVNULL)

    def start(self):
        self.process = subprocess.Popen([self.binary, "serve"], cwd=self.dir)
        until_listening(self.port)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(self.process.pid, 0)
        return usage.ru_utime + usage.ru_stime

    def clear(self):
        """Old versions stay until retention; the bench must not fill tmpfs with them."""
        for file in (self.dir / "data" / "vault").glob("??/*"):
            file.unlink()

    def place(self, source, name):
        pass


class Sshd:
    name = "sshd"

    def __init__(self, base, key):
        self.dir = base / "sshd"
        self.dir.mkdir()
        self.port = free_port()
        self.user = "root"
        self.root = str(self.dir / "root")
        os.mkdir(self.root)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.dir / "host"], check=True)
        shutil.copy(f"{key}.pub", self.dir / "authorized")
        (self.dir / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.dir}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.dir}/authorized\nStrictModes no\nPermitRootLogin yes\n"
            "Subsystem sftp internal-sftp\nMaxStartups 500\nLogLevel ERROR\n"
        )
        os.makedirs("/run/sshd", exist_ok=True)

    def start(self):
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", self.dir / "config"])
        until_listening(self.port)

    def stop(self):
        # sshd's sessions are its children; wait4 adds up what it has waited for.
        time.sleep(0.3)
        self.process.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(self.process.pid, 0)
        return usage.ru_utime + usage.ru_stime

    def clear(self):
        shutil.rmtree(self.root)
        os.mkdir(self.root)


def sftp(server, key, batch):
    command = [
        "sftp", "-q", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR",
        f"-oCiphers={CIPHER}", "-oIdentitiesOnly=yes", "-i", str(key), "-P", str(server.port), "-b", "-",
        f"{server.user}@127.0.0.1",
    ]
    begin = time.monotonic()
    subprocess.run(command, input=batch.encode(), check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def measure(server, key, batch, before=None):
    server.start()
    if before:
        sftp(server, key, before)
    idle = sftp(server, key, "pwd\n")
    warm()
    wall = sftp(server, key, batch)
    cpu = server.stop()
    return wall, cpu, idle


def median(values):
    return statistics.median(values)


def row(name, ours, theirs, bounds):
    wall, cpu = ours[0] / theirs[0], ours[1] / theirs[1]
    print(f"{name:<22} ptportal {ours[0]:6.2f} s {ours[1]:6.2f} CPU-s   sshd {theirs[0]:6.2f} s {theirs[1]:6.2f} CPU-s"
          f"   wall x{wall:.2f} (goal {bounds[0]})  CPU x{cpu:.2f} (goal {bounds[1]})")
    return {"name": name, "wall": wall, "cpu": cpu}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default="target/release/ptportal")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    binary = str(pathlib.Path(options.binary).resolve())
    base = pathlib.Path(tempfile.mkdtemp(prefix="ptportal-bench-", dir="/dev/shm"))
    try:
        key = base / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        servers = [Portal(binary, base, key), Sshd(base, key)]
        big = base / "big.bin"
        with open(big, "wb") as out:
            for _ in range(options.mib):
                out.write(os.urandom(1 << 20))
        small = base / "small"
        small.mkdir()
        for n in range(options.files):
            (small / f"f{n:05}.bin").write_bytes(os.urandom(10240))
        # First: later the database's own cache, of a bounded size, grows with its rows.
        memory(servers[0], key, big)
        results = {"up": {}, "down": {}, "small": {}}
        for run in range(options.runs):
            for server in servers:
                up = measure(server, key, f"put {big} {server.root}/big.bin\n")
                results["up"].setdefault(server.name, []).append(up)
                server.start()
                # The same bytes again, then only the download is measured.
                server_down = measure_down(server, key, base)
                results["down"].setdefault(server.name, []).append(server_down)
                if run == 0 and server.name == "ptportal":
                    subprocess.run(["cmp", big, base / "back.bin"], check=True)
                server.clear()
                many = measure(server, key, f"mkdir {server.root}/s{run}\nlcd {small}\ncd {server.root}/s{run}\nput *\n")
                results["small"].setdefault(server.name, []).append(many)
                server.clear()
        pick = lambda kind, name: [median([r[i] for r in results[kind][name]]) for i in (0, 1)]
        row(f"{options.mib} MiB up", pick("up", "ptportal"), pick("up", "sshd"), ("0.75", "0.80"))
        row(f"{options.mib} MiB down", pick("down", "ptportal"), pick("down", "sshd"), ("0.90", "0.45"))
        ours, theirs = pick("small", "ptportal"), pick("small", "sshd")
        rate = lambda r: options.files / r[0]
        print(f"{options.files} x 10 KiB up      ptportal {rate(ours):6.0f} files/s {ours[1]:5.2f} CPU-s   sshd {rate(theirs):6.0f} files/s"
              f" {theirs[1]:5.2f} CPU-s   rate x{rate(ours) / rate(theirs):.2f} (goal at least 0.70)")
    finally:
        shutil.rmtree(base)


def warm():
    """Touches the memory that tmpfs will use: a virtual machine pays for each page at its first use, and its host may
    take free pages back within seconds. So it is done right before each measured transfer."""
    path = f"/dev/shm/ptportal-warm-{os.getpid()}"
    with open(path, "wb") as out:
        for _ in range(1536):
            out.write(bytes(1 << 20))
    os.unlink(path)


def measure_down(server, key, base):
    warm()
    wall = sftp(server, key, f"get {server.root}/big.bin {base}/back.bin\n")
    return wall, server.stop(), 0


def memory(portal, key, big):
    """One session's memory above idle while it transfers, and what 100 idle sessions cost."""
    portal.start()
    sftp(portal, key, "pwd\n")
    before = rss(portal.process.pid)
    sftp(portal, key, f"put {big} {portal.root}/memory.bin\nget {portal.root}/memory.bin /dev/null\n")
    print(f"one transfer: {(peak(portal.process.pid) - before) / 1024:.1f} MiB above idle (goal at most 16)")
    portal.stop()
    portal.clear()
    portal.start()
    sftp(portal, key, "pwd\n")
    before = rss(portal.process.pid)
    command = ["sftp", "-q", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR",
               "-oIdentitiesOnly=yes", "-i", str(key), "-P", str(portal.port), f"{portal.user}@127.0.0.1"]
    sessions = []
    for _ in range(100):
        sessions.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
    time.sleep(8)
    idle = rss(portal.process.pid) - before
    print(f"100 idle sessions: {idle / 100:.0f} kB each (goal at most 150)")
    for session in sessions:
        session.stdin.close()
        session.wait()
    portal.stop()


if __name__ == "__main__":
    main()
