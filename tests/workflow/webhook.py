"""A receiver of webhooks that misbehaves on demand, and keeps what came.

Usage: webhook.py PORT FOLDER. FOLDER/mode says how to answer: ok, 500, 302, 410, reset (after reading the body), hang, endless.
Each call becomes a line of JSON in FOLDER/calls.
"""
import http.server
import json
import pathlib
import socket
import struct
import sys
import threading
import time

port, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
lock = threading.Lock()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        mode = (folder / "mode").read_text().strip()
        call = {"path": self.path, "mode": mode, "time": time.time(), "body": body, "headers": {k.lower(): v for k, v in self.headers.items()}}
        with lock, open(folder / "calls", "a") as calls:
            calls.write(json.dumps(call) + "\n")
        if mode == "reset":
            # The call has been taken, its answer is lost.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        if mode == "hang":
            time.sleep(60)
        if mode == "endless":
            self.send_response(500)
            self.end_headers()
            while True:
                self.wfile.write(b"x" * 1_000_000)
        status = {"ok": 200, "500": 500, "302": 302, "410": 410}.get(mode, 200)
        answer = b"x" * 100_000 if mode == "500" else b"thank you"
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:{port}/elsewhere")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (OSError, ValueError):
            self.close_connection = True


http.server.ThreadingHTTPServer(("127.0.0.1", port), Receiver).serve_forever()
