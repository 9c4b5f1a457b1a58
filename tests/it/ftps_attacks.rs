//! What must not work over FTPS, and what other servers got wrong: attackers, old clients, broken lines.

use std::time::{Duration, Instant};

use crate::ftps::portal;
use crate::support::eventually;
use crate::support::instance::{IN, Setup};

#[test]
fn nothing_is_told_or_taken_in_clear() {
    let portal = portal(Setup::new().without_scanner(), "ftps-clear");
    portal.curl(&[&format!("ftp://127.0.0.1:{}/", portal.ftps_port)]).badly();
    let said = portal.ftplib(
        "c = Lines(raw()); c.reply()\n\
         assert c.ask('USER ' + USER).startswith('530')\n\
         assert c.ask('PASS ' + PASSWORD).startswith('530')\n\
         for line in ('PWD', 'LIST', 'PASV', 'STOR x', 'CWD /', 'SIZE x'):\n\
         \x20   assert c.ask(line).startswith('530'), line\n\
         assert c.ask('PROT P').startswith('503') and c.ask('AUTH SSL').startswith('504')\n\
         assert c.ask('FEAT').startswith('211') and c.ask('NOOP').startswith('200')\n\
         # The name sent in clear is not taken along.\n\
         assert c.ask('AUTH TLS').startswith('234')\n\
         c.sock = context().wrap_socket(c.sock)\n\
         assert c.ask('PASS ' + PASSWORD).startswith('503')\n\
         assert c.ask('AUTH TLS').startswith('503'), 'TLS in TLS'\n\
         c = by_hand()\n\
         assert c.ask('PROT C').startswith('534') and c.ask('CCC').startswith('534')\n\
         # Data in clear: not before PROT P, and not on a protected connection either.\n\
         s = raw(); d = Lines(s); d.reply(); d.ask('AUTH TLS'); d.sock = context().wrap_socket(s)\n\
         d.ask('USER ' + USER); d.ask('PASS ' + PASSWORD)\n\
         for opening in ('EPSV', 'PASV'):\n\
         \x20   d.ask(opening)\n\
         \x20   for line in ('STOR x', 'LIST', 'RETR x', 'MLSD', 'NLST', 'APPE x', 'STOU'):\n\
         \x20       assert d.ask(line).startswith('521'), line\n\
         clear = data(c); assert c.ask('STOR ' + IN + '/clear.bin').startswith('150')\n\
         clear.sendall(b'in clear'); clear.shutdown(socket.SHUT_WR)\n\
         assert c.reply().startswith('522')\n\
         assert c.ask('PWD').startswith('257')\n\
         print('done')",
    );
    assert!(said.well().out.contains("done"));
    assert!(!portal.cli(&["upload", "list"]).to_string().contains("clear.bin\",\"sha"));
}

#[test]
fn commands_behind_auth_tls_in_clear_close_the_connection() {
    let portal = portal(Setup::new().without_scanner(), "ftps-starttls");
    let said = portal.ftplib(
        "for behind in (b'USER mallory\\r\\nPASS m\\r\\n', b'USER mallory\\r\\n', b'N', b'\\r\\n'):\n\
         \x20   c = Lines(raw()); c.reply()\n\
         \x20   c.send(b'AUTH TLS\\r\\n' + behind)\n\
         \x20   reply = c.reply()\n\
         \x20   assert reply.startswith('421'), (behind, reply)\n\
         \x20   assert c.reply() is None\n\
         for line in (b'GET / HTTP/1.1\\r\\n', b'POST / HTTP/1.1\\r\\n', b'Host: x\\r\\n', b'SSH-2.0-x\\r\\n'):\n\
         \x20   c = Lines(raw()); c.reply(); c.send(line)\n\
         \x20   assert c.reply() is None, line\n\
         c = context(); c.set_alpn_protocols(['http/1.1', 'h2'])\n\
         s = raw(); l = Lines(s); l.reply(); l.ask('AUTH TLS')\n\
         try: c.wrap_socket(s); raise SystemExit('a browser was let in')\n\
         except (ssl.SSLError, OSError) as error: print(error)\n\
         c = context(); c.set_alpn_protocols(['ftp'])\n\
         s = raw(); l = Lines(s); l.reply(); l.ask('AUTH TLS')\n\
         assert c.wrap_socket(s).selected_alpn_protocol() == 'ftp'\n\
         # What a browser could be made to send comes back in no reply.\n\
         c = by_hand(); word = '<script>alert(1)</script>'\n\
         for command in ('', 'USER ', 'PASS ', 'CWD ', 'SIZE ', 'MDTM ', 'MLST ', 'DELE ', 'RMD ', 'RNFR ', 'RNTO ', 'REST ', 'TYPE ',\n\
         \x20               'MODE ', 'STRU ', 'OPTS ', 'PROT ', 'PBSZ ', 'AUTH ', 'HOST ', 'SITE ', 'HELP ', 'FEAT ', 'STAT ', 'HASH ',\n\
         \x20               'XSHA256 ', 'MFMT ', 'MFMT 20261129000000 ', 'ALLO ', 'PORT ', 'EPRT ', 'EPSV ', 'RETR ', 'STOR '):\n\
         \x20   reply = c.ask(command + word)\n\
         \x20   assert reply and 'script' not in reply.lower(), (command, reply)",
    );
    said.well();
    assert_eq!(portal.events("protocol.error").len(), 1, "once a minute for each stranger");
}

