"""A portal in wrong hands: what it hands out leads out of the hotfolder.

Usage: portal.py PORT ID. Every claim gives one delivery with that id; every other answer is what a puller would like.
"""
import hashlib
import http.server
import json
import sys

port, evil = int(sys.argv[1]), sys.argv[2]
CONTENT = b"from the portal"


class Portal(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self.path.endswith("/claim"):
            return self.answer(200, b"{}")
        delivery = {
            "id": evil, "upload_id": "01K1Q4ZB125X8V3M7T2R6N9W1H", "consumer": "mirror", "lease": "pull/x", "lease_seconds": 120,
            "attempt": 1, "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest(), "mtime": 0,
            "folders": ["..", "..", "etc"], "name": "../../passwd", "recorded": None, "replaces": None,
        }
        self.answer(200, json.dumps({"deliveries": [delivery]}).encode())

    def do_GET(self):
        if self.path.endswith("/content"):
            return self.answer(200, CONTENT, "application/octet-stream")
        if self.path.endswith("/folders"):
            folder = {"project_no": "P", "folder": "geheim", "below": ["geheim"], "made": True, "files": []}
            return self.answer(200, json.dumps({"folders": [folder], "temporary_names": []}).encode())
        self.answer(200, b"[]")

    def do_PUT(self):
        open(sys.argv[3], "w").close()
        self.answer(201, b"{}")

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", port), Portal).serve_forever()
