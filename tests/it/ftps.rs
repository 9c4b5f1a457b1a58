//! FTPS with real clients: the same tree and the same promises as SFTP (spec sections 6 and 10).

use std::fs;
use std::path::PathBuf;

use crate::support::clients::same;
use crate::support::instance::{IN, Instance, PASSWORD, Setup};
use crate::support::{eventually, noise};

/// An instance whose account has a password.
pub(crate) fn portal(setup: Setup, name: &str) -> Instance {
    let portal = setup.start(name);
    portal.set_password(PASSWORD);
    portal
}

fn write(portal: &Instance, name: &str, len: usize) -> PathBuf {
    let path = portal.file(name);
    fs::write(&path, noise(len, 7)).unwrap();
    path
}

#[test]
fn curl_goes_up_and_down_under_both_versions_of_tls() {
    let portal = portal(Setup::new(), "ftps-curl");
    let file = write(&portal, "plakat.pdf", 2_000_000);
    let source = file.to_str().unwrap();
    for (options, name) in [(&["--tlsv1.3"][..], "a.pdf"), (&["--tls-max", "1.2"][..], "b.pdf")] {
        let with = |more: &[&'static str]| [options, more].concat();
        let mut up: Vec<&str> = with(&["-T"]);
        up.push(source);
        portal.curl_ftps(&format!("{IN}/{name}"), &up).well();
        assert_eq!(portal.until_delivered(name), fs::read(&file).unwrap());
        assert_eq!(portal.upload(name)["protocol"], "ftps");
        let back = portal.file(&format!("back-{name}"));
        portal.curl_ftps(&format!("{IN}/{name}"), &["-o", back.to_str().unwrap()]).well();
        assert!(same(&file, &back));
        // Half of it is there: the download goes on.
        fs::write(&back, &noise(2_000_000, 7)[..700_000]).unwrap();
        portal
            .curl_ftps(&format!("{IN}/{name}"), &["-C", "-", "-o", back.to_str().unwrap()])
            .well();
        assert!(same(&file, &back));
    }
    portal.curl_ftps(&format!("{IN}/neu/tief/c.pdf"), &["--ftp-create-dirs", "-T", source]).well();
    assert_eq!(portal.until_delivered("neu/tief/c.pdf").len(), 2_000_000);
}

#[test]
fn forty_uploads_by_curl_lose_nothing() {
    // Unread session tickets on data connections turn a client's close into a reset (measured with other servers).
    let portal = portal(Setup::new().without_scanner(), "ftps-forty");
    let file = write(&portal, "a.bin", 2_000_000);
    for n in 0..40 {
        let path = format!("{IN}/{n}.bin");
        portal.curl_ftps(&path, &["--tlsv1.3", "-T", file.to_str().unwrap()]).well();
    }
    eventually("all are delivered", || portal.hotfolder_files().len() == 40);
    for delivered in portal.hotfolder_files() {
        assert!(same(&file, &delivered), "{}", delivered.display());
    }
}

#[test]
fn implicit_tls_works_where_it_is_configured() {
    let implicit = crate::support::instance::free_port();
    let listen = format!("[\"127.0.0.1:{implicit}\"]");
    let portal = portal(Setup::new().set("ftps", "implicit_listen", &listen), "ftps-implicit");
    let file = write(&portal, "a.pdf", 100_000);
    let url = format!("ftps://127.0.0.1:{implicit}{IN}/a.pdf");
    portal.curl(&["-T", file.to_str().unwrap(), &url]).well();
    assert_eq!(portal.until_delivered("a.pdf").len(), 100_000);
}

#[test]
fn lftp_mirrors_a_tree_both_ways() {
    let portal = portal(Setup::new(), "ftps-lftp");
    let dir = portal.file("Größe");
    fs::create_dir_all(dir.join("Unter ordner")).unwrap();
    for n in 0..60 {
        let name = format!("Datei {n} \u{e4}\u{f6}\u{fc} \"x\".bin");
        fs::write(dir.join(name), noise(5000 + n, n as u64)).unwrap();
    }
    fs::write(dir.join("Unter ordner/groß.pdf"), noise(3_000_000, 3)).unwrap();
    portal.lftp(&format!("mirror -R --parallel=4 Größe {IN}/Größe")).well();
    portal.lftp(&format!("mirror {IN}/Größe back")).well();
    let compared = std::process::Command::new("diff")
        .args(["-r", "Größe", "back"])
        .current_dir(portal.path())
        .status();
    assert!(compared.unwrap().success());
    eventually("all are delivered", || portal.hotfolder_files().len() == 61);
    let listed = portal.lftp(&format!("cls -l {IN}/Größe/")).well();
    assert_eq!(listed.out.lines().count(), 61, "{listed:?}");
    portal.lftp(&format!("mv {IN}/Größe {IN}/Neu\nrm -r {IN}/Neu\nnlist {IN}")).well();
    assert!(!portal.sftp(&format!("ls {IN}\n")).well().out.contains("Neu"));
}

#[test]
fn lftp_pipelines_its_commands() {
    let portal = portal(Setup::new(), "ftps-pipeline");
    let file = write(&portal, "a.pdf", 50_000);
    let said = portal.lftp(&format!(
        "set ftp:sync-mode off\nput {} -o {IN}/a.pdf\ncls {IN}/\nget {IN}/a.pdf -o b.pdf",
        file.display()
    ));
    said.well();
    assert!(same(&file, &portal.file("b.pdf")));
}

#[test]
fn rclone_copies_into_a_new_folder_and_finds_no_difference() {
    let portal = portal(Setup::new(), "ftps-rclone");
    let dir = portal.file("auftrag");
    fs::create_dir_all(dir.join("sub")).unwrap();
    for n in 0..20 {
        fs::write(dir.join(format!("{n}.pdf")), noise(20_000 + n, n as u64)).unwrap();
    }
    fs::write(dir.join("sub/ä.pdf"), noise(1_000_000, 3)).unwrap();
    let target = format!("ftps:{IN}/neu");
    portal.rclone(&["copy", "auftrag", &target]).well();
    portal.rclone(&["check", "--download", "auftrag", &target]).well();
    // Times are kept, so that a second copy has nothing to do.
    let again = portal.rclone(&["copy", "-v", "auftrag", &target]).well();
    assert!(!again.err.contains("Copied"), "{again:?}");
    eventually("all are delivered", || portal.hotfolder_files().len() == 21);
}

#[test]
fn ftplib_works_with_and_without_session_reuse() {
    let portal = portal(Setup::new(), "ftps-ftplib");
    let said = portal.ftplib(
        "for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):\n\
         \x20   for reuse in (False, True):\n\
         \x20       f = portal(reuse, version)\n\
         \x20       f.cwd(IN)\n\
         \x20       name = f'{version.name}-{reuse}.bin'\n\
         \x20       content = os.urandom(300000)\n\
         \x20       reply = f.storbinary('STOR ' + name, io.BytesIO(content))\n\
         \x20       assert reply.startswith('226') and '[released ' in reply, reply\n\
         \x20       back = io.BytesIO(); f.retrbinary('RETR ' + name, back.write)\n\
         \x20       assert back.getvalue() == content\n\
         \x20       assert name in f.nlst()\n\
         \x20       assert dict(f.mlsd())[name]['size'] == '300000'\n\
         \x20       assert f.size(name) == 300000\n\
         \x20       lines = []; f.dir(lines.append); assert any(name in l for l in lines), lines\n\
         \x20       f.quit()\n\
         print('done')",
    );
    assert!(said.well().out.contains("done"));
    eventually("all are delivered", || portal.hotfolder_files().len() == 4);
}

#[test]
fn session_reuse_can_be_demanded() {
    let portal = portal(Setup::new().set("ftps", "require_session_reuse", "true"), "ftps-reuse");
    let said = portal.ftplib(
        "for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):\n\
         \x20   f = portal(True, version); f.cwd(IN)\n\
         \x20   f.storbinary(f'STOR {version.name}.bin', io.BytesIO(b'x' * 100000))\n\
         \x20   f = portal(False, version); f.cwd(IN)\n\
         \x20   print(refused(lambda: f.retrlines('LIST'), '522'))\n\
         \x20   print(refused(lambda: f.storbinary('STOR no.bin', io.BytesIO(b'x' * 3000000)), '522'))\n\
         # Under TLS 1.3 it must be this session, not any session of this server.\n\
         shared = context()\n\
         a, b = portal(True, ctx=shared), portal(True, ctx=shared)\n\
         a.cwd(IN)\n\
         own = a.sock.session\n\
         conn = ftplib.FTP.ntransfercmd(a, 'LIST')[0]\n\
         conn = a.context.wrap_socket(conn, session=b.sock.session)\n\
         print(refused(a.voidresp, '522'))",
    );
    let said = said.well();
    assert_eq!(said.out.lines().count(), 5, "{said:?}");
    let file = write(&portal, "c.pdf", 500_000);
    let source = file.to_str().unwrap();
    portal.curl_ftps(&format!("{IN}/curl.pdf"), &["-T", source]).well();
    portal.lftp(&format!("put {source} -o {IN}/lftp.pdf")).well();
    let listed = portal.sftp(&format!("ls {IN}\n")).well();
    assert!(listed.out.contains("lftp.pdf") && !listed.out.contains("no.bin"), "{listed:?}");
}

#[test]
fn both_protocols_show_the_same_tree() {
    let portal = portal(Setup::new(), "ftps-same");
    fs::write(portal.file("a.pdf"), b"%PDF one").unwrap();
    portal.sftp(&format!("mkdir {IN}/Süd\nput -p a.pdf {IN}/Süd/a.pdf\n")).well();
    let said = portal.ftplib(
        "f = portal()\n\
         assert f.pwd() == '/'\n\
         assert sorted(f.nlst()) == ['2026-0815'], f.nlst()\n\
         names = dict(f.mlsd('/2026-0815'))\n\
         assert sorted(names) == ['Eingehend', 'Final', 'In Bearbeitung', 'Status.txt'], names\n\
         assert names['Eingehend']['perm'] == 'cdeflmp' and names['Final']['perm'] == 'el', names\n\
         assert names['Status.txt']['perm'] == 'r', names\n\
         back = io.BytesIO(); f.retrbinary('RETR /2026-0815/Status.txt', back.write)\n\
         assert len(back.getvalue()) == f.size('/2026-0815/Status.txt')\n\
         assert f.mlsd(IN + '/Süd')\n\
         fact = dict(f.mlsd(IN + '/Süd'))['a.pdf']\n\
         assert fact['size'] == '8' and fact['perm'] == 'adfrw' and fact['type'] == 'file', fact\n\
         want = time.strftime('%Y%m%d%H%M%S', time.gmtime(int(os.stat('a.pdf').st_mtime)))\n\
         assert fact['modify'] == want, (fact, want)\n\
         assert f.sendcmd('MDTM ' + IN + '/Süd/a.pdf') == '213 ' + want\n\
         digest = hashlib.sha256(b'%PDF one').hexdigest()\n\
         assert digest in f.sendcmd('HASH ' + IN + '/Süd/a.pdf')\n\
         assert f.sendcmd('XSHA256 ' + IN + '/Süd/a.pdf') == '250 ' + digest\n\
         for path in ('/', '/2026-0815', '/2026-0815/Final', '/2026-0815/In Bearbeitung'):\n\
         \x20   refused(lambda: f.storbinary('STOR ' + path + '/x.pdf', io.BytesIO(b'x')), '550')\n\
         \x20   refused(lambda: f.mkd(path + '/x'), '550')\n\
         refused(lambda: f.rmd('/2026-0815'), '550')\n\
         refused(lambda: f.delete('/2026-0815/Status.txt'), '550')\n\
         refused(lambda: f.rename(IN + '/Süd/a.pdf', '/2026-0815/Final/a.pdf'), '550')\n\
         refused(lambda: f.cwd('/etc'), '550')\n\
         assert f.cwd('../../..') and f.pwd() == '/'\n\
         f.cwd('/2026-0815/Eingehend/Süd/..')\n\
         assert f.pwd() == IN, f.pwd()\n\
         f.sendcmd('MFMT 20200102030405 Süd/a.pdf')\n\
         assert f.sendcmd('MDTM Süd/a.pdf') == '213 20200102030405'\n\
         f.sendcmd('SITE CHMOD 600 Süd/a.pdf'); f.sendcmd('SITE UTIME 20210102030405 Süd/a.pdf')\n\
         assert f.sendcmd('MDTM Süd/a.pdf') == '213 20210102030405'\n\
         f.mkd('neu \"x\"'); f.rename('Süd/a.pdf', 'neu \"x\"/b.pdf'); f.rmd('Süd')\n\
         assert f.cwd('neu \"x\"').startswith('250'), 'cwd'\n\
         assert f.pwd() == IN + '/neu \"x\"', f.pwd()\n\
         print('done')",
    );
    assert!(said.well().out.contains("done"));
    let listed = portal.sftp(&format!("ls -l \"{IN}/neu \\\"x\\\"\"\n")).well();
    assert!(listed.out.contains("b.pdf"), "{listed:?}");
    let file = portal.sftp(&format!("get -p \"{IN}/neu \\\"x\\\"/b.pdf\" b.pdf\n"));
    file.well();
    let mtime = fs::metadata(portal.file("b.pdf")).unwrap().modified().unwrap();
    let seconds = mtime.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds, 1_609_556_645, "2021-01-02 03:04:05 UTC");
}

