#!/usr/bin/python3
"""From CLOSE to the answer with a real clamd, beside clamd's own time for the same bytes (1 MB, never the same twice)."""
import os, pathlib, shutil, socket, statistics, subprocess, sys, tempfile, time

import paramiko

BINARY = str(pathlib.Path("target/release/ptportal").resolve())
RUNS = 40


def clamd_alone(path, data):
    file = tempfile.TemporaryFile()
    file.write(data)
    file.flush()
    begin = time.monotonic()
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(b"zFILDES\0")
        socket.send_fds(s, [b"\0"], [file.fileno()])
        answer = s.recv(4096)
    assert answer.endswith(b"OK\0"), answer
    return time.monotonic() - begin


def main():
    base = pathlib.Path(tempfile.mkdtemp(prefix="ptportal-verdict-"))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen([BINARY, "demo", "--dir", base / "demo", "--port", str(port), "--ftps-port", str(port + 1)],
                              stdout=subprocess.DEVNULL, stderr=open(base / "log", "w"))
    try:
        while "scanner.ready" not in (base / "log").read_text():
            assert server.poll() is None, (base / "log").read_text()
            time.sleep(0.1)
        password = (base / "demo" / "password.txt").read_text().strip()
        transport = paramiko.Transport(("127.0.0.1", port))
        transport.connect(username="muster", password=password)
        sftp = paramiko.SFTPClient.from_transport(transport)
        alone, ours = [], []
        for run in range(RUNS):
            alone.append(clamd_alone(str(base / "demo" / "clamd" / "clamd.sock"), os.urandom(1_000_000)))
            file = sftp.open(f"/2026-0815/Eingehend/f{run}.bin", "wb")
            file.write(os.urandom(1_000_000))
            # Everything written is answered before the clock starts.
            file.stat()
            begin = time.monotonic()
            file.close()
            ours.append(time.monotonic() - begin)
        a, o = (statistics.median(v) * 1000 for v in (alone, ours))
        print(f"1 MB, {RUNS} runs: clamd alone {a:.1f} ms, CLOSE to answer {o:.1f} ms, {o - a:+.1f} ms (goal at most +20)")
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
