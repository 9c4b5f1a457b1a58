#!/usr/bin/env python3
"""What a customer sees of a virus: ptportal and ProFTPD with mod_clamav on the same files and the same clamd."""
import os, pathlib, shutil, subprocess, tempfile, time

import ftps
import scale

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


class Proftpd(ftps.Proftpd):
    def __init__(self, base, certificate, clamd):
        super().__init__(base, certificate)
        config = self.dir / "config"
        config.write_text(config.read_text().replace("LoadModule mod_tls.c\n", "LoadModule mod_tls.c\nLoadModule mod_clamav.c\n")
                          + f"ClamAV on\nClamLocalSocket {clamd}\nClamMaxSize 2 Gb\n")


def put(port, user, password, file, path):
    """Seconds until the client is told, and what it is told last."""
    begin = time.monotonic()
    done = subprocess.run(["curl", "-sS", "-v", "-k", "--ssl-reqd", "--noproxy", "*", "-u", f"{user}:{password}", "-T", file,
                           f"ftp://127.0.0.1:{port}/{path}"], capture_output=True, text=True)
    seconds = time.monotonic() - begin
    replies = [line[2:] for line in done.stderr.splitlines() if line.startswith(("< 226", "< 426", "< 45", "< 55"))]
    return seconds, replies[-1] if replies else done.stderr.strip().splitlines()[-1]


def fetch(port, user, password, path):
    return subprocess.run(["curl", "-sS", "-k", "--ssl-reqd", "--noproxy", "*", "-u", f"{user}:{password}", "-o", "/dev/null",
                           f"ftp://127.0.0.1:{port}/{path}"], capture_output=True).returncode == 0


def main():
    base = pathlib.Path(tempfile.mkdtemp(prefix="ptportal-virus-", dir="/dev/shm"))
    os.chmod(base, 0o755)
    ftps.remove_user()
    subprocess.run(["useradd", "--system", "--no-create-home", "--home-dir", base, "--shell", "/usr/sbin/nologin", ftps.USER], check=True)
    demo = scale.Demo(base, 1)
    certificate = base / "server"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-keyout", f"{certificate}.key", "-out", f"{certificate}.crt"], check=True, capture_output=True)
    clamd = demo.dir / "clamd" / "clamd.sock"
    for folder in (demo.dir, demo.dir / "clamd"):
        os.chmod(folder, 0o755)
    os.chmod(clamd, 0o666)
    files = {"clean, 1 MB": os.urandom(1_000_000), "EICAR, 1 MB": os.urandom(999_000) + EICAR,
             "EICAR behind 1.5 GB": os.urandom(1_500_000_000) + EICAR}
    server = Proftpd(base, certificate, clamd)
    try:
        server.start()
        for name, content in files.items():
            file = base / "file.bin"
            file.write_bytes(content)
            stem = name.replace(" ", "-").replace(",", "")
            for who, port, user, password, path in (
                ("ptportal", demo.ftps_port, "k0", scale.PASSWORD, f"P0/Eingehend/{stem}.bin"),
                ("ProFTPD", server.port, ftps.USER, ftps.PASSWORD, f"{stem}.bin"),
            ):
                seconds, said = put(port, user, password, file, path)
                at_once = fetch(port, user, password, path)
                time.sleep(40 if "GB" in name else 0)
                print(f"{name:20} {who:9} {seconds:6.1f} s  {said:90.90}  readable at once: {at_once}, later: {fetch(port, user, password, path)}")
    finally:
        server.stop()
        demo.stop()
        ftps.remove_user()
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
