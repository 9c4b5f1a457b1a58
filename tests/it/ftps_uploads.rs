//! What becomes of an upload over FTPS: verdicts in the final reply, resume, lost connections (spec sections 7, 10).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use crate::ftps::portal;
use crate::support::instance::{BINARY, IN, Instance, Setup, USER};
use crate::support::{eicar, eventually, noise};

#[test]
fn a_virus_ends_in_one_reply_with_its_name() {
    let portal = portal(Setup::new().set("scan", "window", "\"1MiB\""), "ftps-virus");
    fs::write(portal.file("whole.pdf"), eicar()).unwrap();
    let mut deep = noise(9_000_000, 9);
    deep[8_500_000..8_500_000 + eicar().len()].copy_from_slice(&eicar());
    fs::write(portal.file("deep.pdf"), &deep).unwrap();
    // From the second MiB on, so that a window meets it while much is still to be sent.
    for mib in 1..9 {
        deep[mib << 20..(mib << 20) + eicar().len()].copy_from_slice(&eicar());
    }
    fs::write(portal.file("early.pdf"), deep.repeat(6)).unwrap();
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN)\n\
         for name in ('whole.pdf', 'deep.pdf', 'early.pdf'):\n\
         \x20   text = refused(lambda: f.storbinary('STOR ' + name, open(name, 'rb')), '550')\n\
         \x20   assert 'Virus gefunden: Eicar-Test-Signature' in text and '[virus-found ' in text, text\n\
         \x20   assert name not in f.nlst()\n\
         \x20   assert f.voidcmd('NOOP').startswith('200'), 'one reply only'\n\
         print('done')",
    );
    assert!(said.well().out.contains("done"));
    let curl = portal.curl_ftps(&format!("{IN}/c.pdf"), &["-v", "-T", "whole.pdf"]).badly();
    assert!(curl.err.contains("550 Virus gefunden: Eicar-Test-Signature"), "{curl:?}");
    for name in ["whole.pdf", "deep.pdf", "early.pdf", "c.pdf"] {
        portal.until_state(name, "infected");
    }
    assert!(portal.hotfolder_files().is_empty());
}

#[test]
fn a_verdict_that_is_late_or_doubtful_is_told_as_such() {
    let mut portal = portal(Setup::new().set("scan", "answer_within", "\"500ms\""), "ftps-pending");
    fs::write(portal.file("doubtful.pdf"), b"PTPORTAL-DOUBTFUL-MARKER-11aa22bb").unwrap();
    let held = portal.ftplib(
        "f = portal(); print(f.storbinary('STOR ' + IN + '/doubtful.pdf', open('doubtful.pdf', 'rb')))",
    );
    assert!(held.well().out.contains("[held-for-review "));
    portal.clamd.as_ref().unwrap().freeze();
    let script = "f = portal(); print(f.storbinary('STOR ' + IN + '/late.pdf', io.BytesIO(b'%PDF late')))\n\
                  refused(lambda: f.retrbinary('RETR ' + IN + '/late.pdf', print), '550')";
    let said = portal.ftplib(script).well();
    assert!(said.out.starts_with("226") && said.out.contains("[scan-pending "), "{said:?}");
    assert!(!portal.delivered("late.pdf").exists());
    portal.clamd.as_mut().unwrap().kill();
    portal.clamd.as_mut().unwrap().run();
    assert_eq!(portal.until_delivered("late.pdf"), b"%PDF late");
}