#[test]
fn lines_have_a_bound_before_and_after_login() {
    let portal = portal(Setup::new().without_scanner(), "ftps-line");
    // The first password takes argon2's memory.
    portal.ftplib("portal()").well();
    let before = portal.memory("VmRSS");
    let said = portal.ftplib(
        "def flood(c):\n\
         \x20   sent = 0\n\
         \x20   try:\n\
         \x20       while sent < 300 << 20:\n\
         \x20           c.sock.sendall(b'a' * 65536); sent += 65536\n\
         \x20       raise SystemExit('300 MiB without a line end were taken')\n\
         \x20   except OSError: return sent\n\
         c = Lines(raw()); c.reply(); print(flood(c))\n\
         print(flood(by_hand()))\n\
         c = by_hand()\n\
         assert c.ask('CWD /' + 'a' * 4000).startswith('550')\n\
         assert c.ask('CWD ' + 'a' * 4093).startswith('421')",
    );
    said.well();
    let after = portal.memory("VmRSS");
    assert!(after < before + 20_000, "{before} kB became {after} kB");
}

#[test]
fn a_syntax_error_ends_nothing_and_replies_come_in_order() {
    let portal = portal(Setup::new().without_scanner(), "ftps-syntax");
    let said = portal.ftplib(
        "c = by_hand()\n\
         for line, code in (\n\
         \x20   ('OPTS UTF-8 ON', '200'), ('OPTS MLST type;size;', '200'), ('NOOP x', '200'), ('PROT X', '504'),\n\
         \x20   ('REST abc', '501'), ('PWD /', '257'), ('MKD', '501'), ('MODE Z', '504'), ('STRU R', '504'),\n\
         \x20   ('TYPE E', '504'), ('TYPE A', '200'), ('TYPE L 8', '200'), ('XYZZY', '500'), ('', '500'),\n\
         \x20   ('PORT 127,0,0,1,10,10', '502'), ('EPRT |1|127.0.0.1|2570|', '502'), ('REIN', '502'),\n\
         \x20   ('SITE EXEC ls', '504'), ('RNTO x', '503'), ('STOR x', '425'), ('EPSV 3', '522'), ('CDUP', '250'),\n\
         \x20   ('ACCT x', '202'), ('HELP', '214'), ('STAT', '211'), ('SYST', '215'), ('MLST', '250'),\n\
         \x20   ('STAT ' + IN, '213'), ('MDTM ' + IN, '213'), ('SIZE ' + IN, '550'), ('MLSD x', '425'),\n\
         ):\n\
         \x20   reply = c.ask(line)\n\
         \x20   assert reply.startswith(code), (line, reply)\n\
         c.send(b'\\xff\\xf4\\xff\\xf2ABOR\\r\\n'); assert c.reply().startswith('226')\n\
         # Pipelined: as many replies as commands, in their order.\n\
         for _ in range(20):\n\
         \x20   c.send((b'CWD ' + IN.encode() + b'\\r\\nCWD ..\\r\\nPWD\\r\\nSIZE nofile\\r\\nMDTM nofile\\r\\nNOOP\\r\\n') * 3)\n\
         \x20   codes = [c.reply()[:3] for _ in range(18)]\n\
         \x20   assert codes == ['250', '250', '257', '550', '550', '200'] * 3, codes\n\
         c.send(b'NOOP\\r\\n' * 1000)\n\
         assert all(c.reply().startswith('200') for _ in range(1000))\n\
         # During a transfer NOOP is answered at once, but never before what came before it.\n\
         s = data(c); c.send('STOR ' + IN + '/order.bin'); assert c.reply().startswith('150')\n\
         assert c.ask('NOOP').startswith('200')\n\
         c.send(b'PWD\\r\\nNOOP\\r\\nSTAT\\r\\n')\n\
         d = wrapped(c, s); d.unwrap(); d.close()\n\
         codes = [c.reply()[:3] for _ in range(4)]\n\
         assert codes == ['226', '257', '200', '211'], codes\n\
         # A transfer with everything behind it in one go.\n\
         s = data(c)\n\
         c.send(b'STOR ' + IN.encode() + b'/p.bin\\r\\nCWD /\\r\\nPWD\\r\\nQUIT\\r\\n')\n\
         assert c.reply().startswith('150')\n\
         d = wrapped(c, s); d.sendall(b'x' * 100000); d.unwrap(); d.close()\n\
         codes = [c.reply()[:3] for _ in range(4)]\n\
         assert codes == ['226', '250', '257', '221'], codes\n\
         assert c.reply() is None\n\
         c = by_hand()\n\
         assert c.ask('EPSV ALL').startswith('200') and c.ask('PASV').startswith('503')\n\
         print('done')",
    );
    assert!(said.well().out.contains("done"));
}

