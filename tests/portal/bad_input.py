"""Bad input at every door: order API, import folder, pages, command line. What is wrong is refused with a reason and leaves
nothing behind; what only looks dangerous is text, and comes back exactly as it was sent.

bad_input.py --web http://127.0.0.1:PORT --api http://127.0.0.1:PORT --token TOKEN --data-dir DIR --cli 'PTPORTAL --config FILE'
"""
import argparse, base64, concurrent.futures, gzip, html.parser, http.client, itertools, json, os, re, shlex, socket, subprocess, sys, tempfile, time
import unicodedata
from pathlib import Path
from urllib.parse import quote, quote_from_bytes, urlsplit

arguments = argparse.ArgumentParser()
for option in ("--web", "--api", "--token", "--data-dir", "--cli"):
    arguments.add_argument(option, required=True)
given = arguments.parse_args()
API, WEB = (urlsplit(url).netloc for url in (given.api, given.web))
DATA, CLI = Path(given.data_dir), shlex.split(given.cli)
TIMEOUT = 30  # seconds; machines that run other tests beside this one are slow
SECRET = "kw7431"  # stands in every password, so that none of them is missed in the log
JSON, PROBLEM, FORM = "application/json", "application/problem+json", "application/x-www-form-urlencoded"
folder = tempfile.TemporaryDirectory(prefix="bad-input-")
work = Path(folder.name)
numbers, addresses = itertools.count(1), itertools.count(1)
checks, failures = [], []

# ---------------------------------------------------------------------------------------------------------- values

# Text that must be stored and come back unchanged, in every field that takes text. At most 64 characters, no blank at an end.
TEXTS = [
    "Müller & Söhne „Druck“ GmbH", "'; DROP TABLE clients;--", "' OR 1=1", "1' UNION SELECT password FROM uplogin--", "\\'; --",
    "<script>alert('ü')</script>", "<b>fett</b> & \"Anführung\"", "<img src=x onerror=alert(1)>", "\"><svg/onload=alert(1)>", "]]><!--",
    "{{7*7}}", "{% include '/etc/passwd' %}", "{# nichts #}", "${7*7} #{7*7} %s%n", "$(touch x) `id` ; | &",
    "../../etc/passwd", "..\\..\\windows", "..", ".", "%2e%2e%2f", "/", "CON", "a:b*c?.pdf", "Straße/2026 Teil 1\\2", "-1", "--help",
    "abc\u202egpj.exe", "Mül\u200bler", "Mu\u0308ller", "\ufeffanfang", "a\u2028b", "🖨️ 👩🏽‍🎨", "𝔇𝔯𝔲𝔠𝔨", "\ufdd0\uffff", "ﷺ" * 64,
    "null", "NaN", "true", "\\u0000", "&#0;&lt;&amp;", "=cmd|'/C calc'!A0",
]
WRONG_TYPES = [1, -1, 1.5, 1e300, True, [], ["x"], {}, {"x": 1}]
CONTROL = ["a\0b", "\0", "a\x1b[31mrot", "a\x07b", "a\x7fb", "a\x85b"]
INJECTED = ["a\r\nBcc: x@y.example", "a\nb", "a\rb"]
BLANK = ["", " ", "\t\n", "\u00a0\u2003"]
BAD_NUMBERS = BLANK + CONTROL + INJECTED + [" x", "x ", "\u3000x", "x" * 65, "ä" * 10_000]
BAD_NAMES = CONTROL + INJECTED + ["x" * 301, "ü" * 10_000]
BAD_DESCRIPTIONS = CONTROL + ["x" * 10_001, "🖨" * 50_000]
BAD_EMAILS = CONTROL + INJECTED + [
    "a", "@", "a@", "@b.example", "a b@c.example", "a@b..example", "<a@b.example>", "a@b.example,c@d.example", "'; DROP TABLE clients;--",
    "<script>@b.example", "a@b.example\r\nSubject: x", "x" * 65 + "@b.example", "a@" + "b" * 10_000, "\"a\"@b.example", "a@../../etc/passwd",
    "a@b.example\0", "{{7*7}}@", "a@b@c\u202e.example d"]
BAD_DATES = CONTROL + INJECTED + [
    "24.12.2026", "2026-13-01", "2026-02-30", "2026-12-24T25:00:00Z", "2026-12-24 ", "2026-12-24\r\nX: y", "morgen", "' OR 1=1", "{{7*7}}",
    "２０２６-12-24", "2026-12-24T10:00:00", "-2026-12-24", "99999-12-24", "2" * 10_000, "../../etc"]
BAD_DAYS = ["30", -1, 36_501, 2**32, 2**64, 10**400, -(2**63), 1.5, True, [], {}, ""]
BAD_FLAGS = ["yes", "true", "", 0, 1, [], {}]
BAD_LANGUAGES = ["", "fr", "DE", "de ", "de\0", 1, True, [], {}, "'; DROP TABLE clients;--", "../de"]
BAD_PATHS = [
    "%ff", "%c3%28", "%00", "a%00b", "%", "%zz", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..%5c", "..%2f", "%252e%252e", "%0d%0aSet-Cookie:%20boese=1",
    "%27%20OR%201=1", "%27%3B%20DROP%20TABLE%20clients%3B--", "%3Cscript%3Ealert(1)%3C%2Fscript%3E", "%7B%7B7*7%7D%7D", "%ed%a0%80", "%f0%9f%96%a8",
    "x" * 10_000, "%e2%80%ae", "nix;x=1", "+", "%20", "nix%1b%5b31m"]

# ------------------------------------------------------------------------------------------------------- tools

class Answer:
    def __init__(self, status, headers=(), body=b""):
        self.status, self.body, self.text = status, body, body.decode("utf-8", "replace")
        self.headers = {name.lower(): value for name, value in headers}

    def __repr__(self):
        return f"{self.status} {self.headers.get('content-type')} {self.text[:300]!r}"

    def json(self):
        return json.loads(self.body)

def exchange(host, raw, method="GET"):
    """Sends bytes as they are, and gives the answer; status 0 when the server closes without one, 599 when it hangs. Each
    time from another loopback address, so that neither bans nor limits mix the cases up."""
    n = next(addresses)
    name, port = host.rsplit(":", 1)
    with socket.create_connection((name, int(port)), TIMEOUT, (f"127.1.{n // 250}.{n % 250 + 1}", 0)) as sock:
        sock.settimeout(TIMEOUT)
        try:
            sock.sendall(raw)
        except OSError:
            pass  # The answer may have come before all was sent.
        try:
            response = http.client.HTTPResponse(sock, method=method)
            response.begin()
            return Answer(response.status, response.getheaders(), response.read())
        except TimeoutError:
            return Answer(599, (), b"no answer in time")
        except (http.client.HTTPException, OSError):
            return Answer(0)

