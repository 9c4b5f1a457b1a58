"""A mail server that does as the file DIR/mode says at each mail, and keeps what it took as DIR/N.eml.

smtp.py PORT DIR [CERT KEY]     with CERT and KEY it offers STARTTLS; DIR/auth (user:password) demands a login
Modes: ok | greylist (450 until the file changes) | unknown (550 at RCPT) | hang (no reply to DATA) | drop (closes after
the text, without a reply).
"""
import asyncio
import itertools
import ssl
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult

port, folder = int(sys.argv[1]), Path(sys.argv[2])
numbers = itertools.count(1)


def mode():
    return (folder / "mode").read_text().strip()


def note(text):
    with open(folder / "log", "a") as log:
        log.write(text + "\n")


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        note(f"RCPT {address} {mode()} tls={session.ssl is not None}")
        if mode() == "greylist":
            return "450 4.2.0 greylisted, try again later"
        if mode() == "unknown":
            return "550 5.1.1 there is no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if mode() == "hang":
            await asyncio.sleep(3600)
        (folder / f"{next(numbers)}.part").write_bytes(envelope.original_content)
        part = max(folder.glob("*.part"))
        part.rename(part.with_suffix(".eml"))
        if mode() == "drop":
            server.transport.abort()
        return "250 OK"


def login(server, session, envelope, mechanism, data):
    wanted = (folder / "auth").read_text().strip().encode()
    given = data.login + b":" + data.password
    note(f"AUTH {given == wanted}")
    return AuthResult(success=given == wanted)


async def main():
    context = None
    if len(sys.argv) > 4:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[3], sys.argv[4])
    needs_login = (folder / "auth").exists()

    def session():
        return SMTP(
            Handler(), hostname="mail.test", tls_context=context, require_starttls=False, enable_SMTPUTF8=True,
            authenticator=login if needs_login else None, auth_required=needs_login, auth_require_tls=False,
        )

    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main())