#[test]
fn a_restart_point_never_reaches_the_next_file() {
    let portal = portal(Setup::new().without_scanner(), "ftps-rest");
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN)\n\
         def store(name):\n\
         \x20   f.storbinary('STOR ' + name, io.BytesIO(b'0123456789'))\n\
         \x20   assert f.size(name) == 10, (name, f.size(name))\n\
         f.sendcmd('REST 50'); refused(lambda: f.retrbinary('RETR nofile', print), '550'); store('a')\n\
         f.sendcmd('REST 7'); f.nlst(); store('b')\n\
         f.sendcmd('REST 7'); f.cwd(IN); store('c')\n\
         f.sendcmd('REST 5'); back = io.BytesIO(); f.retrbinary('RETR a', back.write)\n\
         assert back.getvalue() == b'56789'\n\
         store('d')\n\
         f.sendcmd('REST 5'); f.sendcmd('TYPE I'); back = io.BytesIO(); f.retrbinary('RETR a', back.write)\n\
         assert back.getvalue() == b'56789'\n\
         f.sendcmd('RNFR a'); f.voidcmd('NOOP'); refused(lambda: f.sendcmd('RNTO z'), '503')\n\
         print('done')",
    );
    assert!(said.well().out.contains("done"));
}

#[test]
fn data_connections_belong_to_their_client() {
    let portal = portal(Setup::new().without_scanner(), "ftps-data");
    let said = portal.ftplib(
        "c = by_hand()\n\
         port = passive(c)\n\
         thief = socket.create_connection(('127.0.0.1', port), 10, source_address=('127.0.0.2', 0))\n\
         s = data(c, port)\n\
         assert c.ask('STOR ' + IN + '/a.bin').startswith('150')\n\
         d = wrapped(c, s); d.sendall(b'mine'); d.unwrap(); d.close()\n\
         assert c.reply().startswith('226')\n\
         assert thief.recv(10) == b'', 'a stranger is sent away'\n\
         try:\n\
         \x20   socket.create_connection(('127.0.0.1', port), 5); raise SystemExit('the port is still open')\n\
         except ConnectionRefusedError: pass\n\
         # Ports differ and one at a time is open.\n\
         ports = [passive(c) for _ in range(20)]\n\
         assert len(set(ports)) > 12, ports\n\
         # The same port may come again by chance.\n\
         # One that is given up closes in a task of its own, a moment after the answer.\n\
         def closes(port):\n\
         \x20   for _ in range(50):\n\
         \x20       try: socket.create_connection(('127.0.0.1', port), 5).close(); time.sleep(0.02)\n\
         \x20       except ConnectionRefusedError: return True\n\
         for port in set(ports) - {ports[-1]}:\n\
         \x20   assert closes(port), 'a second port is open'\n\
         reply = c.ask('PASV')\n\
         assert reply.startswith('227') and '(127,0,0,1,' in reply, reply\n\
         # TLS that fails, and a connection that says nothing but closes.\n\
         s = data(c); assert c.ask('LIST').startswith('150')\n\
         s.sendall(b'this is no TLS at all, and long enough to be sure of it'); assert c.reply().startswith('522')\n\
         s = data(c); assert c.ask('LIST').startswith('150')\n\
         s.close(); assert c.reply().startswith('522')\n\
         # A listing or a download that the client does not want to the end: one final reply, and nothing hangs.\n\
         for line in ('LIST ' + IN, 'RETR ' + IN + '/a.bin'):\n\
         \x20   s = data(c); assert c.ask(line).startswith('150')\n\
         \x20   d = wrapped(c, s); socket.socket(fileno=d.detach()).close()\n\
         \x20   assert c.reply()[:3] in ('226', '426')\n\
         \x20   assert c.ask('NOOP').startswith('200')\n\
         assert c.ask('PWD').startswith('257')\n\
         print('done')",
    );
    assert!(said.well().out.contains("done"));
    assert!(portal.log().contains("from another address than the session's"));
}