def request(host, method, path, body=b"", *headers):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    lines += [f"Content-Length: {len(body)}"] if body or method in ("POST", "PUT") else []
    head = b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    return exchange(host, head + b"\r\n\r\n" + body, method)

BEARER = f"Authorization: Bearer {given.token}"

def api(method, path, body=None, *headers, kind=JSON):
    """`body` is bytes, or something for JSON."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    kind = [f"Content-Type: {kind}"] if body is not None and kind else []
    return request(API, method, "/api/v1" + path, raw, BEARER, *kind, *headers)

def cli(*words, stdin=b""):
    """Exit status, standard output and error; -1 when it hangs."""
    try:
        done = subprocess.run([*CLI, "--json", *words], input=stdin, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return -1, "", "hangs"
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

def listed(*words):
    code, out, err = cli(*words)
    return json.loads(out) if code == 0 else {"failed": err}

def check(name, is_right, expected, got):
    checks.append(name)
    if not is_right:
        failures.append(f"{short(name)}: expected {expected}, got {short(got)}")
    return is_right

def short(what):
    text = what if isinstance(what, str) else repr(what)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) < 420 else f"{text[:400]}… ({len(text)} characters)"

def each(function, rows, at_once=8):
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(function, rows))

def state():
    """Everything that a refused input could have changed. A mail's way through the queue is its own."""
    lists = [(what, "list") for what in ("client", "project", "account", "mail", "token", "user", "template", "default")] + [("contact", "list", HOME)]
    rows = dict(zip((words[0] for words in lists), each(lambda words: listed(*words), lists)))
    keep = ("id", "template", "client_no", "project_no", "username", "recipient")
    rows["mail"] = [{key: row[key] for key in keep} for row in rows["mail"]]
    rows["token"] = [row["name"] for row in rows["token"]]  # not when it was used
    return rows

def table(name, try_one, rows):
    """All rows of a table of refusals; afterwards everything is as before, and the server is there."""
    before = state()
    each(lambda row: try_one(f"{name}: {short(row)}", row), rows)
    after = state()
    for what in before:
        changed = [row for row in after[what] if row not in before[what]] + [row for row in before[what] if row not in after[what]]
        check(f"{name}: {what} list", not changed, "nothing half done", changed)
    alive = request(API, "GET", "/api/v1/openapi.json").status, request(WEB, "GET", "/").status
    check(f"{name}: alive", alive == (200, 200), "(200, 200)", alive)

class Page(html.parser.HTMLParser):
    """The text that a reader sees, and the tags that a browser acts on."""

    def __init__(self, source):
        super().__init__()
        self.seen, self.tags = "", []
        self.feed(source)

    def handle_data(self, data):
        self.seen += data

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, attributes))

    def is_harmless(self):
        return not any(tag in ("script", "svg", "b", "img") or any(key.startswith("on") for key, _ in attributes) for tag, attributes in self.tags)

# -------------------------------------------------------------------------------------------- one check for each kind

def api_refuses(name, answer, statuses=(422,)):
    """A problem (RFC 9457) with a reason."""
    try:
        problem = json.loads(answer.body)
        told = answer.headers.get("content-type") == PROBLEM and problem["status"] == answer.status and problem["title"] and problem["detail"].strip()
    except (ValueError, KeyError, TypeError):
        told = False
    check(name, answer.status in statuses and told, f"{statuses} as a problem with title and detail", answer)
    check(name, "boese" not in str(answer.headers), "no header of the sender", answer.headers)

def page_refuses(name, answer, statuses):
    """A page that says why."""
    page = Page(answer.text)
    told = answer.headers.get("content-type", "").startswith("text/html") and len(" ".join(page.seen.split())) > 60
    check(name, answer.status in statuses and told and page.is_harmless(), f"{statuses} as a harmless page with a text", answer)

def cli_refuses(name, done, statuses=(1, 2), says=""):
    """One clear line; wrong usage also shows the usage below it. Nothing in it steers a terminal."""
    code, out, err = done
    lines = [line for line in err.split("\n") if line.strip()]
    is_clear = bool(lines) and (len(lines) == 1 or code == 2) and lines[0].startswith(("ptportal: ", "error: ")) and len(lines[0]) > 20
    is_safe = not any(unicodedata.category(c) == "Cc" for c in err if c != "\n") and "panicked" not in err and SECRET not in err
    check(name, code in statuses and not out and is_clear and is_safe and says in err, f"exit {statuses}, one clear line {says}", (code, out[:100], err))

def same(name, expected, got):
    check(name, expected == got, short(expected), got)

# ----------------------------------------------------------------------------------------------------- order API

HOME = f"Süd {os.getpid()}"  # the client whose customer logs in below

ABSENT = object()

def order(**changes):
    """An order of a client that is not there yet, so that anything half done shows. `at__0__field` names a place."""
    n = next(numbers)
    made = {
        "client": {"client_no": f"Neu-{n}", "name": "Müller", "email": "neu@kunde.example", "create_hotfolder": True},
        "project": {"project_no": f"P-{n}", "job_description": "Plakate", "contact": {"name": "Jörg Weiß", "email": f"weiss-{n}@kunde.example"}},
        "tickets": [{"ticket_no": "T1", "job_description": "A1", "due_date": "2026-12-24"}],
    }
    for place, value in changes.items():
        *path, last = place.split("__")
        target = made
        for step in path:
            target = target[int(step)] if step.isdigit() else target[step]
        if value is ABSENT:
            del target[last]
        else:
            target[last] = value
    return made

same("the customer", 201, api("POST", "/projects", order(client__client_no=HOME, project__project_no=f"P-{HOME}")).status)
if not any(row["client_no"] == HOME for row in listed("account", "list")):
    listed("account", "create", HOME)
FIELDS = [
    ("client__client_no", [None] + WRONG_TYPES + BAD_NUMBERS), ("project__project_no", [None] + WRONG_TYPES + BAD_NUMBERS),
    ("tickets__0__ticket_no", [None] + WRONG_TYPES + BAD_NUMBERS),
    ("client__name", WRONG_TYPES + BAD_NAMES), ("project__contact__name", [None] + WRONG_TYPES + BAD_NAMES + BLANK),
    ("client__email", WRONG_TYPES + BAD_EMAILS), ("project__contact__email", [None] + WRONG_TYPES + BAD_EMAILS + BLANK),
    ("project__job_description", WRONG_TYPES + BAD_DESCRIPTIONS), ("tickets__0__job_description", WRONG_TYPES + BAD_DESCRIPTIONS),
    ("project__due_date", WRONG_TYPES + BAD_DATES), ("tickets__0__due_date", WRONG_TYPES + BAD_DATES),
    ("client__create_hotfolder", BAD_FLAGS), ("client__language", BAD_LANGUAGES), ("client__hotfolder_delete_in_days", BAD_DAYS),
    ("project__contact", ["x", 1, ["x", 1], {}, {"name": "x"}, {"email": "a@b.example"}, {"name": "x", "email": "a@b.example", "id": 1}]),
    ("client", [None, "x", 1, [], ["x"], {}]), ("project", [None, "x", 1, [], {}]), ("tickets", [None, "x", 1, {}, [None], ["x"], [[]], [{}]]),
    ("tickets", [[{"ticket_no": "T"}] * 2, [{"ticket_no": str(n)} for n in range(1001)], [{"ticket_no": "T"}, {"ticket_no": "T\0"}]]),
    ("farbe", ["rot", None]), ("client__id", [1]), ("project__state", ["closed"]), ("tickets__0__farbe", ["x"]),
]
for place, values in FIELDS:
    table(f"POST projects {place}", lambda name, value: api_refuses(name, api("POST", "/projects", order(**{place: value})), (422, 400)), values)

