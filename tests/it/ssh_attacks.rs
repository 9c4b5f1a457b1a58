//! What a stranger, and a customer who wants more than a customer's rights, tries on the SFTP port.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::clients::Said;
use crate::support::eventually;
use crate::support::instance::{IN, Instance, PASSWORD, Setup, USER, free_port};

fn script(portal: &Instance, name: &str) -> Said {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/siege").join(name);
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).args([&portal.port.to_string(), USER]).arg(portal.file("id"));
    command.stdin(Stdio::null()).output().unwrap().into()
}

#[test]
fn no_message_in_the_wrong_phase_gives_a_login_or_a_channel() {
    let portal =
        Setup::new().without_scanner().set("limits", "ban_after", "100000").start("phases");
    portal.set_password(PASSWORD);
    let said = script(&portal, "phases.py").well();
    assert!(said.out.contains("before the key exchange: 255"), "{said:?}");
    assert!(said.out.contains("the tree of acme ['2026-0815'"), "{said:?}");
    portal.sftp(&format!("ls {IN}\n")).well();
}

#[test]
fn no_shell_no_agent_no_forwarding() {
    let portal = Setup::new().without_scanner().start("forwarding");
    let said = script(&portal, "channels.py").well();
    assert!(said.out.starts_with("the tree"), "{}", said.out);
    // The same with OpenSSH: agent, X11 and a terminal are refused, and with them the command.
    let openssh = |options: &[&str], command: &[&str]| -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-v", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"]);
        ssh.args(["-oBatchMode=yes", "-oIdentitiesOnly=yes", "-p", &portal.port.to_string(), "-i"]);
        ssh.arg(portal.file("id")).args(options).arg(format!("{USER}@127.0.0.1")).args(command);
        ssh.env("DISPLAY", "localhost:9").env("HOME", portal.path()).stdin(Stdio::null());
        ssh
    };
    let only_sftp = "This service allows sftp connections only.";
    for (option, told) in [
        ("-A", only_sftp),
        ("-X", only_sftp),
        ("-Y", only_sftp),
        ("-tt", "PTY allocation request failed"),
    ] {
        let said = Said::from(openssh(&[option], &["id"]).output().unwrap()).badly();
        assert!(said.err.contains(told) && !said.out.contains("uid="), "{option}: {said:?}");
    }
    // A forwarded port exists only at the client: nothing comes through it.
    for (option, target) in [("-L", ":127.0.0.1:22"), ("-L", ":/run/any.sock"), ("-D", "")] {
        let (port, told) = (free_port(), portal.file("forwarding.log"));
        let forwarding = format!("127.0.0.1:{port}{target}");
        let mut client = openssh(&["-N", option, &forwarding], &[])
            .stderr(std::fs::File::create(&told).unwrap())
            .spawn()
            .unwrap();
        eventually("the client listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let proxy = format!("socks5://127.0.0.1:{port}");
        let url = format!("http://127.0.0.1:{port}/");
        let admin = format!("http://127.0.0.1:{}/healthz", portal.admin_port);
        let arguments = if option == "-L" { vec![&*url] } else { vec!["-x", &proxy, &admin] };
        let output =
            Command::new("curl").args(["-sS", "--max-time", "10"]).args(arguments).output();
        let output = output.unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        eventually("it is refused", || {
            std::fs::read_to_string(&told).unwrap().contains("open failed")
        });
        client.kill().unwrap();
        client.wait().unwrap();
    }
}