#[test]
fn names_of_old_clients_and_of_macs_are_the_same_names() {
    let portal = portal(Setup::new(), "ftps-names");
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN)\n\
         f.encoding = 'cp1252'\n\
         f.storbinary('STOR Müller.pdf', io.BytesIO(b'one'))\n\
         f.encoding = 'utf-8'\n\
         assert f.nlst() == ['Müller.pdf'], f.nlst()\n\
         import unicodedata\n\
         nfd = unicodedata.normalize('NFD', 'Müller.pdf')\n\
         assert f.size(nfd) == 3\n\
         f.storbinary('STOR ' + nfd, io.BytesIO(b'three'))\n\
         assert f.nlst() == ['Müller.pdf'] and f.size('Müller.pdf') == 5\n\
         f.storbinary('STOR .DS_Store', io.BytesIO(b'dropped'))\n\
         assert f.size('.DS_Store') == 7\n\
         refused(lambda: f.storbinary('STOR a\\x07b.pdf', io.BytesIO(b'x')), '550')\n\
         refused(lambda: f.storbinary('STOR ' + 'x' * 300, io.BytesIO(b'x')), '550')\n\
         print('done')",
    );
    assert!(said.well().out.contains("done"));
    eventually("both versions are delivered", || portal.hotfolder_files().len() == 2);
    assert!(portal.delivered("Müller.pdf").exists());
}

