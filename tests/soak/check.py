"""Holds the server to its promises after a soak: invariants I1 to I16.

check.py DIR. Reads the journals of customers, consumer, staff, observer and faults, the database, the disk, the log, the mails
and what the hooks wrote. Prints a line for each invariant and ends with 1 if one does not hold.
"""
import collections
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

from settings import DIR, SETTINGS, journal, sha, text_of

customers, taken, links = journal("customers"), [t for t in journal("taken")], journal("links")
observed, faults = journal("observed"), journal("faults")
commands, links = [n for n in links if "command" in n], [n for n in links if "token" in n]
db = sqlite3.connect(DIR / "data/ptportal.db")
db.row_factory = sqlite3.Row
uploads = [dict(row) for row in db.execute("SELECT * FROM uploads")]
events = [dict(row) for row in db.execute("SELECT * FROM events ORDER BY seq")]
deliveries = [dict(row) for row in db.execute("SELECT * FROM deliveries")]
ends = [note for note in customers if "seen" in note]
begun = [note for note in customers if note.get("begin")]
arrived = collections.Counter(t["sha"] for t in taken if "sha" in t)
released = collections.defaultdict(list)
for row in uploads:
    if row["state"] == "released":
        released[row["sha256"]].append(row)
whole = {note["sha"]: note for note in begun if note["kind"] in ("put", "again")}
accepted = {note["sha"]: note for note in ends if note["kind"] in ("put", "again") and note["seen"] == "ok"}
failed = False


def holds(name, what, wrong, note=""):
    """A line of the report; `wrong` lists what speaks against it."""
    global failed
    wrong = list(wrong)
    failed |= bool(wrong)
    print(f"{name:4} {'VIOLATED' if wrong else 'holds   '}  {what}{': ' + note if note else ''}")
    for one in wrong[:8]:
        print(f"       {str(one)[:600]}")
    if len(wrong) > 8:
        print(f"       … and {len(wrong) - 8} more")


def vault():
    """Id to (size, sha256) of what lies in the vault."""
    found = {}
    for path in (DIR / "data/vault").glob("*/*"):
        if path.suffix != ".json":
            content = path.read_bytes()
            found[path.name] = (len(content), sha(content))
    return found


def trail(note):
    """What the rows and the journals say about one content."""
    rows = [(r["id"], r["path"], r["state"], r["version"], r["repeat_of"]) for r in uploads if r["sha256"] == note["sha"]]
    said = [(n["way"], n["seen"], n["text"][-80:]) for n in ends if n.get("sha") == note["sha"]]
    return note["path"], arrived[note["sha"]], rows, said


stored = vault()
few = {"sftp", "ftps"} - {n["protocol"] for n in accepted.values()}
holds("I1", "what was accepted has one row and its bytes in the vault",
      [trail(n) for s, n in accepted.items()
       if len(released[s]) != 1 or stored.get(released[s][0]["id"]) != (n["size"], s)]
      + [f"nothing was accepted over {p}" for p in few], f"{len(accepted)} uploads")
holds("I2", "it was taken once, and nothing is left to do",
      [trail(n) for s, n in accepted.items() if arrived[s] != 1]
      + [d for d in deliveries if d["state"] not in ("done", "cancelled", "superseded")], f"{len(taken)} files taken")
holds("I3", "no consumer saw anything else", [t for t in taken if t.get("sha") not in whole])
cut = {note["sha"] for note in begun if note["kind"] == "broken"}
holds("I4", "what was cut off never arrived", [t for t in taken if t.get("sha") in cut], f"{len(cut)} cut off")
unanswered = {s for s in whole if s not in accepted}
holds("I5", "what failed arrived whole and once, or not at all",
      [trail(whole[s]) for s in unanswered if arrived[s] > 1], f"{len(unanswered)} never accepted")
viruses = [n for n in begun if n["kind"] == "virus"]
caught = [r for r in uploads if r["state"] == "infected"]
holds("I6", "no virus in a hotfolder, hidden files included",
      [t for t in taken if t.get("virus")] + [r for r in caught if any(d["upload_id"] == r["id"] for d in deliveries)]
      + ([] if caught or not viruses else ["none was caught at all"]), f"{len(caught)} of {len(viruses)} caught, the rest cut off")
