//! Clients that print customers really use, beside OpenSSH's sftp: rclone, curl, scp, many connections at once.

use crate::support::instance::{IN, PASSWORD, Setup, USER};
use crate::support::{eventually, noise};

#[test]
fn rclone_copies_and_checks_a_tree() {
    let portal = Setup::new().start("rclone");
    let source = portal.file("quelle");
    std::fs::create_dir_all(source.join("Ordner mit Blank/tief")).unwrap();
    for n in 0..40usize {
        let dir = if n % 2 == 0 { "Ordner mit Blank" } else { "Ordner mit Blank/tief" };
        std::fs::write(source.join(dir).join(format!("Größe {n}.bin")), noise(n * 7001, n as u64))
            .unwrap();
    }
    let remote = format!("portal:{IN}");
    portal.rclone(&["copy", "quelle", &remote, "--transfers", "8"]).well();
    portal.rclone(&["check", "quelle", &remote, "--download", "-v"]).well();
    portal.rclone(&["copy", "quelle", &remote]).well();
    eventually("all are delivered", || portal.hotfolder_files().len() == 40);
    assert_eq!(
        portal.cli(&["upload", "list", "--state", "released"]).as_array().unwrap().len(),
        40
    );
}

#[test]
fn curl_uploads_resumes_and_lists() {
    // Debian's curl brings libssh2 1.10, which knows neither AES-GCM nor encrypt-then-MAC.
    let portal = Setup::new().set("sftp", "legacy_algorithms", "true").start("curl");
    portal.set_password(PASSWORD);
    let content = noise(2_000_000, 17);
    std::fs::write(portal.file("c.bin"), &content).unwrap();
    let url = |path: &str| format!("sftp://127.0.0.1:{}{path}", portal.port);
    portal.curl(&["-T", "c.bin", &url(&format!("{IN}/c.bin"))]).well();
    let listed = portal.curl(&[&url(&format!("{IN}/"))]).well();
    assert!(listed.out.contains("c.bin"), "{listed:?}");
    portal.curl(&["-o", "back.bin", &url(&format!("{IN}/c.bin"))]).well();
    assert_eq!(std::fs::read(portal.file("back.bin")).unwrap(), content);
    assert_eq!(portal.until_delivered("c.bin"), content);
}

#[test]
fn scp_works_with_sftp_and_everything_else_is_told_that_only_sftp_is_served() {
    let portal = Setup::new().start("scp");
    std::fs::write(portal.file("a.pdf"), b"%PDF").unwrap();
    let scp = |flag: &str| {
        let mut command = std::process::Command::new("scp");
        command.args([
            "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null",
            "-oLogLevel=ERROR",
            flag,
        ]);
        command.arg("-i").arg(portal.file("id")).args(["-P", &portal.port.to_string(), "a.pdf"]);
        command
            .arg(format!("acme@127.0.0.1:{IN}/scp.pdf"))
            .current_dir(portal.path())
            .output()
            .unwrap()
    };
    assert!(scp("-s").status.success());
    portal.until_delivered("scp.pdf");
    let old = scp("-O");
    assert!(!old.status.success());
    assert!(
        String::from_utf8_lossy(&old.stderr).contains("This service allows sftp connections only.")
    );
    for arguments in [&["acme@127.0.0.1", "id"][..], &["acme@127.0.0.1"][..]] {
        let said = portal.ssh(arguments).badly();
        assert!(said.err.contains("This service allows sftp connections only."), "{said:?}");
    }
    let forwarded = portal
        .ssh(&["-N", "-oExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "acme@127.0.0.1"])
        .badly();
    assert!(forwarded.err.contains("forwarding failed"), "{forwarded:?}");
    let stdio = portal.ssh(&["-W", "127.0.0.1:22", "acme@127.0.0.1"]).badly();
    assert!(
        stdio.err.to_lowercase().contains("forwarding failed") || stdio.err.contains("prohibited"),
        "{stdio:?}"
    );
}

#[test]
fn ten_parallel_connections_and_several_channels_on_one() {
    let portal = Setup::new().start("parallel");
    let said = portal
        .paramiko(
            "def one(n):\n\
             \x20   s = portal()\n\
             \x20   for i in range(5):\n\
             \x20       f = s.open('%s/p%d-%d.bin' % (IN, n, i), 'wb'); f.set_pipelined(True)\n\
             \x20       f.write(bytes([n]) * (200000 + i)); f.close()\n\
             threads = [threading.Thread(target=one, args=(n,)) for n in range(10)]\n\
             [t.start() for t in threads]; [t.join() for t in threads]\n\
             t = transport(); many = [paramiko.SFTPClient.from_transport(t) for _ in range(8)]\n\
             for i, s in enumerate(many):\n\
             \x20   f = s.open('%s/kanal-%d.bin' % (IN, i), 'wb'); f.write(b'k' * i); f.close()\n\
             try: t.open_session(); print('a ninth channel')\n\
             except paramiko.SSHException as e: print('refused', e)\n\
             handles = []\n\
             try:\n\
             \x20   for i in range(200): handles.append(many[0].open('%s/h%d' % (IN, i), 'wb'))\n\
             \x20   print('200 handles')\n\
             except IOError as e: print('stopped at', len(handles), e)\n\
             os._exit(0)",
        )
        .well();
    assert!(said.out.contains("refused"), "{said:?}");
    assert!(
        said.out.contains("stopped at 64") && said.out.contains("[too-many-handles "),
        "{said:?}"
    );
    eventually("58 are delivered", || portal.hotfolder_files().len() == 58);
    for n in 0..10u8 {
        for i in 0..5usize {
            let content = std::fs::read(portal.delivered(&format!("p{n}-{i}.bin"))).unwrap();
            assert_eq!(content, vec![n; 200_000 + i]);
        }
    }
}

#[test]
fn paramiko_tries_a_key_and_then_the_password() {
    let portal = Setup::new().without_scanner().start("paramikotries");
    portal.set_password(PASSWORD);
    let said = portal
        .paramiko(&format!(
            "c = paramiko.SSHClient(); c.set_missing_host_key_policy(paramiko.AutoAddPolicy())\n\
             c.connect('127.0.0.1', {}, username={USER:?}, pkey=paramiko.RSAKey.generate(2048), \
             password={PASSWORD:?}, look_for_keys=False, allow_agent=False, timeout=20)\n\
             print(c.open_sftp().listdir('/'))",
            portal.port
        ))
        .well();
    assert!(said.out.contains("2026-0815"), "{said:?}");
}
