#!/usr/bin/env python3
"""The FTPS front beside vsftpd and ProFTPD: same certificate, client and cipher, alternating in one run, all files on tmpfs.

Scanning and mirror are off, so that the fronts are compared. ptportal's SHA-256, every fsync and commit are included; vsftpd
and ProFTPD neither hash nor fsync. Explicit TLS 1.3 with PROT P; that curl gets the wanted cipher on both connections is
checked at each start. CPU seconds are those of a server with all its processes, each transfer's login included: cgroups
count them, of version 2 or 1, and where neither may be made the process tree in /proc does, which misses the half of vsftpd
that nobody waits for. lftp sends small files as it does by itself, then with each one's size before it (ALLO): then nobody has
to wait whether it takes its end of data back. It sets each file's time after it (MFMT), except on vsftpd, which has no such
command.

Run it as root on a machine that may be thrown away: vsftpd wants a real user and a PAM service, both named ptportal-bench,
which are made and removed here. Needs proftpd-core, proftpd-mod-crypto, lftp and curl. Debian does not let vsftpd be
installed beside proftpd-core; it is fetched and unpacked (it needs libwrap0).
"""
import argparse, contextlib, ftplib, os, pathlib, pwd, shutil, signal, ssl, subprocess, sys, tempfile, time

import front
from front import free_port, median, peak, rss, until_listening, warm

CIPHER = "TLS_AES_128_GCM_SHA256"
GNUTLS = "NONE:+VERS-TLS1.3:+AES-128-GCM:+AEAD:+SIGN-ALL:+GROUP-ALL"
USER = "ptportal-bench"
PASSWORD = "Messlatte-2026-0815"
PAM = pathlib.Path("/etc/pam.d") / USER
TICK = os.sysconf("SC_CLK_TCK")


def new_group(name):
    """A cgroup that counts CPU time, or None where none may be made."""
    for line in open("/proc/mounts"):
        _, mount, kind, options, *_ = line.split()
        if kind == "cgroup2" or kind == "cgroup" and "cpuacct" in options.split(","):
            group = pathlib.Path(mount) / f"{USER}-{os.getpid()}-{name}"
            with contextlib.suppress(OSError):
                group.mkdir()
                return group
    return None


def tree(pid):
    """A process and everything below it."""
    found = [pid]
    for parent in found:
        for children in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, children.read_text().split())
    return found