good = json.dumps(order()).encode()
BODIES = [  # bytes that are no order at all
    b"", b" ", b"null", b"[]", b"1", b"\"x\"", b"true", b"NaN", b"{", b"{}", b"{}{}", good + b"x", good[:-1], good.replace(b"{", b"[", 1),
    good.replace(b"M\\u00fcller", b"M\xfcller"), good.replace(b"M\\u00fcller", b"M\xc3"), good.replace(b"M\\u00fcller", b"\xed\xa0\x80"),
    good.replace(b"M\\u00fcller", b"\\ud800"), good.replace(b"M\\u00fcller", b"\\udc00\\ud800"), good.replace(b"M\\u00fcller", b"\\u12"),
    good.replace(b"M\\u00fcller", b"a\0b"), good.replace(b"M\\u00fcller", b"a\nb"), good.replace(b"true", b"NaN"), good.replace(b"true", b"1e999999"),
    good.replace(b"true", b"9" * 100_000), good.replace(b"true", b"Infinity"), good.replace(b"\"name\"", b"\"client_no\"", 1),
    good.replace(b"\"client\"", b"\"project\"", 1), good.replace(b"{", b"{\"client\": {\"client_no\": \"1\"}, ", 1), b"[" * 100_000,
    b"{\"client\":" * 100_000, b"[" * 100_000 + b"]" * 100_000, good.replace(b"[", b"[" * 100_000), b"\xef\xbb\xbf" + good, good.decode().encode("utf-16"),
    good.decode().encode("utf-16-le"), gzip.compress(good), b"<project/>", b"client[client_no]=1", b"\0" * 1000, b"'" + good + b"'", b"//x\n" + good,
    *(json.dumps(order(**{place: ABSENT})).encode() for place in (
        "client", "project", "client__client_no", "project__project_no", "project__contact__email", "project__contact__name", "tickets__0__ticket_no")),
]
table("POST projects body", lambda name, body: api_refuses(name, api("POST", "/projects", body), (400, 422)), BODIES)
table("POST projects gzip", lambda name, body: api_refuses(name, api("POST", "/projects", body, "Content-Encoding: gzip"), (400, 415)), [gzip.compress(good)])
table("POST projects size", lambda name, body: api_refuses(name, api("POST", "/projects", body), (413,)), [b" " * (1 << 20) + b"x", good + b" " * (3 << 20)])
KINDS = [None, "", "text/plain", "text/json", "application/xml", FORM, "multipart/form-data; boundary=x", "application/jsonx", "json", "application/json,x", "ä"]
table("POST projects type", lambda name, kind: api_refuses(name, api("POST", "/projects", good, kind=kind), (415,)), KINDS)

TARGETS = [("GET", "/projects/{}"), ("GET", "/clients/{}"), ("POST", "/projects/{}/close"), ("POST", "/accounts/{}/enable"),
           ("POST", "/accounts/{}/disable"), ("POST", "/accounts/{}/link")]
table("paths", lambda name, row: api_refuses(name, api(row[0], row[1].format(row[2])), (400, 404, 422)), [(*t, p) for t in TARGETS for p in BAD_PATHS])
table("PUT clients number", lambda name, no: api_refuses(name, api("PUT", f"/clients/{quote(no, safe='')}", {"name": "x"}), (422, 404)), BAD_NUMBERS[:-1])
table("PUT clients broken number", lambda name, no: api_refuses(name, api("PUT", f"/clients/{no}", {"name": "x"}), (400,)), ["%ff", "%c3%28", "%ed%a0%80"])
PUTS = [(key, value) for key, values in (
    ("name", WRONG_TYPES + BAD_NAMES), ("email", WRONG_TYPES + BAD_EMAILS), ("create_hotfolder", BAD_FLAGS), ("language", BAD_LANGUAGES),
    ("hotfolder_delete_in_days", BAD_DAYS), ("client_no", ["x"]), ("id", [1]), ("farbe", ["rot"])) for value in values]
table("PUT clients", lambda name, row: api_refuses(name, api("PUT", f"/clients/PUT-{next(numbers)}", dict([row])), (422, 400)), PUTS)
table("PUT clients body", lambda name, body: api_refuses(name, api("PUT", "/clients/PUT-0", body), (400, 422)), [b for b in BODIES if b != b"{}" and b != b"[]"])
SINCE = [quote(text) for text in BAD_DATES + BLANK] + ["2026-01-01T00:00:00+02:00", "%ff", "%00", "x&since=2026-01-01", "2026-01-01&farbe=rot", "1" * 9000]
table("uploads since", lambda name, text: api_refuses(name, api("GET", f"/uploads?since={text}"), (422,)), SINCE)

METHODS = [(m, p) for p in ("/projects", "/projects/x", "/projects/x/close", "/uploads", "/clients/x", "/accounts/x/link", "/openapi.json")
           for m in ("PATCH", "DELETE", "OPTIONS", "TRACE", "QUATSCH", "get")]
METHODS += [("PUT", "/projects"), ("POST", "/projects/x"), ("GET", "/projects/x/close"), ("POST", "/uploads"), ("POST", "/clients/x"), ("GET", "/accounts/x/link")]
table("methods", lambda name, row: api_refuses(name, api(*row), (405,)), METHODS)
table("addresses", lambda name, path: api_refuses(name, request(API, "GET", path, b"", BEARER), (404,)),
      ["/", "/api", "/api/v1", "/api/v2/projects", "/api/v1/projects/", "/api/v1//projects", "/api/v1/../v1/projects", "/etc/passwd", "/%2e%2e/etc/passwd", "/API/V1/projects"])