#[test]
fn unfinished_uploads_go_on_with_rest_and_with_appe() {
    let portal = portal(Setup::new(), "ftps-resume");
    let content = noise(3_000_000, 5);
    fs::write(portal.file("a.bin"), &content).unwrap();
    let said = portal.ftplib(
        "content = open('a.bin', 'rb').read()\n\
         def half(name, n, end):\n\
         \x20   f = portal(); f.cwd(IN)\n\
         \x20   conn, _ = f.ntransfercmd('STOR ' + name)\n\
         \x20   conn.sendall(content[:n])\n\
         \x20   end(f, conn)\n\
         def no_close_notify(f, conn):\n\
         \x20   # FIN without close_notify: what an attacker or a broken line sends.\n\
         \x20   fd = conn.detach(); socket.socket(fileno=fd).close()\n\
         \x20   text = refused(f.voidresp, '426')\n\
         \x20   assert '[transfer-aborted ' in text, text\n\
         half('rest.bin', 1000000, no_close_notify)\n\
         half('appe.bin', 1500000, no_close_notify)\n\
         half('cut.bin', 2000000, no_close_notify)\n\
         half('whole.bin', len(content), no_close_notify)\n\
         f = portal(); f.cwd(IN)\n\
         assert f.size('rest.bin') == 1000000, f.size('rest.bin')\n\
         refused(lambda: f.retrbinary('RETR rest.bin', print), '550')\n\
         assert dict(f.mlsd())['rest.bin']['perm'] == 'adfw'\n\
         print(f.storbinary('STOR rest.bin', io.BytesIO(content[1000000:]), rest=1000000))\n\
         print(f.storbinary('APPE appe.bin', io.BytesIO(content[1500000:])))\n\
         # Behind the restart point nothing of the first attempt stays.\n\
         print(f.storbinary('STOR cut.bin', io.BytesIO(content[500000:600000]), rest=500000))\n\
         # Everything was there but the end: a resume without a byte completes it.\n\
         print(f.storbinary('APPE whole.bin', io.BytesIO(b'')))\n\
         refused(lambda: f.storbinary('STOR new.bin', io.BytesIO(b'x'), rest=5), '554')\n\
         refused(lambda: f.retrbinary('RETR rest.bin', print, rest=3000001), '554')\n\
         back = io.BytesIO(); f.retrbinary('RETR rest.bin', back.write, rest=2999990)\n\
         assert back.getvalue() == content[2999990:]\n\
         print('done')",
    );
    let said = said.well();
    assert_eq!(said.out.matches("[released ").count(), 4, "{said:?}");
    for name in ["rest.bin", "appe.bin", "whole.bin"] {
        assert_eq!(portal.until_delivered(name), content, "{name}");
    }
    assert_eq!(portal.until_delivered("cut.bin"), &content[..600_000]);
    assert_eq!(portal.events("upload.incomplete").len(), 4);
}

/// Small pieces are hashed on their way to the disk, large ones before; either way before the scanner reads the file.
#[test]
fn bytes_that_come_in_spurts_of_all_sizes_are_hashed_in_their_order() {
    let mut portal = portal(Setup::new().set("scan", "answer_within", "\"500ms\""), "ftps-spurts");
    let content = noise(9_000_000, 11);
    fs::write(portal.file("a.bin"), &content).unwrap();
    let send = |portal: &Instance, name: &str, begin: usize, sizes: &[usize]| {
        let script = format!(
            "content = open('a.bin', 'rb').read(); at = {begin}\n\
             f = portal(); f.cwd(IN)\n\
             conn, _ = f.ntransfercmd('STOR {name}', at or None)\n\
             for size in {sizes:?}:\n\
             \x20   conn.sendall(content[at:at + size]); at += size; time.sleep(0.05)\n\
             conn.unwrap(); conn.close()\n\
             print(f.voidresp()); print(hashlib.sha256(content[:at]).hexdigest())\n"
        );
        let said = portal.ftplib(&script).well().out;
        let (reply, digest) = said.trim().split_once('\n').unwrap();
        (reply.to_owned(), digest.to_owned())
    };
    portal.clamd.as_ref().unwrap().freeze();
    let mixtures: [(&str, &[usize]); 2] = [
        ("small-first.bin", &[10, 70_000, 3_000_000, 5, 100_000, 2_000_000, 1]),
        ("large-first.bin", &[2_000_000, 1, 300_000, 700_000, 200_000, 4_000_000]),
    ];
    for (name, sizes) in mixtures {
        let (reply, digest) = send(&portal, name, 0, sizes);
        assert!(reply.contains("[scan-pending "), "{reply}");
        assert_eq!(portal.upload(name)["sha256"], *digest, "{name}");
    }
    portal.clamd.as_mut().unwrap().kill();
    portal.clamd.as_mut().unwrap().run();
    assert_eq!(portal.until_delivered("small-first.bin"), &content[..5_170_016]);
    assert_eq!(portal.until_delivered("large-first.bin"), &content[..7_200_001]);
    // What goes on behind older bytes is read again.
    let (_, digest) = send(&portal, "large-first.bin", 5_000_000, &[2_000_000, 9, 1_000_000]);
    assert_eq!(portal.until_delivered("large-first (2).bin"), &content[..8_000_009]);
    assert_eq!(portal.upload("large-first.bin")["sha256"], *digest);
}