#[test]
fn nobody_waits_for_ever() {
    let setup = Setup::new().without_scanner().set("limits", "login_grace", "\"3s\"").set(
        "limits",
        "idle_timeout",
        "\"4s\"",
    );
    let portal = portal(setup, "ftps-timeouts");
    let said = portal.ftplib(
        "import threading\n\
         def silent():\n\
         \x20   c = Lines(raw()); c.reply(); return c\n\
         def half_tls():\n\
         \x20   c = Lines(raw()); c.reply(); c.ask('AUTH TLS'); c.sock.sendall(b'\\x16\\x03\\x01'); return c\n\
         def dripping():\n\
         \x20   c = Lines(raw()); c.reply()\n\
         \x20   try:\n\
         \x20       for _ in range(40): c.sock.sendall(b'N'); time.sleep(0.25)\n\
         \x20   except OSError: pass\n\
         \x20   return c\n\
         def idle(): return by_hand()\n\
         def stalled():\n\
         \x20   c = by_hand(); s = data(c); c.send('STOR ' + IN + '/stalled.bin'); c.reply()\n\
         \x20   d = wrapped(c, s); d.sendall(b'x' * 1000)\n\
         \x20   reply = c.reply(); assert reply.startswith('426'), reply\n\
         \x20   return c\n\
         def no_data_tls():\n\
         \x20   c = by_hand(); s = data(c); c.send('LIST'); c.reply()\n\
         \x20   reply = c.reply(); assert reply.startswith('522'), reply\n\
         \x20   return c\n\
         def no_data_connection():\n\
         \x20   c = by_hand(); passive(c); c.send('STOR ' + IN + '/nobody.bin'); c.reply()\n\
         \x20   reply = c.reply(); assert reply.startswith('425'), reply\n\
         \x20   return c\n\
         failed = []\n\
         def run(case):\n\
         \x20   begin = time.time()\n\
         \x20   try:\n\
         \x20       c = case()\n\
         \x20       while c.line() is not None: pass\n\
         \x20   except OSError: pass\n\
         \x20   except BaseException as error: failed.append((case.__name__, error))\n\
         \x20   took = time.time() - begin\n\
         \x20   print(case.__name__, round(took, 1))\n\
         \x20   if took > 45: failed.append((case.__name__, took))\n\
         threads = [threading.Thread(target=run, args=(case,)) for case in (silent, half_tls, dripping, idle, stalled, no_data_tls, no_data_connection)]\n\
         [t.start() for t in threads]; [t.join() for t in threads]\n\
         assert not failed, failed",
    );
    said.well();
    portal.until_state("stalled.bin", "incomplete");
}