tokens = {scope: json.loads(cli("token", "create", f"{scope}-{os.getpid()}", "--scope", scope)[1])["token"] for scope in ("pull", "admin", "orders")}
cli("token", "revoke", f"orders-{os.getpid()}")
CREDENTIALS = [  # header lines, status
    ([], 401), (["Authorization:"], 401), (["Authorization: Bearer"], 401), (["Authorization: Bearer "], 401), ([f"Authorization: {given.token}"], 401),
    ([f"Authorization: Basic {base64.b64encode(given.token.encode()).decode()}"], 401), ([BEARER + "x"], 401), ([BEARER[:-1]], 401), ([BEARER.upper()], 401),
    ([f"Authorization: Bearer {tokens['orders']}"], 401), (["Authorization: Bearer ' OR 1=1 --"], 401), (["Authorization: Bearer ../../etc/passwd"], 401),
    ([b"Authorization: Bearer \xff\xfe"], 401), (["Authorization: Bearer " + "A" * 43], 401), (["Authorization: Bearer " + "A" * 9000], 401),
    ([f"Cookie: token={given.token}"], 401), ([f"X-Api-Key: {given.token}"], 401), ([f"Authorization: Bearer {tokens['pull']}"], 403),
]
table("tokens", lambda name, row: api_refuses(name, request(API, "POST", "/api/v1/projects", good, f"Content-Type: {JSON}", *row[0]), (row[1],)), CREDENTIALS)
same("token in the query", 401, request(API, "GET", f"/api/v1/projects?token={given.token}").status)
same("admin token", 200, request(API, "GET", "/api/v1/projects", b"", f"authorization: bearer {tokens['admin']}").status)

# ------------------------------------------------------------------------------------------ what only looks dangerous

def round_trip(name, text):
    """One order with this text in every field."""
    contact = f"texte-{next(numbers)}@kunde.example"
    sent = order(client__client_no=text, client__name=text, project__project_no=text, project__job_description=text, tickets__0__ticket_no=text,
                 tickets__0__job_description=text, project__contact={"name": text, "email": contact})
    answer = api("POST", "/projects", sent)
    if not check(name, answer.status == 201, 201, answer):
        return
    folder = answer.json()["project"]["folder"] or ""
    is_safe = folder not in ("", ".", "..") and not re.search(r"[/\\\0-\x1f\x7f]", folder)
    check(f"{name} folder", is_safe, "a safe folder", folder)
    same(f"{name} again", 200, api("POST", "/projects", sent).status)
    url = quote(text, safe="")
    shown, client = (api("GET", f"/{what}/{url}").json() for what in ("projects", "clients"))
    ticket = shown.get("tickets", [{}])[0]
    got = [shown.get("project_no"), shown.get("client_no"), shown.get("job_description"), ticket.get("ticket_no"), ticket.get("job_description"), client.get("name")]
    same(f"{name} API", [text] * 6, got)
    shown, client, contacts = listed("project", "show", "--", text), listed("client", "show", "--", text), listed("contact", "list", "--", text)
    same(f"{name} CLI", [text] * 5, [shown.get("project_no"), shown.get("job_description"), client.get("client_no"), client.get("name"), contacts[0]["name"]])
    mail = listed("mail", "preview", "--template=Hotfolder Datenupload", f"--client={text}", f"--project={text}")
    page = Page(mail.get("html", ""))
    check(f"{name} mail", page.seen.count(text) >= 3 and page.is_harmless() and "\n" not in mail["subject"], "escaped in the mail", mail)
    # In text without tags only what is seen counts: HTML knows no line separator and no blank without width.
    visible = lambda text: " ".join(text.replace("\u200b", "").split())
    check(f"{name} mail as text", visible(text) in visible(mail.get("text", "")), "the text as it is", mail.get("text"))

each(lambda text: round_trip(f"text {short(text)}", text), TEXTS)
LONG = ["x" * 10_000, "ü\r\n\t" * 2500, "🖨" * 10_000]
for text in LONG:
    made = order(project__job_description=text, client__name="ß" * 300)
    same("longest text", 201, api("POST", "/projects", made).status)
    same("longest text", text, api("GET", f"/projects/{made['project']['project_no']}").json()["job_description"])
for blank in BLANK:  # absent
    made = order(client__name=blank, project__job_description=blank, project__due_date=blank)
    shown = api("POST", "/projects", made).json().get("project", {})
    same(f"blank {blank!r}", (None, None), (shown.get("job_description", 0), shown.get("due_date", 0)))
other = order(project__project_no=TEXTS[0])
table("another client's project", lambda name, body: api_refuses(name, api("POST", "/projects", body), (409,)), [other])

# ---------------------------------------------------------------------------------------------------- import folder

def xml(inner="", head="<?xml version=\"1.0\" encoding=\"UTF-8\"?>", name="Müller", end="</project>"):
    n = next(numbers)
    return f"{head}<project><client><client_no>Neu-{n}</client_no><name>{name}</name></client><project><project_no>P-{n}</project_no></project>{inner}{end}"

LAUGHS = "<!DOCTYPE x [<!ENTITY a0 \"ha\">" + "".join(f"<!ENTITY a{n} \"{f'&a{n - 1};' * 10}\">" for n in range(1, 10)) + "]>"
FILES = [body for body in BODIES if body not in (good, b"\xef\xbb\xbf" + good)] + [text if isinstance(text, bytes) else text.encode() for text in (
    xml(head=LAUGHS, name="&a9;"), xml(head="<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>", name="&e;"), xml(name="&e;"), xml(name="&#0;"),
    xml(head="<!DOCTYPE x SYSTEM \"http://127.0.0.1/x.dtd\">"), xml(name="&#x1b;[31m"), xml(name="a&#13;&#10;b"), xml(name="\0"), xml(name="&#xd800;"), xml(end=""),
    xml(end="</order>"), xml("<farbe>rot</farbe>"), xml("<tickets><ticket/></tickets>"), xml("<tickets><farbe/></tickets>"), xml("<client><client_no>1</client_no></client>"),
    xml(name="<b>x</b>"), xml(name="</name><name>x"), xml(head="<x/>"), "<project", "<>", "<project/>", "<project>" * 100_000, xml(name="<a>" * 100_000), xml("<a>" * 100_000),
    xml(name="ü").encode("latin-1"), xml(head="<?xml version='1.0' encoding='quatsch'?>"), xml(head="<?xml version='1.0' encoding='UTF-16'?>"), xml().encode("utf-16-le"),
    xml(name="x" * 301), "<!-- " + "x" * (1 << 20), "order", "' OR 1=1", "../../etc/passwd",
    *(json.dumps(order(**{place: value})) for place, values in FIELDS for value in values[:1] + values[-1:]))]
FILE_NAMES = ["ä ö.json", "x;rm -rf.json", "$(id).xml", "a\nb.json", "{{7*7}}.json", "x.error.txt", "' OR 1=1", "a\\..\\b", "-rf", "n" * 240, "🖨" * 60, "l" * 250 + ".json",
              "m" * 255, b"Lat1-\xfc.json"]