#[test]
fn appending_to_a_released_file_makes_a_new_version() {
    let portal = portal(Setup::new(), "ftps-append");
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN)\n\
         f.storbinary('STOR a.txt', io.BytesIO(b'eins'))\n\
         f.storbinary('APPE a.txt', io.BytesIO(b' zwei'))\n\
         back = io.BytesIO(); f.retrbinary('RETR a.txt', back.write)\n\
         assert back.getvalue() == b'eins zwei', back.getvalue()\n\
         print(f.storbinary('APPE a.txt', io.BytesIO(b'')))\n\
         print(f.storbinary('STOR a.txt', io.BytesIO(b'drei'), rest=5))\n\
         back = io.BytesIO(); f.retrbinary('RETR a.txt', back.write)\n\
         assert back.getvalue() == b'eins drei', back.getvalue()\n\
         print(f.sendcmd('ALLO 100'), f.storbinary('STOR b.txt', io.BytesIO(b'x')))\n\
         conn, _ = f.ntransfercmd('STOU b.txt'); conn.sendall(b'unique'); conn.unwrap(); conn.close()\n\
         print(f.voidresp(), f.nlst())",
    );
    let said = said.well();
    assert!(said.out.contains("[repeated "), "{said:?}");
    assert!(said.out.contains("b (2).txt"), "{said:?}");
    assert_eq!(portal.upload("/b.txt")["declared_size"], 100);
    assert_eq!(portal.upload("/a.txt")["version"], 4);
}

#[test]
fn an_append_that_another_connection_began_without_a_byte_keeps_the_old_content() {
    let portal = portal(Setup::new(), "ftps-append-twice");
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN)\n\
         f.storbinary('STOR a.log', io.BytesIO(b'a' * 100))\n\
         conn, _ = f.ntransfercmd('APPE a.log'); time.sleep(6)\n\
         g = portal(); g.cwd(IN)\n\
         print(g.storbinary('APPE a.log', io.BytesIO(b'b' * 20)))\n\
         back = io.BytesIO(); g.retrbinary('RETR a.log', back.write)\n\
         assert back.getvalue() == b'a' * 100 + b'b' * 20, back.getvalue()\n\
         try: conn.sendall(b'c' * 50); conn.unwrap()\n\
         except OSError: pass\n\
         refused(f.voidresp, '4')\n",
    );
    assert!(said.well().out.contains("[released "));
    assert_eq!(portal.until_delivered("a (2).log").len(), 120);
}

#[test]
fn a_resume_without_a_byte_delivers_nothing_even_where_repeats_are_delivered() {
    let portal =
        portal(Setup::new().set("hotfolder", "deliver_repeats", "true"), "ftps-no-byte-more");
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN)\n\
         f.storbinary('STOR a.bin', io.BytesIO(b'x' * 1000000))\n\
         print(f.storbinary('APPE a.bin', io.BytesIO(b'')))\n\
         f.storbinary('STOR b.bin', io.BytesIO(b'y'))\n",
    );
    assert!(said.well().out.contains("[repeated "));
    portal.until_delivered("a.bin");
    portal.until_delivered("b.bin");
    assert_eq!(portal.hotfolder_files().len(), 2, "{:?}", portal.hotfolder_files());
}

#[test]
fn an_aborted_upload_is_told_twice_and_never_delivered() {
    let portal = portal(Setup::new(), "ftps-abort");
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN)\n\
         conn, _ = f.ntransfercmd('STOR a.bin')\n\
         conn.sendall(b'x' * 200000); time.sleep(0.3)\n\
         f.putcmd('STAT'); assert f.getresp().startswith('213')\n\
         f.putcmd('NOOP'); assert f.getresp().startswith('200')\n\
         f.putcmd('ABOR')\n\
         text = refused(f.getresp, '426')\n\
         assert f.getresp().startswith('226')\n\
         conn.close()\n\
         # At once again: the name is free, what came is there.\n\
         print(f.storbinary('APPE a.bin', io.BytesIO(b'y' * 10)))\n\
         assert f.sendcmd('ABOR').startswith('226')\n\
         conn, _ = f.ntransfercmd('RETR a.bin'); conn.recv(10)\n\
         conn.close()\n\
         try: print(f.voidresp())\n\
         except ftplib.Error as error: print(error)\n\
         assert f.voidcmd('NOOP').startswith('200')\n\
         # The control connection goes: its upload is not complete, whatever the data connection says.\n\
         conn, _ = f.ntransfercmd('STOR b.bin')\n\
         conn.sendall(b'x' * 200000); time.sleep(0.3)\n\
         socket.socket(fileno=f.sock.detach()).close(); time.sleep(0.5)\n\
         try: conn.unwrap()\n\
         except OSError: pass",
    );
    assert!(said.well().out.contains("[released "));
    let delivered = portal.until_delivered("a.bin");
    assert!(delivered.starts_with(b"xxx") && delivered.ends_with(b"yyyyyyyyyy"));
    portal.until_state("b.bin", "incomplete");
    assert_eq!(portal.hotfolder_files().len(), 1);
}