#[test]
fn fast_logins_and_many_sessions_all_get_in() {
    let setup = Setup::new().without_scanner().set("limits", "sessions_per_account", "100").set(
        "limits",
        "connections_per_ip",
        "60",
    );
    let portal = portal(setup, "ftps-logins");
    portal.ftplib("portal()").well();
    let before = portal.memory("VmRSS");
    let said = portal.ftplib(
        "def login():\n\
         \x20   s = raw(); c = Lines(s); c.reply()\n\
         \x20   assert c.ask('AUTH TLS').startswith('234')\n\
         \x20   c.sock = shared.wrap_socket(s)\n\
         \x20   c.send('USER ' + USER); c.send('PASS ' + PASSWORD)\n\
         \x20   assert c.reply().startswith('331'); assert c.reply().startswith('230')\n\
         \x20   return c\n\
         shared = context()\n\
         for _ in range(500): login().sock.close()\n\
         kept = [login() for _ in range(60)]\n\
         c = Lines(raw()); print(c.reply())\n\
         # A client that reads no replies does not grow the server.\n\
         kept[0].sock.setblocking(False)\n\
         sent = 0\n\
         try:\n\
         \x20   while sent < 64 << 20: sent += kept[0].sock.send(b'FEAT\\r\\n' * 1000)\n\
         except (BlockingIOError, ssl.SSLWantWriteError): pass\n\
         print(sent)",
    );
    assert!(said.well().out.starts_with("421 "));
    let after = portal.memory("VmRSS");
    assert!(after < before + 40_000, "{before} kB became {after} kB");
}

#[test]
fn passive_ports_can_be_used_up_and_come_back() {
    // Three in a row, which nobody else takes.
    let first = loop {
        let first = crate::support::instance::free_port();
        let next = [1, 2].map(|n| crate::support::instance::free_port() == first + n);
        if next == [true, true] {
            break first;
        }
    };
    let range = format!("\"{first}-{}\"", first + 2);
    let portal =
        portal(Setup::new().without_scanner().set("ftps", "passive_ports", &range), "ftps-ports");
    let said = portal.ftplib(
        "held = [by_hand() for _ in range(3)]\n\
         for c in held: passive(c)\n\
         c = by_hand()\n\
         assert c.ask('EPSV').startswith('425') and c.ask('PASV').startswith('425')\n\
         held[0].sock.close(); time.sleep(0.5)\n\
         passive(c)\n\
         print('done')",
    );
    assert!(said.well().out.contains("done"));
    assert!(portal.log().contains("widen ftps.passive_ports"));
}

#[test]
fn a_guesser_over_ftps_is_banned_for_both_protocols() {
    let portal = portal(Setup::new().set("limits", "ban_after", "3"), "ftps-ban");
    let said = portal.ftplib(
        "for _ in range(3): refused(lambda: portal(user='nobody', password='falsch geraten 123'), '530')\n\
         assert raw().recv(100) == b'', 'banned'",
    );
    said.well();
    portal.sftp("ls\n").badly();
    portal.cli(&["ban", "remove", "127.0.0.1"]);
    eventually("it may come in again", || portal.ftplib("portal()").ok);
    let begin = Instant::now();
    let said = portal.ftplib(
        "c = Lines(raw()); c.reply(); c.ask('AUTH TLS'); c.sock = context().wrap_socket(c.sock)\n\
         for _ in range(2): c.ask('USER x'); print(c.ask('PASS y'))",
    );
    assert!(said.well().out.contains("530 "));
    assert!(begin.elapsed() >= Duration::from_millis(600), "rejections take their time");
}

#[test]
fn the_tree_of_another_client_is_not_there() {
    let portal = portal(Setup::new().without_scanner(), "ftps-others");
    portal.cli(&["client", "add", "2002", "--name", "Other", "--create-hotfolder"]);
    portal.cli(&["account", "create", "2002", "--username", "other"]);
    portal.cli(&["project", "add", "2002", "geheim-1"]);
    let said = portal.ftplib(
        "f = portal()\n\
         assert f.nlst() == ['2026-0815'], f.nlst()\n\
         for path in ('/geheim-1', '/geheim-1/Eingehend', '/2026-0815/../geheim-1', '../geheim-1'):\n\
         \x20   refused(lambda: f.cwd(path), '550')\n\
         \x20   refused(lambda: f.storbinary('STOR ' + path + '/x', io.BytesIO(b'x')), '550')\n\
         \x20   refused(lambda: f.retrlines('LIST ' + path), '550')\n\
         \x20   refused(lambda: f.sendcmd('MLST ' + path), '550')\n\
         refused(lambda: f.rename(IN, '/geheim-1/Eingehend'), '550')",
    );
    said.well();
    assert!(IN.starts_with("/2026-0815"));
}