def put(name, body):
    """By rename, then waits until it is taken."""
    name = os.path.join(os.fsencode(DATA / "import"), name if isinstance(name, bytes) else name.encode())
    temporary = DATA / "import" / f".{next(numbers)}.part"
    temporary.write_bytes(body)
    os.rename(temporary, name)
    end = time.time() + 12
    while os.path.exists(name) and time.time() < end:
        time.sleep(0.05)
    taken = not os.path.exists(name)
    taken or os.remove(name)
    return taken

def import_refuses(name, row):
    """Moved to import/failed, and beside it NAME.error.txt; where the name is too long or no UTF-8, a name like it."""
    file, body = row
    taken = put(file, body)
    begin = (file.split(b"\xfc")[0].decode() if isinstance(file, bytes) else file)[:40]
    time.sleep(0.2)
    reasons = [path for path in (DATA / "import" / "failed").iterdir() if path.name.endswith(".error.txt") and path.name.startswith(begin)]
    texts = [path.read_text("utf-8", "replace") for path in reasons if path.name == f"{file}.error.txt" or len(os.fsencode(file)) > 220 or file == FILE_NAMES[-1]]
    told = any(text.startswith(begin) and len(text) > len(begin) + 10 for text in texts)
    check(name, taken and told, "failed with a reason", ("taken" if taken else "not taken", texts))

table("import", import_refuses, [(f"bad-{n:03}.order", body) for n, body in enumerate(FILES)])
table("import names", import_refuses, [(file, b"{") for file in FILE_NAMES])
secret = work / "geheim.json"
secret.write_bytes(json.dumps(order()).encode())
(DATA / "import" / "link.json").symlink_to(secret)
(DATA / "import" / "ordner.json").mkdir()
for text in TEXTS:
    n, is_xml = next(numbers), not set(text) & {"\uffff", "\ufdd0"}
    sent = order(client__client_no=HOME, project__project_no=f"Import-{n}", project__job_description=text)
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace("]]>", "]]&gt;")
    project = f"<project_no>Xml-{n}</project_no><job_description>{plain}</job_description>"
    put(f"good-{n}.json", json.dumps(sent, ensure_ascii=n % 2 == 0).encode())
    if is_xml:
        put(f"good-{n}.xml", f"<project><client><client_no>{HOME}</client_no></client><project>{project}</project></project>".encode())
    for no in [f"Import-{n}"] + [f"Xml-{n}"] * is_xml:
        shown = api("GET", f"/projects/{no}").json()
        same(f"import {no} {short(text)}", text, shown.get("job_description", shown))
check("import of a link", (DATA / "import" / "link.json").is_symlink(), "not followed", os.listdir(DATA / "import"))
(DATA / "import" / "link.json").unlink()
(DATA / "import" / "ordner.json").rmdir()

# ------------------------------------------------------------------------------------------------------------- pages

USER = next(row["username"] for row in listed("account", "list") if row["client_no"] == HOME)
LINK = urlsplit(listed("account", "link", USER)["link"]).path
PASSWORD, SECOND = f"{SECRET} Zwölf <b>Übergrößen</b> '; DROP--", f"{SECRET}-zweites-Kennwort-{{{{7*7}}}}"

def web(method, path, fields=None, *headers, kind=FORM):
    """`fields` is bytes, or pairs of text or bytes."""
    if isinstance(fields, dict):
        fields = [*fields.items()]
    if isinstance(fields, list):
        fields = "&".join(f"{key}={quote_from_bytes(value if isinstance(value, bytes) else value.encode('utf-8', 'surrogatepass'))}" for key, value in fields).encode()
    kind = [f"Content-Type: {kind}"] if fields is not None and kind else []
    return request(WEB, method, path, fields or b"", *kind, *headers)

BAD_FORMS = [  # body, type, statuses: the same at each form
    (b"x" * 17_000, FORM, (413,)), (b"password=" + b"x" * 2_000_000, FORM, (413,)), (b"{}", JSON, (415,)), (b"", "text/plain", (415,)), (b"a=b", None, (415,)),
    (b"--x--", "multipart/form-data; boundary=x", (415,)), (b"csrf=a&csrf=b", FORM, (422, 400)), (gzip.compress(b"a=b"), "application/gzip", (415,)),
]
PLACES = ["/", "/link", LINK, "/home/password", "/home/keys", "/home/keys/remove", "/logout"]
table("forms", lambda name, row: page_refuses(name, web("POST", row[0], row[1], kind=row[2]), row[3]), [(place, *form) for place in PLACES for form in BAD_FORMS])
FOREIGN = [["Sec-Fetch-Site: cross-site"], ["Sec-Fetch-Site: same-site"], ["Origin: https://boese.example"], ["Origin: null"], ["Sec-Fetch-Site: quatsch"]]
table("foreign forms", lambda name, row: page_refuses(name, web("POST", row[0], {"csrf": "x", "username": USER, "password": SECRET}, *row[1]), (403,)),
      [(place, headers) for place in PLACES[:3] for headers in FOREIGN])
NAMES = TEXTS + BLANK + CONTROL + INJECTED + ["x" * 5000, b"\xff\xfe", f"{SECRET} Kennwort im falschen Feld", "\ud800"]
table("login", lambda name, user: page_refuses(name, web("POST", "/", {"username": user, "password": f"{SECRET} {user}"}), (401,)), NAMES)
table("login password", lambda name, word: page_refuses(name, web("POST", "/", [("username", USER), ("password", word)]), (401,)), NAMES)
table("login fields", lambda name, form: page_refuses(name, web("POST", "/", form), (401, 422)), [
    b"", b"&&&", b"=", b"username", b"username[]=a", b"username=a&username=b", b"username=%zz&password=%", [("password", SECRET)], [("username", USER)]])
sentences = set()

def asked(name, user):
    answer = web("POST", "/link", {"username": user})
    check(name, answer.status == 200 and Page(answer.text).is_harmless(), "200 and one sentence", answer)
    sentences.add(re.sub(r"name=\"csrf\" value=\"[^\"]*\"", "", answer.text))

known = {row["username"] for row in listed("account", "list")}  # names are folded
table("link", asked, [name for name in NAMES if name != b"\xff\xfe" and unicodedata.normalize("NFKC", name).lower().strip() not in known])
same("link: answers", 1, len(sentences))
table("pages", lambda name, path: page_refuses(name, web("GET", path), (400, 404)), [f"/activate/{path}" for path in BAD_PATHS] + [
    "/activate/", "/activate", "/nix", "/home/", "/../etc/passwd", "/%2e%2e/etc/passwd", "/style.css/x", "/%ff", "/home/%00", "/activate/x/y"])