class Server:
    root = ""

    def make(self, base):
        self.dir = base / self.name
        self.dir.mkdir()
        self.port = free_port()
        self.process = None
        self.clear()

    def clear(self):
        shutil.rmtree(self.dir / "root", ignore_errors=True)
        (self.dir / "root").mkdir()
        shutil.chown(self.dir / "root", USER)

    def start(self):
        self.group = new_group(self.name)
        enter = self.group and (lambda: (self.group / "cgroup.procs").write_text("0"))
        self.process = subprocess.Popen(self.command, cwd=self.dir, preexec_fn=enter)
        until_listening(self.port)

    def pids(self):
        return map(int, (self.group / "cgroup.procs").read_text().split()) if self.group else tree(self.process.pid)

    def cpu(self):
        if self.group and (self.group / "cpu.stat").exists():
            return int((self.group / "cpu.stat").read_text().split()[1]) / 1e6
        if self.group:
            return int((self.group / "cpuacct.usage").read_text()) / 1e9
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                # utime, stime, and both of the children that were waited for
                ticks += sum(map(int, pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
        return ticks / TICK

    def stop(self):
        if not self.process:
            return
        others = list(self.pids())
        self.process.terminate()
        try:
            self.process.wait(10)
        finally:
            # Sessions that outlive their listener, and a server that does not end.
            for pid in {*others, *(self.pids() if self.group else [])}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
            for _ in range(200 if self.group else 0):
                with contextlib.suppress(OSError):
                    self.group.rmdir()
                    break
                time.sleep(0.025)


class Portal(Server, front.Portal):
    name = "ptportal"

    def __init__(self, binary, base, certificate):
        key = base / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        port = free_port()
        self.ftps = (f'listen = ["127.0.0.1:{port}"]\npassive_ports = "20000-20999"\n'
                     f'certificate = "{certificate}.crt"\nprivate_key = "{certificate}.key"\n')
        front.Portal.__init__(self, binary, base, key)
        self.root = "1/Eingehend/"
        self.process = None
        self.command = [binary, "serve"]
        self.port = port
        subprocess.run([binary, "account", "password", self.user, "--stdin"], cwd=self.dir, check=True,
                       input=PASSWORD.encode(), stdout=subprocess.DEVNULL)

    clear = front.Portal.clear


class Vsftpd(Server):
    name = "vsftpd"
    user = USER

    def __init__(self, base, certificate):
        self.make(base)
        (self.dir / "empty").mkdir()
        (self.dir / "config").write_text(
            f"listen=YES\nlisten_address=127.0.0.1\nlisten_port={self.port}\nbackground=NO\nanonymous_enable=NO\n"
            f"local_enable=YES\nlocal_root={self.dir}/root\nwrite_enable=YES\npam_service_name={PAM.name}\n"
            f"secure_chroot_dir={self.dir}/empty\ndirmessage_enable=YES\nuse_localtime=YES\n"
            f"xferlog_enable=YES\nvsftpd_log_file={self.dir}/log\n"
            f"ssl_enable=YES\nrsa_cert_file={certificate}.crt\nrsa_private_key_file={certificate}.key\n"
            "require_ssl_reuse=NO\nmax_clients=0\nmax_per_ip=0\n"
        )
        self.command = [self.binary(), self.dir / "config"]

    def binary(self):
        if shutil.which("vsftpd"):
            return shutil.which("vsftpd")
        subprocess.run(["apt-get", "download", "-qq", "-oAPT::Sandbox::User=root", "vsftpd"], cwd=self.dir, check=True)
        subprocess.run(["dpkg", "-x", next(self.dir.glob("*.deb")), self.dir / "package"], check=True)
        return self.dir / "package/usr/sbin/vsftpd"


class Proftpd(Server):
    name = "ProFTPD"
    user = USER

    def __init__(self, base, certificate):
        self.make(base)
        subprocess.run(["ftpasswd", "--passwd", "--stdin", f"--file={self.dir}/users", f"--name={USER}", "--sha512",
                        f"--uid={pwd.getpwnam(USER).pw_uid}", f"--gid={pwd.getpwnam(USER).pw_gid}",
                        f"--home={self.dir}/root", "--shell=/bin/false"],
                       input=PASSWORD.encode(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (self.dir / "config").write_text(
            "LoadModule mod_tls.c\nServerType standalone\nUseIPv6 off\nUseReverseDNS off\n"
            f"DefaultAddress 127.0.0.1\nSocketBindTight on\nPort {self.port}\nUser {USER}\nGroup nogroup\nMaxInstances 300\n"
            f"Umask 022 022\nAllowOverwrite on\nRequireValidShell off\nAuthOrder mod_auth_file.c\nAuthUserFile {self.dir}/users\n"
            f"DelayEngine off\nWtmpLog off\nTransferLog {self.dir}/xferlog\nSystemLog {self.dir}/log\n"
            f"ScoreboardFile {self.dir}/scoreboard\nPidFile {self.dir}/pid\n"
            f"TLSEngine on\nTLSRequired on\nTLSProtocol TLSv1.3\nTLSOptions NoSessionReuseRequired\n"
            f"TLSECCertificateFile {certificate}.crt\nTLSECCertificateKeyFile {certificate}.key\n"
        )
        self.command = ["proftpd", "-n", "-q", "-c", self.dir / "config"]


class Broken(Exception):
    """A client says that its transfer failed."""


def run(server, *command):
    environment = {**os.environ, "LFTP_HOME": str(server.dir)}
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    if ended.returncode:
        raise Broken(f"{command[0]} and {server.name}: {ended.stderr or ended.stdout}")
    return ended.stdout


def curl(server, path, *arguments):
    return run(server, "curl", "-q", "-sS", "--ssl-reqd", "-k", "--tlsv1.3", "--tls13-ciphers", CIPHER, *arguments,
               "--user", f"{server.user}:{PASSWORD}", f"ftp://127.0.0.1:{server.port}/{server.root}{path}")


def one(server, path, *arguments):
    """Seconds from the transfer command to its 226 by curl's own clock. Before that command curl 7.88 often sleeps until its
    next timer, 0.2 to 1 s later, because it looks at the wrong connection; that says nothing about the servers."""
    begin, end = curl(server, path, *arguments, "-w", "%{time_pretransfer} %{time_total}").split()
    return float(end) - float(begin)


def mirror(server, folder, target, allo):
    """Seconds of lftp, all in all. With its own list of authorities it would read that for each file, longer than the
    transfer takes."""
    begin = time.monotonic()
    run(server, "lftp", "-c", f"set ssl:ca-file {server.dir.parent}/server.crt; set ssl:verify-certificate no;"
        f"set ssl:priority {GNUTLS}; set ftp:ssl-force yes; set ftp:ssl-protect-data yes; set net:max-retries 1;"
        f"set ftp:use-allo {allo};"
        "set cmd:fail-exit yes;"
        f"open -u {server.user},{PASSWORD} -p {server.port} 127.0.0.1; mirror -R --parallel=1 {folder} {server.root}{target}")
    return time.monotonic() - begin


def log_in(server):
    """A first session, so that none of its costs fall on what is measured; looks at the TLS of both connections."""
    said = curl(server, "", "-v", "--stderr", "-")
    if said.count(f"SSL connection using TLSv1.3 / {CIPHER}") != 2:
        sys.exit(f"{server.name} does not use {CIPHER} for both connections:\n{said}")


def measure(server, transfer, *arguments, tries=10):
    warm()
    before = server.cpu()
    try:
        wall = transfer(server, *arguments)
    except Broken as broken:
        # vsftpd sends tickets on data connections of TLS 1.3; a client that closes without reading them resets its upload.
        if server.name != "vsftpd" or tries == 1:
            raise
        print(f"again: {str(broken).splitlines()[-1]}", file=sys.stderr)
        return measure(server, transfer, *arguments, tries=tries - 1)
    # The server's side of the session ends after the client's.
    time.sleep(0.3)
    return wall, server.cpu() - before


def row(name, of, figure, *ratios):
    figures = [f"{server} {figure(wall)} {cpu:5.2f} CPU-s" for server, (wall, cpu) in of.items()]
    print(f"{name:<16}", *figures, *ratios, sep="   ")


def big(servers, base, options):
    file, back = base / "big.bin", base / "back.bin"
    with open(file, "wb") as out:
        for _ in range(options.mib):
            out.write(os.urandom(1 << 20))
    up, down = {}, {}
    for turn in range(options.runs):
        for server in servers:
            server.start()
            log_in(server)
            up.setdefault(server.name, []).append(measure(server, one, f"big{turn}.bin", "-T", file))
            down.setdefault(server.name, []).append(measure(server, one, f"big{turn}.bin", "-o", back))
            subprocess.run(["cmp", file, back], check=True)
            server.stop()
            server.clear()
    for name, results, bound in ("up", up, "1.00"), ("down", down, "0.70"):
        of = medians(results)
        wall = of["ptportal"][0] / min(of["vsftpd"][0], of["ProFTPD"][0])
        cpu = of["ptportal"][1] / of["ProFTPD"][1]
        row(f"{options.mib} MiB {name}", of, lambda wall: f"{wall:6.2f} s",
            f"wall x{wall:.2f} of the faster (goal 0.90)", f"CPU x{cpu:.2f} of ProFTPD (goal {bound})")


def small(servers, base, options):
    folder = base / "small"
    folder.mkdir()
    for n in range(options.files):
        (folder / f"f{n:05}.bin").write_bytes(os.urandom(10240))
    results = {"no": {}, "yes": {}}
    for turn in range(options.runs):
        for server in servers:
            for allo, of in results.items():
                server.start()
                log_in(server)
                of.setdefault(server.name, []).append(measure(server, mirror, folder, f"s{turn}{allo}", allo))
                server.stop()
                server.clear()
    for allo, of in results.items():
        of = medians(of)
        rate = min(of["vsftpd"][0], of["ProFTPD"][0]) / of["ptportal"][0]
        row(f"{options.files} x 10 KiB, ALLO {allo}", of, lambda wall: f"{options.files / wall:4.0f} files/s",
            f"rate x{rate:.2f} of the faster")


def medians(results):
    return {name: [median(values) for values in zip(*runs)] for name, runs in results.items()}


def memory(portal, base, options):
    """One session's memory above idle while it transfers, and what 100 idle sessions cost."""
    file = base / "memory.bin"
    with open(file, "wb") as out:
        for _ in range(options.mib):
            out.write(os.urandom(1 << 20))
    portal.start()
    pid = portal.process.pid
    fresh = rss(pid)
    log_in(portal)
    before = rss(pid)
    # Forgets the peak so far: hashing a password takes 19 MiB for a moment.
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
    curl(portal, "memory.bin", "-T", file)
    curl(portal, "memory.bin", "-o", "/dev/null")
    print(f"one transfer: {(peak(pid) - before) / 1024:.1f} MiB above idle (goal at most 16); "
          f"idle is {fresh / 1024:.1f} MiB fresh and {before / 1024:.1f} after a first login")
    portal.stop()
    portal.clear()
    portal.start()
    log_in(portal)
    before = rss(portal.process.pid)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sessions = []
    for _ in range(100):
        session = ftplib.FTP_TLS(context=context)
        session.connect("127.0.0.1", portal.port)
        session.login(portal.user, PASSWORD)
        session.prot_p()
        sessions.append(session)
    time.sleep(2)
    print(f"100 idle sessions: {(rss(portal.process.pid) - before) / 100:.0f} kB each (goal at most 150)")
    for session in sessions:
        session.quit()
    portal.stop()


def remove_user():
    PAM.unlink(missing_ok=True)
    with contextlib.suppress(KeyError):
        pwd.getpwnam(USER)
        subprocess.run(["userdel", USER], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/ptportal")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=["big", "small", "memory"])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with contextlib.ExitStack() as at_exit:
        base = pathlib.Path(tempfile.mkdtemp(prefix="ptportal-bench-", dir="/dev/shm"))
        at_exit.callback(shutil.rmtree, base)
        at_exit.callback(pathlib.Path(f"/dev/shm/ptportal-warm-{os.getpid()}").unlink, missing_ok=True)
        # vsftpd and ProFTPD come to their files as that user.
        base.chmod(0o711)
        remove_user()
        at_exit.callback(remove_user)
        subprocess.run(["useradd", "--system", "--no-create-home", "--home-dir", base, "--shell", "/usr/sbin/nologin", USER],
                       check=True)
        PAM.write_text("auth required pam_permit.so\naccount required pam_permit.so\n")
        certificate = base / "server"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{certificate}.key",
                        "-out", f"{certificate}.crt"], check=True, stderr=subprocess.DEVNULL)
        portal = Portal(str(pathlib.Path(options.binary).resolve()), base, certificate)
        servers = [portal, Vsftpd(base, certificate), Proftpd(base, certificate)]
        for server in servers:
            at_exit.callback(server.stop)
        # First: later the database's own cache, of a bounded size, grows with its rows.
        if options.only in (None, "memory"):
            memory(portal, base, options)
        if options.only in (None, "big"):
            big(servers, base, options)
        if options.only in (None, "small"):
            small(servers, base, options)


if __name__ == "__main__":
    main()