#[test]
fn a_long_listing_is_complete() {
    let portal = portal(Setup::new().without_scanner(), "ftps-long");
    fs::create_dir(portal.file("many")).unwrap();
    for n in 0..600 {
        fs::write(portal.file(&format!("many/f{n:05}")), b"x").unwrap();
    }
    portal.lftp(&format!("mirror -R --parallel=4 many {IN}/many")).well();
    let said = portal.ftplib(
        "f = portal(); f.cwd(IN + '/many')\n\
         assert len(f.nlst()) == 600 == len(list(f.mlsd()))\n\
         lines = []; f.dir(lines.append); assert len(lines) == 600\n\
         assert len(f.nlst('f0000*')) == 10\n\
         print('done')",
    );
    assert!(said.well().out.contains("done"));
}

#[test]
fn pyftpdlibs_own_tests_pass() {
    let setup = Setup::new().without_scanner().set("limits", "ban_after", "1000");
    let portal = portal(setup, "ftps-pyftpdlib");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pyftpdlib/functional.py");
    let said: crate::support::clients::Said = std::process::Command::new("/usr/bin/python3")
        .arg(script)
        .env("PTPORTAL_PORT", portal.ftps_port.to_string())
        .env("PTPORTAL_USER", crate::support::instance::USER)
        .env("PTPORTAL_PASSWORD", PASSWORD)
        .env("PTPORTAL_FOLDER", IN)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(portal.path())
        .output()
        .unwrap()
        .into();
    assert!(said.well().err.contains("OK"));
}