table("queries", lambda name, path: check(name, web("GET", path).status in (200, 303), "200 or 303: unknown notices mean nothing", web("GET", path)), [
    f"{page}?notice={text}" for page in ("/", "/home") for text in ("%ff", "a&notice=b", "%3Cscript%3E", "x" * 9000, "", "%00", "%0d%0aX:y")])
table("methods of pages", lambda name, row: page_refuses(name, web(*row), (405,)), [
    (method, path) for path in ("/", "/link", LINK, "/home", "/style.css") for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUATSCH")] + [
    ("GET", "/logout"), ("GET", "/home/password"), ("POST", "/home"), ("GET", "/home/keys")])
table("hosts", lambda name, host: page_refuses(name, exchange(WEB, f"GET / HTTP/1.1\r\nConnection: close\r\n{host}\r\n\r\n".encode()), (421, 400)), [
    "Host: boese.example", "Host:", "X: y", f"Host: {WEB}.boese.example", f"Host: boese@{WEB}x", "Host: <script>", "Host: ../../etc/passwd", "Host: ü"])

BAD_PASSWORDS = [  # the two fields
    *((word, word) for word in (
        "", f"{SECRET}kurz", SECRET * 22, f"{SECRET}\0lang genug", f"{SECRET}\r\nlang genug", f"{SECRET}\x1b[31m lang genug", b"kw7431 \xff\xfe lang genug", " " * 12,
        "passwort1234", "aaaaaaaaaaaaaaa", USER.upper(), "x" * 5000)),
    (PASSWORD, ""), (PASSWORD, PASSWORD + " "), ("", PASSWORD), (PASSWORD, PASSWORD.upper()),
]
table("activate", lambda name, row: page_refuses(name, web("POST", LINK, {"password": row[0], "password_repeat": row[1]}), (422,)), BAD_PASSWORDS)
table("activate unknown", lambda name, path: page_refuses(name, web("POST", f"/activate/{path}", {"password": PASSWORD, "password_repeat": PASSWORD}), (400, 404)), BAD_PATHS)
same("activate", 303, web("POST", LINK, {"password": PASSWORD, "password_repeat": PASSWORD}).status)
table("activate again", lambda name, method: page_refuses(name, web(method, LINK, {"password": PASSWORD, "password_repeat": PASSWORD}), (410,)), ["POST", "GET"])
entered = web("POST", "/", {"username": f" {USER.upper()} ", "password": unicodedata.normalize("NFD", PASSWORD)})
same("login", (303, "/home"), (entered.status, entered.headers.get("location")))
COOKIE = "Cookie: " + entered.headers.get("set-cookie", "").split(";")[0]
shown = web("GET", "/home", None, COOKIE)
page = Page(shown.text)
for text in TEXTS:
    check(f"home {short(text)}", " ".join(text.split()) in " ".join(page.seen.split()), "on /home as text", page.seen[:400])
check("home", shown.status == 200 and page.is_harmless(), "a harmless page", page.tags)
CSRF = next(iter(re.findall(r"name=\"csrf\" value=\"([^\"]+)\"", shown.text)), "")

def home(path, **fields):
    return web("POST", path, {"csrf": CSRF, **fields}, COOKIE)

table("cookies", lambda name, cookie: same(name, 303, web("GET", "/home", None, b"Cookie: ptportal=" + cookie).status), [
    b"", b"x", b"A" * 43, b"\xff", b"' OR 1=1", b"../../etc/passwd", b"A" * 9000, b"; ptportal=" + b"A" * 43, COOKIE[17:-1].encode(), b"<script>"])
table("csrf", lambda name, row: page_refuses(name, web("POST", row[0], {"csrf": row[1], "key": "x", "current_password": PASSWORD, "password": SECOND, "password_repeat": SECOND}, COOKIE), (403,)),
      [(path, csrf) for path in PLACES[3:] for csrf in ("", "x", CSRF + "x", CSRF.swapcase(), "' OR 1=1", b"\xff")])
table("home password", lambda name, row: page_refuses(name, home("/home/password", current_password=PASSWORD, password=row[0], password_repeat=row[1]), (422,)), BAD_PASSWORDS)
table("home current password", lambda name, word: page_refuses(name, home("/home/password", current_password=word, password=SECOND, password_repeat=SECOND), (422,)),
      ["", PASSWORD + " ", PASSWORD.upper(), "' OR 1=1", b"\xff", "\0", "x" * 10_000])

def ssh(kind=b"ssh-ed25519", *parts):
    parts = parts or (os.urandom(32),)
    return kind.decode("latin-1") + " " + base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in (kind, *parts))).decode()

KEY = ssh()
BAD_KEYS = BLANK + CONTROL + INJECTED + TEXTS + [
    "x" * 10_000, KEY[:-9], KEY.replace("AAAA", "AAAB"), "ssh-rsa" + KEY[11:], "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbg==\n-----END OPENSSH PRIVATE KEY-----", b"\xff\xfe",
    ssh(b"ssh-rsa", b"\1\0\1", b"\xc1" * 128), ssh(b"ssh-dss", *[b"\x51" * 20] * 4), ssh(b"ssh-ed25519", b"kurz"), ssh(b"quatsch"), "command=\"sh\" " + KEY,
    f"{ssh()} a\0b", f"{ssh()} a\x1b[31mrot", f"{ssh()} a\x07b"]
table("home keys", lambda name, key: page_refuses(name, home("/home/keys", key=key), (422,)), BAD_KEYS)
for text in TEXTS:
    comment = " ".join(text.split())
    same(f"key {short(text)}", 303, home("/home/keys", key=f"{ssh()} {comment}\r\n").status)
    keys = listed("account", "key", "list", USER)
    check(f"key {short(text)}", any(row["comment"] == comment for row in keys), comment, keys[-1:])
    page = Page(web("GET", "/home", None, COOKIE).text)
    check(f"key {short(text)} on /home", comment in page.seen and page.is_harmless(), "escaped", page.tags)
    for row in keys:
        home("/home/keys/remove", fingerprint=row["fingerprint"])
same("keys removed", [], listed("account", "key", "list", USER))