#[test]
fn a_client_that_cannot_end_properly_is_tolerated_where_the_account_says_so() {
    let portal = portal(Setup::new(), "ftps-tolerate");
    portal.cli(&["account", "set", USER, "tolerate_missing_close_notify=true"]);
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN)\n\
         conn, _ = f.ntransfercmd('STOR alt.pdf')\n\
         conn.sendall(b'%PDF of an old client')\n\
         fd = conn.detach(); socket.socket(fileno=fd).close()\n\
         print(f.voidresp())\n\
         # A reset is no end, tolerated or not.\n\
         conn, _ = f.ntransfercmd('STOR reset.pdf')\n\
         conn.sendall(b'x' * 100000)\n\
         import struct\n\
         time.sleep(0.3)\n\
         s = socket.socket(fileno=conn.detach())\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()\n\
         refused(f.voidresp, '426')",
    );
    assert!(said.well().out.contains("[released "));
    assert_eq!(portal.until_delivered("alt.pdf"), b"%PDF of an old client");
    assert!(portal.log().contains("tolerate_missing_close_notify"));
    portal.until_state("reset.pdf", "incomplete");
}

#[test]
fn limits_are_told_with_their_value() {
    let portal = portal(Setup::new(), "ftps-limits");
    for setting in ["max_file_bytes=1000000", "denied_extensions=exe", "quota_bytes=2000000"] {
        portal.cli(&["account", "set", USER, setting]);
    }
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN)\n\
         print(refused(lambda: f.storbinary('STOR a.exe', io.BytesIO(b'x')), '550'))\n\
         print(refused(lambda: f.sendcmd('ALLO 5000000'), '552'))\n\
         print(refused(lambda: f.storbinary('STOR big.bin', io.BytesIO(b'x' * 3000000)), '552'))\n\
         for n in range(2): f.storbinary(f'STOR {n}.bin', io.BytesIO(os.urandom(900000)))\n\
         print(refused(lambda: f.storbinary('STOR 3.bin', io.BytesIO(os.urandom(900000))), '552'))\n\
         a, b = portal(), portal()\n\
         conn, _ = a.ntransfercmd('STOR ' + IN + '/busy.bin'); conn.sendall(b'x' * 100)\n\
         print(refused(lambda: b.storbinary('STOR ' + IN + '/busy.bin', io.BytesIO(b'y')), '450'))",
    );
    let said = said.well();
    for code in ["extension-forbidden", "file-too-large", "quota-exceeded", "[busy "] {
        assert!(said.out.contains(code), "{code}: {said:?}");
    }
}

#[test]
fn login_follows_the_same_rules() {
    let portal = portal(Setup::new().set("limits", "ban_after", "1000"), "ftps-login");
    let said = portal.ftplib(
        "refused(lambda: portal(password='ein falsches Kennwort'), '530')\n\
         refused(lambda: portal(user='niemand'), '530')\n\
         f = portal(); assert f.welcome.startswith('220 ptportal'), f.welcome",
    );
    said.well();
    assert_eq!(portal.events("login.failed").len(), 2);
    assert_eq!(portal.events("login")[0]["detail"]["protocol"], "ftps");
    for (setting, code) in [
        ("protocols=sftp", "[protocol-forbidden]"),
        ("allowed_networks=192.0.2.0/24", "[network-forbidden]"),
        ("expires_at=2020-01-01", "[account-expired]"),
    ] {
        portal.cli(&["account", "set", USER, setting]);
        let said = portal.ftplib("print(refused(portal, '530'))").well();
        assert!(said.out.contains(code), "{said:?}");
        portal.cli(&["account", "unset", USER, setting.split('=').next().unwrap()]);
    }
    let ended = portal.ftplib(&format!(
        "import subprocess\n\
         f = portal()\n\
         subprocess.check_call([{BINARY:?}, '--config', {config:?}, 'account', 'disable', USER])\n\
         f.sock.settimeout(10)\n\
         print(f.getline(), f.sock.recv(10))",
        config = portal.file("ptportal.toml").to_str().unwrap(),
    ));
    assert!(ended.well().out.contains("421 "));
}