#[test]
fn testssl_finds_nothing_above_low() {
    let portal = portal(Setup::new().without_scanner(), "ftps-testssl");
    let above_low = portal.testssl(&["--starttls", "ftp"], portal.ftps_port);
    assert!(above_low.is_empty(), "{above_low:#?}");
}

#[test]
fn descriptors_sessions_and_rows_stay_within_their_bounds() {
    let portal = portal(Setup::new().without_scanner(), "ftps-bounds");
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", portal.server_id())).unwrap().count();
    portal.ftplib("portal()").well();
    let before = descriptors();
    let said = portal.ftplib(
        "import threading\n\
         f = portal(); f.cwd(IN)\n\
         for n in range(150):\n\
         \x20   f.sendcmd('ALLO 1'); f.storbinary(f'STOR {n}.txt', io.BytesIO(b'x'))\n\
         f.quit()\n\
         # As many sessions as the account may have, however many passwords come at once.\n\
         opened = []\n\
         def login():\n\
         \x20   s = raw(); c = Lines(s); c.reply(); c.ask('AUTH TLS'); c.sock = context().wrap_socket(s)\n\
         \x20   c.ask('USER ' + USER); reply = c.ask('PASS ' + PASSWORD)\n\
         \x20   opened.append((reply, c))\n\
         threads = [threading.Thread(target=login) for _ in range(45)]\n\
         [t.start() for t in threads]; [t.join() for t in threads]\n\
         replies = [reply[:3] for reply, _ in opened]\n\
         assert replies.count('230') == 20 and replies.count('530') == 25, replies\n\
         for _, c in opened: c.sock.close()\n\
         for _ in range(300):\n\
         \x20   s = raw(); s.recv(100); s.sendall(b'GET / HTTP/1.1\\r\\n'); s.recv(10); s.close()",
    );
    said.well();
    eventually("files and sockets are closed", || descriptors() < before + 15);
    eventually("the stranger is told of", || !portal.events("protocol.error").is_empty());
    assert_eq!(portal.events("protocol.error").len(), 1, "one line a minute for each stranger");
    let pid = portal.server_id().to_string();
    let hup = std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    assert!(hup.success());
    eventually("SIGHUP is told", || portal.log().contains("SIGHUP"));
    portal.ftplib("portal()").well();
}

#[test]
fn an_account_that_changes_while_its_password_is_checked_does_not_get_in() {
    let portal =
        portal(Setup::new().without_scanner().set("limits", "ban_after", "1000"), "ftps-late");
    let said = portal.ftplib(&format!(
        "import subprocess, threading\n\
         # Guessers fill the queue of password checks.\n\
         def guess():\n\
         \x20   s = raw(); c = Lines(s); c.reply(); c.ask('AUTH TLS'); c.sock = context().wrap_socket(s)\n\
         \x20   for n in range(2): c.ask('USER ' + USER); c.ask(f'PASS falsch geraten {{n}} {{id(c)}}')\n\
         s = raw(); c = Lines(s); c.reply(); c.ask('AUTH TLS'); c.sock = context().wrap_socket(s)\n\
         threads = [threading.Thread(target=guess) for _ in range(40)]\n\
         [t.start() for t in threads]; time.sleep(0.15)\n\
         c.ask('USER ' + USER); c.send('PASS ' + PASSWORD)\n\
         subprocess.check_call([{binary:?}, '--config', {config:?}, 'account', 'disable', USER])\n\
         time.sleep(3)\n\
         reply = c.reply()\n\
         if reply.startswith('230'):\n\
         \x20   assert c.reply().startswith('421'), 'it was let in and stays'\n\
         else: assert reply.startswith('530'), reply",
        binary = crate::support::instance::BINARY,
        config = portal.file("ptportal.toml").to_str().unwrap(),
    ));
    said.well();
}