RAW = [  # bytes on the wire; the server answers 4xx or closes
    b"\r\n\r\n\r\n\r\nx\r\n\r\n", b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\0\1\0\1\xfc\3\3" + b"x" * 600 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: H\r\n: leer\r\n\r\n", b"GET / HTTP/1.1\r\nHost: H\r\nX: a\0b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: H\r\nX y: z\r\n\r\n", b"GET / HTTP/1.1\r\nHost: H\r\n z\r\n\r\n",
    b"GET /\xff\0 HTTP/1.1\r\nHost: H\r\n\r\n", b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: H\r\n\r\n", b"GET / HTTP/1.1\r\nHost: H\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: H\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"POST / HTTP/1.1\r\nHost: H\r\nContent-Length: -1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 9e9\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\nContent-Type: T\r\n\r\nzz\r\n", b"POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: quatsch\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\nContent-Type: T\r\n\r\nffffffffffffffffff\r\n", b"CONNECT evil:1 HTTP/1.1\r\nHost: H\r\n\r\n", b"GET http://boese.example/ HTTP/1.1\r\nHost: H\r\n\r\n",
]
for host, path in ((WEB, b"/"), (API, b"/api/v1/projects")):
    def wire(name, raw, host=host, path=path):
        head = BEARER.encode() + b"\r\nHost: " + host.encode()
        answer = exchange(host, raw.replace(b" / ", b" " + path + b" ").replace(b"Host: H", head).replace(b": T", b": " + (FORM if host == WEB else JSON).encode()))
        check(name, answer.status == 0 or 400 <= answer.status < 500, "4xx or a closed connection", answer)
    table(f"wire {host}", wire, RAW)

# ------------------------------------------------------------------------------------------------------ command line

WORDS = [b"\xff\xfe", *(text for text in BAD_NUMBERS if "\0" not in text)]
LINES = [text for text in BAD_NAMES + BLANK if "\0" not in text and text != ""] + [b"\xff\xfe"]
MAILS = [text for text in BAD_EMAILS if "\0" not in text] + [b"\xff@b.example"]
glued = lambda option, text: option.encode() + b"=" + (text if isinstance(text, bytes) else text.encode())
COMMANDS = [
    *(("client", "add", "--name=x", "--", no) for no in WORDS), *(("client", "set", "--name=x", "--", no) for no in WORDS), *(("client", "show", "--", no) for no in WORDS),
    *(("client", "add", glued("--name", name), "CLI-1") for name in LINES + [""]), *(("client", "set", glued("--name", name), HOME) for name in LINES + [""]),
    *(("client", "add", "--name=x", glued("--email", mail), "CLI-2") for mail in MAILS), *(("client", "set", glued("--email", mail), HOME) for mail in MAILS),
    *(("client", command, "--name=x", f"--delete-in-days={days}", no) for days in ("-1", "x", "1.5", "", "36501", "4294967295", "9" * 30, "NaN") for command, no in (("add", "CLI-3"), ("set", HOME))),
    *(("client", "set", f"--language={text}", HOME) for text in ("", "fr", "DE", "' OR 1=1")), ("client", "set", "--create-hotfolder=ja", HOME), ("client", "add", "CLI-4"),
    ("client", "add", HOME, "--name=x"), ("client", "quatsch"), ("client", "add", "CLI-5", "--name=x", "--farbe=rot"), ("client", "add", "CLI-6", "--name=x", "--name=y"),
    ("client", "remove", "x' OR '1'='1"), ("client", "remove", "%"), ("client", "remove", "*"),
    *(("contact", "add", "--name=x", "--email=a@b.example", "--", no) for no in WORDS + ["' OR 1=1 --"]), *(("contact", "add", glued("--name", name), "--email=a@b.example", HOME) for name in LINES + [""]),
    *(("contact", "add", "--name=x", glued("--email", mail), HOME) for mail in MAILS + [""]), *(("contact", "list", "--", no) for no in WORDS), ("contact", "remove", "' OR 1=1"),
    *(("account", "create", glued("--username", name), "--", HOME) for name in WORDS + [text for text in TEXTS if text not in ("..", ".", "-1", "--help", "CON", "null", "NaN", "true")]),
    *(("account", "create", "--", no) for no in WORDS + ["' OR 1=1 --"]), ("account", "create", HOME, f"--username={USER}"),
    *(("account", command, "--", no) for no in WORDS + ["' OR 1=1", "../../etc/passwd"] for command in ("show", "enable", "disable", "link", "remove")),
    *(("account", command, *words, setting) for command, words in (("set", (USER,)), ("create", (HOME, "--set"))) for setting in (
        b"\xff=1", "", "=", "=1", "quota_bytes", "quota_bytes=-1", "quota_bytes=1e3", f"quota_bytes={2**64}", "quota_bytes=NaN", "farbe=rot", "language=fr", "protocols=scp", "protocols=sftp,' OR 1=1",
        "status_file=ja", "expires_at=morgen", "expires_at=24.12.2026", "allowed_networks=10.0.0.0/33", "allowed_networks=x", "max_sessions=x", "folders=", "folders=a/b", "folders=..", "folders=.",
        "folders=Eingehend,eingehend", "folders=a\x1bb", "folders=a\nb", "folders=" + "x" * 300, "folders=Eingehend,../../etc", "password_hash=x", "checked=1")),
    ("account", "unset", USER, "farbe"), ("account", "unset", USER, "' OR 1=1"), *(("account", "key", "remove", USER, text) for text in ("", "' OR 1=1", "SHA256:x", "a\x1bb")),
    *(("default", "set", name, setting) for name, setting in (
        ("ptportal", "farbe=rot"), ("ptportal", "folders=.."), ("ptportal", "quota_bytes=-1"), ("clients", "on_existing=merge"), ("clients", "hotfolder_delete_in_days=-1"), ("clients", "language=fr"),
        ("quatsch", "a=b"), ("' OR 1=1", "a=b"), ("ptportal", "x"), ("a\x1bb", "a=b"))),
    *(("token", "create", "--", name) for name in LINES + [""]), *(("token", "create", "CLI-7", glued("--scope", scope)) for scope in ("", "root", "ORDERS", "orders,admin", "' OR 1=1", "a\x1bb", b"\xff")),
    ("token", "create", f"pull-{os.getpid()}"), *(("token", "revoke", "--", name) for name in ("' OR 1=1", "%", "", "a\x1bb")),
    *(("user", "add", "--email=a@b.example", "--", name) for name in LINES + [""]), *(("user", "add", "CLI-8", glued("--email", mail)) for mail in MAILS + [""]),
    *(("project", "add", "--", HOME, no) for no in WORDS), *(("project", "add", "--", no, "CLI-9") for no in WORDS + ["x' OR '1'='1"]), *(("project", "show", "--", no) for no in WORDS),
    *(("project", "add", HOME, "CLI-9", glued("--due", text)) for text in BAD_DATES if "\0" not in text), *(("project", "add", HOME, "CLI-9", glued("--description", text)) for text in BAD_DESCRIPTIONS[2:-1]),
    ("project", "add", HOME, "CLI-9", "--contact=' OR 1=1"), ("project", "add", HOME, "CLI-9", "--contact="), *(("ticket", "add", "--", TEXTS[0], no) for no in WORDS), ("mail", "show", "' OR 1=1"),
    ("mail", "preview", "--template=../../etc/passwd", f"--client={HOME}"), ("mail", "preview", "--template=Hotfolder Datenupload", "--client=a\x1bb"), ("template", "show", "a\rb"), ("upload", "list", "--state=a\x1bb"),
    ("events", "--since=morgen"), ("ban", "remove", "' OR 1=1"), ("mail", "send", "a\x1bb"), ("upload", "show", "../../etc/passwd"), ("delivery", "retry", "' OR 1=1"),
]
table("cli", lambda name, words: cli_refuses(name, cli(*words)), COMMANDS)
STDIN = [word if isinstance(word, bytes) else word.encode() for word, again in BAD_PASSWORDS if word == again and word != SECRET * 22 and word != f"{SECRET}\r\nlang genug"]
table("cli password", lambda name, word: cli_refuses(name, cli("account", "password", USER, "--stdin", stdin=word), (1,)), STDIN + [b"\n", b"x" * (4 << 20), b"\0" * 20])
table("cli key", lambda name, key: cli_refuses(name, cli("account", "key", "add", USER, "-", stdin=key if isinstance(key, bytes) else key.encode()), (1,)), BAD_KEYS)
ACCOUNTS = [b"", b"[", b"[1]", b"[" * 100_000, b"{}", b"\xff\xfe", b"[{\"username\": \"neu-1\"}]", b"[{\"farbe\": 1}]", b"username;client_no\nneu-2;\n", b"username;client_no\n;Neu-X\n", b"username\n\"",
            b"[{\"username\": \"neu-3\", \"client_no\": \"Neu-X\"}, {\"username\": \"<b>\", \"client_no\": \"Neu-X\"}]", b"[{\"username\": \"neu-4\", \"client_no\": \"Neu-X\", \"password_hash\": \"klartext\"}]",
            b"[{\"username\": \"neu-5\", \"client_no\": \"Neu-X\\u0000\"}]", b"[{\"username\": \"neu-6\", \"client_no\": \"Neu-X\", \"keys\": [\"x\"]}]",
            b"[{\"username\": \"neu-7\", \"client_no\": \"Neu-X\", \"client_email\": \"a\\r\\nb@c.example\"}]", b"[{\"username\": \"neu-8\", \"client_no\": \"Neu-X\", \"client_name\": \"\\u001b\"}]"]

