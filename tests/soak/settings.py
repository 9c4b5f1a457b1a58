"""What every program of the soak shares: its settings and journals, one JSON object a line."""
import email
import email.policy
import hashlib
import json
import sys
import threading
import time
from pathlib import Path

DIR = Path(sys.argv[1])
SETTINGS = json.loads((DIR / "soak.json").read_text())
# A signature of the private scanner, never written down whole.
MARKER = bytes.fromhex(SETTINGS["marker"])


def sha(content):
    return hashlib.sha256(content).hexdigest()


class Journal:
    """Written through at once: what it says was so, also if its writer is killed."""

    def __init__(self, name):
        (DIR / "journals").mkdir(exist_ok=True)
        self.file = open(DIR / "journals" / f"{name}.jsonl", "a", buffering=1)
        self.lock = threading.Lock()

    def note(self, **what):
        with self.lock:
            self.file.write(json.dumps({"t": time.time(), **what}) + "\n")


def journal(name):
    path = DIR / "journals" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def text_of(path):
    mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    return "\n".join(part.get_content() for part in mail.walk() if part.get_content_maintype() == "text")