/// Bytes on disk below the data folder.
fn on_disk(portal: &Instance) -> u64 {
    let output = Command::new("du").args(["-s", "-B1"]).arg(portal.file("data/spool")).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn one_byte_far_away_takes_the_quota_of_its_offset() {
    let portal = Setup::new().without_scanner().start("sparse");
    portal.set_password(PASSWORD);
    portal.cli(&["account", "set", USER, "quota_bytes=1000000"]);
    let before = on_disk(&portal);
    let said = portal
        .paramiko(
            "f = portal().open(IN + '/weit.bin', 'wb')\n\
             f.seek(10 << 30)\n\
             try: f.write(b'x'); f.close(); print('taken')\n\
             except IOError as e: print('refused', e)\n\
             os._exit(0)",
        )
        .well();
    assert!(said.out.contains("refused") && said.out.contains("[quota-exceeded "), "{said:?}");
    let said = portal
        .ftplib(
            "f = portal()\n\
             f.voidcmd('TYPE I')\n\
             try:\n\
             \x20   c = f.transfercmd('STOR ' + IN + '/weit2.bin', 10 << 30); c.sendall(b'x'); c.unwrap(); c.close(); f.voidresp(); print('taken')\n\
             except ftplib.all_errors as e: print('refused', e)",
        )
        .well();
    assert!(said.out.contains("refused"), "{said:?}");
    assert!(on_disk(&portal) < before + (1 << 20), "{} after {before}", on_disk(&portal));
    assert!(portal.hotfolder_files().is_empty());
}

#[test]
fn a_hundred_thousand_names_take_no_memory_and_keep_nobody_waiting() {
    let portal = Setup::new().without_scanner().start("manynames");
    portal.set_password(PASSWORD);
    std::fs::write(portal.file("a.pdf"), b"%PDF").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    portal.until_delivered("a.pdf");
    portal.sql(
        "INSERT INTO entries SELECT printf('01M%023d', n), project_id, parent, printf('blatt %06d.pdf', n), \
         printf('blatt %06d.pdf', n), kind, is_temporary, released_upload, released_version, current_upload, \
         last_version, mtime, created, updated FROM entries, (WITH RECURSIVE c(n) AS \
         (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) SELECT n FROM c) WHERE name = 'a.pdf'",
    );
    // What a login takes (argon2id alone 19 MiB) is there before.
    portal.curl_ftps("/", &[]).well();
    portal.sftp("ls\n").well();
    let before = portal.memory("VmHWM");
    std::thread::scope(|scope| {
        let stats = scope.spawn(|| {
            portal.paramiko(
                "s = portal()\n\
                 for n in range(3000): s.stat(IN + '/a.pdf')\n\
                 print('all')",
            )
        });
        let listed = portal.sftp(&format!("ls -1 {IN}\n")).well().out;
        assert_eq!(listed.lines().filter(|line| line.contains("/blatt ")).count(), 100_000);
        let listed = portal.curl_ftps(&format!("{IN}/"), &["-X", "MLSD"]).well().out;
        assert_eq!(listed.lines().filter(|line| line.contains("; blatt ")).count(), 100_000);
        assert!(stats.join().unwrap().well().out.contains("all"));
    });
    // With the names in memory it were 100 MiB; a second hash at once takes 19.
    let grown = portal.memory("VmHWM") - before;
    assert!(grown < 48 * 1024, "{grown} KiB more");
}

#[test]
fn odd_user_names_write_no_lines_of_their_own() {
    let portal = Setup::new().without_scanner().start("oddnames");
    let forged = "2026-01-01T00:00:00.000000Z  INFO customer logged in account=\"acme\"";
    let script = format!(
        "for name in ('a\\r\\n{forged}', 'a\\x1b[2J\\x00b', '\\u2028{forged}', 'ä' * 3000, \"'; DROP TABLE uplogin; --\"):\n\
         \x20   t = paramiko.Transport(('127.0.0.1', {port}))\n\
         \x20   t.start_client()\n\
         \x20   for way in (lambda: t.auth_password(name, 'x'), lambda: t.auth_none(name)):\n\
         \x20       try: way(); print('let in')\n\
         \x20       except (paramiko.SSHException, EOFError, OSError): pass\n\
         \x20   t.close()\n\
         print('done')",
        port = portal.port,
        forged = forged.replace('"', "\\\"")
    );
    let said = portal.paramiko(&script).well();
    assert!(said.out.trim() == "done", "{said:?}");
    let log = std::fs::read_to_string(portal.file("server.log")).unwrap();
    assert!(log.contains("login.failed") || log.contains("login refused"), "{log}");
    assert!(log.lines().all(|line| !line.starts_with("2026-01-01")), "{log}");
    assert!(log.lines().all(|line| !line.chars().any(char::is_control)), "{log}");
    portal.sftp("ls\n").well();
}