def file_of(body):
    path = work / f"{next(numbers)}"
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    return str(path)

table("cli import", lambda name, body: cli_refuses(name, cli("account", "import", file_of(body)), (1,)), ACCOUNTS)
TEMPLATES = [  # content, what the line says
    ("{{ data_project['quatsch'] }}", "line 1"), ("\n\n{{ quatsch }}", "line 3"), ("{{", "line 1"), ("{% if %}", "line 1"), ("\n{% for x in y %}", "line"), ("{% include '/etc/passwd' %}", "line 1"),
    ("{% import '../../etc/passwd' as x %}", "line 1"), ("{% extends 'base.html' %}", "line 1"), ("{{ ''.__class__.__mro__ }}", "line 1"), ("{{ debug() }}", "line 1"), ("{{ 1 / 0 }}", ""),
    ("{{ data_project.__init__.__globals__ }}", "line 1"), ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ""), ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "line 1"),
    ("{% for a in range(99999) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}", ""), ("{{ 'x' * 3000000000 }}", ""), ("{{ " + "(" * 100_000, "line 1"), ("{{ " + "[" * 50_000 + "]" * 50_000 + " }}", ""),
    ("{% if 1 %}" * 20_000, ""), ("x" * 300_000, "KiB"), ("{{ '\\ud800' }}", ""), (b"M\xfcller", ""), (b"a\0b", ""), ("{{ data_project|quatsch }}", "line 1"), ("{{ range(10000000000000000000000) }}", "line 1"),
]
table("cli template", lambda name, row: cli_refuses(name, cli("template", "set", "Prüfung", "--subject=x", "--content-file", file_of(row[0])), (1,), row[1]), TEMPLATES)
table("cli template", lambda name, words: cli_refuses(name, cli("template", "set", *words)), [
    ("Prüfung", "--subject=x", "--content-file=/nirgends"), ("Prüfung", "--subject=x", f"--content-file={work}"), ("Prüfung", "--subject=x"), ("Prüfung", "--subject=", "--content-file", file_of("x")),
    *(("Prüfung", f"--subject={text}", "--content-file", file_of("x")) for text in ("{{", "{{ x }}", "{% include '/etc/passwd' %}", " ")), ("Prüfung", "--subject=x", "--user=' OR 1=1", "--content-file", file_of("x")),
    *(("--subject=x", "--content-file", file_of("x"), "--", text) for text in LINES + [""])])
for name, body in (("<div>", "<div>"), ("<a>", "<a>"), ("<table>", "<table><tr><td>"), ("<b>", "<b><i><p>"), ("&", "a &lt;"), ("{{", "{{1}}"), ("<ul>", "<ul><li>"), ("<blockquote>", "<blockquote>")):
    code, out, err = cli("template", "set", f"Tief {name}", "--subject=x", "--content-file", file_of(body * (250_000 // len(body))))
    check(f"deep HTML {name}", code in (0, 1) and "panicked" not in err, "taken or refused in time", (code, out[:100], err))

def kept(name, text):
    """The command line stores text as it is."""
    n = next(numbers)
    same(f"{name} client", text, listed("client", "add", f"CLI-{n}", f"--name={text}").get("name"))
    same(f"{name} contact", text, listed("contact", "add", f"CLI-{n}", f"--name={text}", "--email=a@b.example").get("name"))
    same(f"{name} user", text, listed("user", "add", "--email=a@b.example", "--", text).get("name"))
    same(f"{name} token", text, listed("token", "create", "--", text).get("name"))
    same(f"{name} project", text, listed("project", "add", f"--description={text}", "--", f"CLI-{n}", f"{text[:50]} {n}").get("job_description"))
    if not re.search(r"\{[{%#]", text):
        row = listed("template", "set", f"--subject={text}", "--content-file", file_of(f"<p>{text}"), "--", text)
        same(f"{name} template", (text, text, f"<p>{text}"), tuple(row.get(key) for key in ("name", "subject", "content")))

each(lambda text: kept(f"cli text {short(text)}", text), TEXTS)

# --------------------------------------------------------------------------------------------------------------- the log

log = (DATA.parent / "server.log").read_bytes().decode("utf-8", "replace")
for word in ("panicked", SECRET, given.token, LINK.rsplit("/", 1)[1], *tokens.values(), COOKIE[17:]):
    check("log", word not in log, f"no {word[:12]}… in it", next((line for line in log.splitlines() if word in line), ""))
control = {f"{ord(c):#x}" for c in log if unicodedata.category(c) == "Cc" and c != "\n"}
check("log", not control, "no control characters", control)
for failure in sorted(failures):
    print(failure)
print(f"{len(failures)} of {len(checks)} failed" if failures else f"done {len(checks)}")
sys.exit(1 if failures else 0)