holds("I7", "what others put into the hotfolder is as it was",
      [p for p, content in SETTINGS["foreign"].items()
       if not (DIR / p).is_file() or (DIR / p).read_text() != content], f"{len(SETTINGS['foreign'])} files")
sound = subprocess.run([SETTINGS["binary"], "--config", DIR / "ptportal.toml", "--json", "fsck", "--deep"], cwd=DIR,
                       capture_output=True, text=True)
kept = {r["id"] for r in uploads if r["content"] == "kept" and r["state"] in ("released", "held", "scanning")}
unfinished = {r["id"] for r in uploads if r["state"] in ("receiving", "incomplete")}
spool = {p.name for p in (DIR / "data/spool").iterdir() if p.is_file()}
holds("I8", "vault and rows are the same set, no spool file without a row",
      ([] if sound.returncode == 0 else [sound.stdout + sound.stderr])
      + [f"no row: {i}" for i in stored.keys() - kept] + [f"no file: {i}" for i in kept - stored.keys()]
      + [f"spool: {i}" for i in spool - unfinished], f"{len(stored)} files")
final = {"done", "cancelled", "superseded"}
before, steps = {}, []
for note in observed:
    for row, state, attempts in note.get("deliveries", []):
        was = before.get(row)
        if was and (was[0] in final and state != was[0] or attempts < was[1]):
            steps.append((row, was, (state, attempts)))
        before[row] = (state, attempts)
holds("I9", "deliveries go forward only, one for each upload and consumer",
      steps + [k for k, n in collections.Counter((d["upload_id"], d["consumer"]) for d in deliveries).items() if n > 1],
      f"{len(before)} watched")
spies = [n for n in ends if n["kind"] == "spy"]
client = {a["user"]: a["client"] for a in SETTINGS["accounts"]}
holds("I10", "each customer's files are that customer's alone",
      [n for n in spies if n["found"] or n["listed"]]
      + [t for t in taken if "head" in t and f"/{client.get(t['head'].split(' ')[0])}/" not in f"/{t['folder']}"]
      + [r["path"] for s, n in whole.items() for r in released[s] if r["username"] != n["who"]]
      + [trail(n) for n in ends if n["kind"] == "back" and n["seen"] == "ok" and whole.get(n["sha"], {}).get("path") != n["path"]]
      + ([] if spies else ["nobody looked"]), f"{len(spies)} looks at the other's folder")
used = db.execute("SELECT COUNT(*) FROM ptportal_account_activation WHERE used > 0").fetchone()[0]
changed = [e for e in events if '"password"' in e["detail"] and e["kind"] == "account.changed"]
good = sum(link["answers"].count(303) for link in links)
unsure = sum(not isinstance(a, int) for link in links for a in link["answers"])
holds("I11", "a link works once, and no password changes without one",
      [link for link in links if link["answers"].count(303) > 1]
      + ([] if good <= used <= good + unsure else [f"{used} links used, {good} seen"])
      + ([] if links else ["no link was tried"]), f"{used} links used")
longest = max(n["ms"] for n in commands)
holds("-", "commands beside the server succeed", [n for n in commands if n["failed"]],
      f"{len(commands)} commands, the longest took {longest} ms")
secrets = [(a["user"], a["password"]) for a in SETTINGS["accounts"]] + [("token", link["token"]) for link in links]
secrets += [("webhook", SETTINGS["webhook_secret"])]
places = [DIR / "server.log", DIR / "stderr", DIR / "hooks.log", *(DIR / "data").glob("ptportal.db*")]
places += [p for p in (DIR / "data").glob("mail/*")]
mails = {p: text_of(p) for p in (DIR / "mails").glob("*.eml")}
shown = [f"{kind} in {p.name}" for kind, secret in secrets for p in places if p.exists() and secret.encode() in p.read_bytes()]
shown += [f"{kind} in {p.name}" for kind, secret in secrets if kind != "token" for p, text in mails.items() if secret in text]
address = {a["mail"] for a in SETTINGS["accounts"][-1:]}
for link in links:
    for path, text in mails.items():
        to = re.search(rb"^To: .*?([\w.]+@[\w.]+)", path.read_bytes(), re.M)
        if link["token"] in text and (not to or to[1].decode() not in address):
            shown.append(f"a token in {path.name} to {to and to[1]}")