#[test]
fn filezilla_itself_connects_lists_and_uploads() {
    for reuse in ["false", "true"] {
        let setup = Setup::new().set("ftps", "require_session_reuse", reuse);
        let portal = portal(setup, "ftps-filezilla");
        let file = write(&portal, "Größe äöü.pdf", 3_000_000);
        let drive = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/filezilla/drive.py");
        let said: crate::support::clients::Said = std::process::Command::new("/usr/bin/python3")
            .args([drive, "127.0.0.1", &portal.ftps_port.to_string()])
            .args([crate::support::instance::USER, PASSWORD])
            .arg(portal.file("certs/server.crt"))
            .arg(&file)
            .args([IN, portal.path().to_str().unwrap()])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap()
            .into();
        said.well();
        assert!(portal.until_delivered("Größe äöü.pdf") == fs::read(&file).unwrap());
    }
}

#[test]
fn status_txt_is_as_new_as_what_it_tells() {
    let portal = portal(Setup::new(), "ftps-status");
    let said = portal.ftplib(
        "f = portal()\n\
         time_of = lambda: dict(f.mlsd('/2026-0815'))['Status.txt']['modify']\n\
         first = time_of(); time.sleep(1.1)\n\
         f.storbinary('STOR ' + IN + '/a.pdf', io.BytesIO(b'%PDF'))\n\
         assert time_of() > first, (first, time_of())",
    );
    said.well();
}