#[test]
fn a_stop_lets_running_transfers_finish_and_keeps_the_rest() {
    let mut portal = portal(Setup::new(), "ftps-stop");
    let script = "a, b, idle = portal(), portal(), portal()\n\
                  ca, _ = a.ntransfercmd('STOR ' + IN + '/ends.bin'); ca.sendall(b'a' * 300000)\n\
                  time.sleep(0.3)\n\
                  open('begun', 'w').close()\n\
                  assert idle.getline().startswith('421'), 'idle sessions end at once'\n\
                  ca.sendall(b'b' * 300000); ca.unwrap(); ca.close()\n\
                  print(a.voidresp())\n\
                  assert a.getline().startswith('421')";
    std::thread::scope(|scope| {
        let shared = &portal;
        let client = scope.spawn(move || shared.ftplib(script));
        let begun = portal.file("begun");
        eventually("the upload runs", || begun.exists());
        let pid = portal.server_id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(client.join().unwrap().well().out.contains("[released "));
    });
    let log = portal.file("server.log");
    eventually("it stops", || fs::read_to_string(&log).unwrap().contains(" stopped"));
    portal.serve();
    assert_eq!(portal.until_delivered("ends.bin").len(), 600_000);
    portal.stop();
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart() {
    let portal = portal(Setup::new().without_scanner(), "ftps-certificate");
    let fingerprint = || {
        let said = portal
            .ftplib("c = by_hand(); print(hashlib.sha256(c.sock.getpeercert(True)).hexdigest())");
        said.well().out
    };
    let first = fingerprint();
    assert_eq!(first, fingerprint());
    let checked = portal.cli(&["check"]).to_string();
    assert!(checked.contains("days left"), "{checked}");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-keyout", "new.key", "-out", "new.crt", "-days", "5", "-subj", "/CN=ftp.example"])
        .current_dir(portal.path())
        .output();
    assert!(made.unwrap().status.success());
    // A transfer that runs meanwhile goes on with the one it began with.
    let content = noise(6_000_000, 3);
    fs::write(portal.file("lange.bin"), &content).unwrap();
    let slow = ["--limit-rate", "800k", "-T", "lange.bin"];
    std::thread::scope(|scope| {
        let long = scope.spawn(|| portal.curl_ftps(&format!("{IN}/lange.bin"), &slow));
        std::thread::sleep(Duration::from_millis(500));
        fs::copy(portal.file("new.key"), portal.file("certs/server.key")).unwrap();
        fs::copy(portal.file("new.crt"), portal.file("certs/server.crt")).unwrap();
        eventually("the new certificate is shown", || fingerprint() != first);
        long.join().unwrap().well();
    });
    assert_eq!(portal.until_delivered("lange.bin"), content);
    for key in ["ssh_host_ed25519_key", "ssh_host_rsa_key", "server.key"] {
        let mode = fs::metadata(portal.file("certs").join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{key} can be read by others: {mode:o}");
    }
    let checked = portal.cli(&["check"]).to_string();
    assert!(checked.contains("4 days left"), "{checked}");
}

#[test]
fn a_client_that_gives_up_never_completes_a_file() {
    // These end their data connection as properly as after the last byte; only what the control connection says, or
    // that it is gone, tells that they gave up.
    let setup = Setup::new().environment("PTPORTAL_TEST_SURE_MS", "500");
    let portal = portal(setup, "ftps-giveup");
    fs::write(portal.file("gross.bin"), noise(30_000_000, 4)).unwrap();
    let giving_up = ["--limit-rate", "6M", "--max-time", "1", "-T", "gross.bin"];
    for n in 0..5 {
        portal.curl_ftps(&format!("{IN}/curl-{n}.bin"), &giving_up).badly();
    }
    let said = portal.ftplib(
        "def sending(name):\n\
         \x20   c = by_hand(); s = data(c)\n\
         \x20   assert c.ask('STOR ' + IN + '/' + name).startswith('150')\n\
         \x20   d = wrapped(c, s); d.sendall(b'x' * 300000); time.sleep(0.05)\n\
         \x20   return c, d\n\
         def end(d):\n\
         \x20   try: d.unwrap().close()\n\
         \x20   except OSError: pass\n\
         for n in range(5):\n\
         \x20   c, d = sending(f'abor-first-{n}'); c.send('ABOR'); end(d)\n\
         \x20   assert [c.reply()[:3], c.reply()[:3]] == ['426', '226']\n\
         \x20   c, d = sending(f'abor-last-{n}'); end(d); c.send('ABOR')\n\
         \x20   assert [c.reply()[:3], c.reply()[:3]] == ['426', '226']\n\
         \x20   c, d = sending(f'gone-first-{n}'); c.sock.close(); end(d)\n\
         \x20   c, d = sending(f'gone-last-{n}'); end(d); c.sock.close()\n\
         # With ALLO nobody needs to wait: all that was said is there.\n\
         f = portal(); f.sendcmd('ALLO 5'); begin = time.time()\n\
         f.storbinary('STOR ' + IN + '/said.bin', io.BytesIO(b'12345'))",
    );
    said.well();
    portal.cli(&["account", "set", USER, "tolerate_missing_close_notify=true"]);
    let killed = portal.ftplib(
        "import os, signal\n\
         for n in range(3):\n\
         \x20   if os.fork() == 0:\n\
         \x20       f = portal(); conn, _ = f.ntransfercmd(f'STOR {IN}/killed-{n}.bin')\n\
         \x20       conn.sendall(b'x' * 300000); time.sleep(0.1)\n\
         \x20       os.kill(os.getpid(), signal.SIGKILL)\n\
         \x20   os.wait()",
    );
    killed.well();
    assert_eq!(portal.until_delivered("said.bin"), b"12345");
    eventually("all others are unfinished", || {
        let all = portal.cli(&["upload", "list"]);
        let states = all.as_array().unwrap().iter();
        let incomplete = states.filter(|upload| upload["state"] == "incomplete").count();
        incomplete == 5 + 20 + 3
    });
    assert_eq!(portal.hotfolder_files().len(), 1, "{:?}", portal.hotfolder_files());
}

#[test]
fn a_new_version_that_comes_to_nothing_takes_no_name_away() {
    let mut portal =
        portal(Setup::new().set("scan", "answer_within", "\"300ms\""), "ftps-names-stay");
    portal.clamd.as_ref().unwrap().freeze();
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN)\n\
         for name in ('a.pdf', 'b.pdf.part'):\n\
         \x20   assert '[scan-pending ' in f.storbinary('STOR ' + name, io.BytesIO(b'%PDF ' + name.encode()))\n\
         \x20   c = by_hand(); c.ask('CWD ' + IN); s = data(c); assert c.ask('STOR ' + name).startswith('150')\n\
         \x20   d = wrapped(c, s); c.send('ABOR'); c.reply(); c.reply(); d.close()\n\
         \x20   refused(lambda: f.storbinary('STOR ' + name, io.BytesIO(b'x'), rest=5000), '554')\n\
         \x20   assert name in f.nlst(), f.nlst()\n\
         f.rename('b.pdf.part', 'b.pdf')\n\
         assert sorted(f.nlst()) == ['a.pdf', 'b.pdf'], f.nlst()",
    );
    said.well();
    portal.clamd.as_mut().unwrap().kill();
    portal.clamd.as_mut().unwrap().run();
    assert_eq!(portal.until_delivered("a.pdf"), b"%PDF a.pdf");
    assert_eq!(portal.until_delivered("b.pdf"), b"%PDF b.pdf.part");
    assert_eq!(portal.hotfolder_files().len(), 2);
}

#[test]
fn a_restart_point_without_a_byte_cuts_nothing() {
    let portal = portal(Setup::new(), "ftps-nothing");
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN)\n\
         f.storbinary('STOR a.txt', io.BytesIO(b'12345'))\n\
         print(f.storbinary('STOR a.txt', io.BytesIO(b''), rest=3))\n\
         back = io.BytesIO(); f.retrbinary('RETR a.txt', back.write)\n\
         assert back.getvalue() == b'12345', back.getvalue()\n\
         conn, _ = f.ntransfercmd('STOR b.txt'); conn.sendall(b'12345')\n\
         socket.socket(fileno=conn.detach()).close(); refused(f.voidresp, '426')\n\
         refused(lambda: f.storbinary('STOR b.txt', io.BytesIO(b''), rest=3), '450')\n\
         assert f.size('b.txt') == 5",
    );
    assert!(said.well().out.contains("[repeated "));
    assert_eq!(portal.upload("b.txt")["state"], "incomplete");
}