looked_at = sum(n.get("looked_at", 0) for n in observed)
holds("I12", "no secret in log, database, mails of others or process lists",
      shown + [n["shown"] for n in observed if n.get("shown")] + ([] if looked_at else ["no process was looked at"]),
      f"{len(secrets)} secrets, {len(mails)} mails, {looked_at} command lines")
newest = max(int(p.name[:4]) for p in Path(SETTINGS["migrations"]).iterdir())
version = db.execute("SELECT MAX(version) FROM _sqlx_migrations").fetchone()[0]
holds("I13", "the database is whole",
      [r[0] for r in db.execute("PRAGMA integrity_check") if r[0] != "ok"] + list(map(tuple, db.execute("PRAGMA foreign_key_check")))
      + ([] if version == newest else [f"schema {version}, not {newest}"]))
ran = [tuple(line.split(" ")) for line in (DIR / "hooks.log").read_text().splitlines()]
called = [(n["id"], n["kind"], n["upload"]) for n in journal("webhook")]
wanted = {(e["kind"], e["upload_id"]) for e in events if e["kind"] in ("upload.released", "upload.delivered")}
wrong = []
for name, calls in (("hook", ran), ("webhook", called)):
    ids, first = collections.defaultdict(set), {}
    for n, (event, kind, upload) in enumerate(calls):
        ids[kind, upload].add(event)
        first.setdefault((kind, upload), n)
    wrong += [f"{name} never: {w}" for w in wanted - ids.keys()]
    wrong += [f"{name}, several ids: {k} {v}" for k, v in ids.items() if len(v) > 1]
    # Each executable is a lane of its own; a webhook is told everything about one upload in its order.
    wrong += [f"{name}, order: {u}" for k, u in ids if name == "webhook" and k == "upload.delivered"
              and first.get(("upload.released", u), 1 << 60) > first[k, u]]
holds("I14", "hooks and webhooks came for each event, with one id, in order", wrong,
      f"{len(ran)} runs and {len(called)} calls for {len(wanted)} events")
starts = [f for f in faults if f["what"] == "start"]
idle = next(f for f in faults if f["what"] == "idle")
last = [f for f in faults if f["what"] == "idle again"][-1]
life = [n for n in observed if n.get("pid") == last["pid"] and n["t"] < last["t"]]
# Under load from its second minute on, the first against the last quarter.
life = [n for n in life if n["t"] > life[0]["t"] + 60]
middle = lambda part, key: sorted(n[key] for n in part)[len(part) // 2]
grown, flat = [], "too short to tell of memory"
if len(life) > 120:
    quarter = len(life) // 4
    a, b = (middle(part, "memory") for part in (life[:quarter], life[-quarter:]))
    flat = f"{a // 1024} MiB early, {b // 1024} late"
    grown = [flat] if b > a * 1.1 else []
    grown += [f"descriptors {x} {y}" for x, y in [[middle(p, "descriptors") for p in (life[:quarter], life[-quarter:])]] if y > x * 1.1 + 4]
holds("I15", "restarts take at most 5 s; memory and descriptors come back",
      [f for f in starts if f["ms"] > 5000] + grown
      + ([f"{last['descriptors']} descriptors, {idle['descriptors']} at the start"] if last["descriptors"] > idle["descriptors"] * 1.1 + 4 else []),
      f"{len(starts)} starts, slowest {max(f['ms'] for f in starts)} ms, descriptors {idle['descriptors']} then {last['descriptors']}, {flat}")
# While it starts again nobody is served, and a database that is locked holds up all, as a full disk does.
partial = [f for f in faults if f.get("until") and f["what"] not in ("database locked",)]
stalled = []
for fault in partial:
    moved = {n["protocol"] for n in ends if n["kind"] in ("put", "again") and n["seen"] == "ok"
             and fault["t"] < n["t"] <= fault["until"]}
    stalled += [f"{fault['what']} for {fault['until'] - fault['t']:.0f} s: {p}" for p in {"sftp", "ftps"} - moved]
holds("I16", "during each fault both protocols still took files", stalled, f"{len(partial)} faults")
bugs = [n for n in customers if n.get("seen") == "bug"]
refused = collections.Counter(n["seen"] for n in ends if n["kind"] in ("put", "again"))
print(f"put: {dict(refused)}; faults: {dict(collections.Counter(f['what'] for f in faults))}")
if bugs:
    print(bugs[:5])
sys.exit(failed or bool(bugs))
