//! The customer's tree: what is where, what may be done there, and what names may look like (spec section 6).

use crate::support::eventually;
use crate::support::instance::{IN, Setup};

#[test]
fn the_tree_is_that_of_spec_section_6() {
    let portal = Setup::new().start("tree");
    let root = portal.sftp("ls -1\nls -1 2026-0815\n").well();
    for name in ["2026-0815", "Eingehend", "In Bearbeitung", "Final", "Status.txt"] {
        assert!(root.out.contains(name), "{root:?}");
    }
    portal.cli(&["project", "add", "1001", "2026/0816-1", "--due", "2026-12-24"]);
    let listed = portal.sftp("ls -1\n").well();
    assert!(
        listed.out.contains("2026-0816-1"),
        "folders of new projects appear at once: {listed:?}"
    );
    portal.cli(&["project", "close", "2026-0815"]);
    let listed = portal.sftp("ls -1\n").well();
    assert!(!listed.out.contains("2026-0815"), "{listed:?}");
}

/// Every operation at every kind of place, with the status code that clients rely on.
#[test]
fn rights_and_status_codes_for_every_operation() {
    let portal = Setup::new().start("rights");
    let script = r#"
import errno
s = portal()
P = '/2026-0815'
s.open(IN + '/da.txt', 'wb').close()
s.mkdir(IN + '/ordner')
s.open(IN + '/ordner/innen.txt', 'wb').close()
def code(what, *args, **kw):
    sftp = s
    try:
        what(*args, **kw); return 'ok'
    except IOError as e:
        if e.errno == errno.ENOENT: return 'missing'
        if e.errno == errno.EACCES: return 'denied'
        return 'unsupported' if 'unsupported' in str(e) or 'no-links' in str(e) else 'failure'
def w(path, mode='wb'):
    f = s.open(path, mode); f.write(b'x'); f.close()
checks = [
    ('stat root', 'ok', s.stat, '/'),
    ('stat above root', 'ok', s.stat, '/../..'),
    ('stat missing project', 'missing', s.stat, '/4711'),
    ('stat missing file', 'missing', s.stat, IN + '/nein.txt'),
    ('stat below a file', 'failure', s.stat, IN + '/da.txt/x'),
    ('list missing', 'missing', s.listdir, IN + '/nein'),
    ('list a file', 'failure', s.listdir, IN + '/da.txt'),
    ('mkdir at root', 'denied', s.mkdir, '/neu'),
    ('mkdir in project', 'denied', s.mkdir, P + '/neu'),
    ('mkdir in final', 'denied', s.mkdir, P + '/Final/neu'),
    ('mkdir in upload', 'ok', s.mkdir, IN + '/neu'),
    ('mkdir twice', 'failure', s.mkdir, IN + '/neu'),
    ('mkdir over file', 'failure', s.mkdir, IN + '/da.txt'),
    ('write at root', 'denied', w, '/x.txt'),
    ('write in project', 'denied', w, P + '/x.txt'),
    ('write status', 'denied', w, P + '/Status.txt'),
    ('write in final', 'denied', w, P + '/Final/x.txt'),
    ('write over folder', 'failure', w, IN + '/neu'),
    ('write in missing folder', 'missing', w, IN + '/nein/x.txt'),
    ('write exclusive', 'failure', w, IN + '/da.txt', 'wx'),
    ('update missing', 'missing', w, IN + '/nein.txt', 'r+b'),
    ('read folder', 'failure', s.open, IN + '/neu', 'rb'),
    ('read missing', 'missing', s.open, IN + '/nein.txt', 'rb'),
    ('remove missing', 'missing', s.remove, IN + '/nein.txt'),
    ('remove folder as file', 'failure', s.remove, IN + '/neu'),
    ('remove upload area', 'denied', s.rmdir, IN),
    ('remove project', 'denied', s.rmdir, P),
    ('remove status', 'denied', s.remove, P + '/Status.txt'),
    ('remove missing in final', 'missing', s.remove, P + '/Final/nein.txt'),
    ('rmdir full', 'failure', s.rmdir, IN + '/ordner'),
    ('rmdir file', 'failure', s.rmdir, IN + '/da.txt'),
    ('rmdir empty', 'ok', s.rmdir, IN + '/neu'),
    ('rename missing', 'missing', s.rename, IN + '/nein.txt', IN + '/da2.txt'),
    ('rename out', 'denied', s.rename, IN + '/da.txt', P + '/Final/da.txt'),
    ('rename folder into itself', 'denied', s.rename, IN + '/ordner', IN + '/ordner/x'),
    ('rename file over folder', 'failure', s.rename, IN + '/da.txt', IN + '/ordner'),
    ('rename', 'ok', s.rename, IN + '/da.txt', IN + '/ordner/da.txt'),
    ('posix rename back', 'ok', s.posix_rename, IN + '/ordner/da.txt', IN + '/da.txt'),
    ('symlink', 'unsupported', s.symlink, '/etc/passwd', IN + '/link'),
    ('readlink', 'unsupported', s.readlink, IN + '/da.txt'),
    ('chmod', 'ok', s.chmod, IN + '/da.txt', 0o600),
    ('chown', 'ok', s.chown, IN + '/da.txt', 0, 0),
    ('utime', 'ok', s.utime, IN + '/da.txt', (1, 1000000000)),
    ('chmod in final', 'ok', s.chmod, P + '/Final', 0o777),
    ('chmod missing', 'missing', s.chmod, IN + '/nein.txt', 0o600),
    ('truncate a finished file', 'unsupported', s.truncate, IN + '/da.txt', 5),
    ('remove file', 'ok', s.remove, IN + '/da.txt'),
]
for name, expect, what, *args in checks:
    got = code(what, *args)
    if got != expect: print('WRONG', name, got, 'instead of', expect)
print('checked', len(checks))
"#;
    let said = portal.paramiko(script).well();
    assert!(said.out.contains("checked 47"), "{said:?}");
    assert!(!said.out.contains("WRONG"), "{}", said.out);
}

#[test]
fn names_are_kept_in_nfc_and_odd_ones_are_refused_with_the_reason() {
    let portal = Setup::new().start("names");
    let said = portal
        .paramiko(
            "s = portal()\n\
             def put(name, data):\n\
             \x20   try:\n\
             \x20       f = s.open(name, 'wb'); f.write(data); f.close(); print('ok')\n\
             \x20   except IOError as e: print(e)\n\
             put(IN + '/Mu\\u0308ller.pdf', b'mac')\n\
             put(IN + '/M\\u00fcller.pdf', b'windows')\n\
             put(IN.encode() + b'/Stra\\xdfe.pdf', b'latin1')\n\
             put(IN + '/a\\nb.pdf', b'x')\n\
             put(IN + '/' + 'x' * 300, b'x')\n\
             put(IN + '/CON.pdf', b'con')\n\
             put(IN + '/a:b?.pdf', b'colon')\n\
             put(IN + '/.htaccess', b'dot')\n\
             put(IN + '/../../../etc/x.pdf', b'up')\n\
             print(sorted(s.listdir(IN)))",
        )
        .well();
    assert!(said.out.contains("[bad-name "), "{said:?}");
    assert_eq!(said.out.matches("[bad-name ").count(), 2, "{said:?}");
    let listed = said.out.lines().last().unwrap();
    assert!(listed.contains("'Müller.pdf'") && listed.contains("'Straße.pdf'"), "{listed}");
    assert_eq!(listed.matches("ller.pdf").count(), 1, "one file, however composed: {listed}");
    assert_eq!(portal.until_delivered("Straße.pdf"), b"latin1");
    eventually("both versions of Müller are there", || {
        portal.delivered("Müller (2).pdf").exists()
    });
    eventually("all are delivered", || portal.hotfolder_files().len() == 6);
    for path in portal.hotfolder_files() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_safe =
            !name.starts_with('.') && !name.contains([':', '?', '\\']) && !name.starts_with("CON");
        assert!(is_safe, "{name} is not safe on a Windows share");
    }
}

#[test]
fn droppings_are_accepted_shown_to_their_session_and_never_delivered() {
    let portal = Setup::new().start("droppings");
    let said = portal
        .paramiko(
            "s = portal()\n\
             for n in ['.DS_Store', '._plakat.pdf', 'Thumbs.db', 'desktop.ini']:\n\
             \x20   f = s.open(IN + '/' + n, 'wb'); f.write(b'12345'); f.close()\n\
             \x20   assert s.stat(IN + '/' + n).st_size == 5\n\
             print(sorted(s.listdir(IN)))\n\
             f = s.open(IN + '/.DS_Store.1a2b3c4d.partial', 'wb'); f.write(b'rclone'); f.close()\n\
             s.rename(IN + '/.DS_Store.1a2b3c4d.partial', IN + '/.DS_Store')\n\
             assert s.stat(IN + '/.DS_Store').st_size == 6\n\
             s.rename(IN + '/._plakat.pdf', IN + '/._anders.pdf')\n\
             print(sorted(portal().listdir(IN)))",
        )
        .well();
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines[0].contains(".DS_Store") && lines[0].contains("._plakat.pdf"), "{said:?}");
    assert_eq!(lines[1], "[]");
    assert!(portal.cli(&["upload", "list", "--state", "released"]).as_array().unwrap().is_empty());
    assert!(portal.hotfolder_files().is_empty());
}

#[test]
fn a_foreign_clients_tree_cannot_be_seen() {
    let portal = Setup::new().start("foreign");
    portal.cli(&["client", "add", "2002", "--name", "Andere", "--create-hotfolder"]);
    portal.cli(&["project", "add", "2002", "geheim-1"]);
    portal.cli(&["account", "create", "2002", "--username", "andere"]);
    let said = portal.sftp("-ls geheim-1\n-ls /geheim-1/Eingehend\n-ls ../1001/2026-0815\n-ls ../geheim-1\nls -1\n").well();
    assert_eq!(said.out.matches("geheim").count(), 3, "only the echoed commands: {said:?}");
    let refused = portal.try_cli(&["project", "add", "2002", "2026-0815"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("belongs to another client"));
}

#[test]
fn a_folder_moves_nowhere_where_its_files_would_be_out_of_reach() {
    let portal = Setup::new().without_scanner().start("deep");
    std::fs::write(portal.file("a.pdf"), b"%PDF far down").unwrap();
    let (a, b) = ("a".repeat(200), "b".repeat(200));
    let down = |name: &str, times: usize| format!("mkdir {name}\ncd {name}\n").repeat(times);
    let batch = format!("cd {IN}\n{}put a.pdf\ncd {IN}\n{}", down(&a, 8), down(&b, 4));
    portal.sftp(&batch).well();
    let said = portal.sftp(&format!("rename {IN}/{a} {IN}/{b}/{b}/{b}/{b}/x\n")).badly();
    assert!(said.err.contains("2048"), "{said:?}");
    let again = format!("{}get a.pdf back.pdf\n", format!("cd {a}\n").repeat(7));
    portal.sftp(&format!("rename {IN}/{a} {IN}/{b}/x\ncd {IN}/{b}/x\n{again}")).well();
    assert_eq!(std::fs::read(portal.file("back.pdf")).unwrap(), b"%PDF far down");
}

#[test]
fn subfolders_renames_and_deletes_are_followed() {
    let portal = Setup::new().set("hotfolder", "delivery_delay", "\"1500ms\"").start("renames");
    std::fs::create_dir_all(portal.file("ordner/tief")).unwrap();
    std::fs::write(portal.file("ordner/a.pdf"), b"a").unwrap();
    std::fs::write(portal.file("ordner/tief/b.pdf"), b"b").unwrap();
    portal.sftp(&format!("put -r ordner {IN}/\nrename {IN}/ordner {IN}/umbenannt\nput ordner/a.pdf {IN}/weg.pdf\nrm {IN}/weg.pdf\n")).well();
    assert_eq!(portal.until_delivered("umbenannt/tief/b.pdf"), b"b");
    assert_eq!(portal.until_delivered("umbenannt/a.pdf"), b"a");
    assert_eq!(portal.upload("tief/b.pdf")["path"], "Eingehend/umbenannt/tief/b.pdf");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(!portal.delivered("weg.pdf").exists());
    assert_eq!(portal.events("delivery.cancelled").len(), 1);
    portal.sftp(&format!("rename {IN}/umbenannt/a.pdf {IN}/spaeter.pdf\n")).well();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(
        !portal.delivered("spaeter.pdf").exists(),
        "renaming after delivery never delivers again"
    );
    portal.sftp("get 2026-0815/Status.txt s.txt\n").well();
    let text = std::fs::read_to_string(portal.file("s.txt")).unwrap();
    assert!(text.contains("spaeter.pdf") && text.contains("übergeben als a.pdf"), "{text}");
}

#[test]
fn a_listing_of_ten_thousand_names_is_complete() {
    let portal = Setup::new().without_scanner().set("hotfolder", "root", "\"\"").start("many");
    std::fs::create_dir(portal.file("many")).unwrap();
    for n in 0..10_000 {
        std::fs::write(portal.file(&format!("many/datei-{n:05}.txt")), b"x").unwrap();
    }
    portal.sftp(&format!("put -r many {IN}/\n")).well();
    let said = portal.sftp(&format!("ls -l {IN}/many\n")).well();
    assert_eq!(said.out.matches("datei-").count(), 10_000);
}

#[test]
fn temporary_names_are_scanned_and_delivered_under_their_final_name() {
    let portal = Setup::new().start("filepart");
    portal
        .paramiko(
            "s = portal()\n\
             f = s.open(IN + '/plakat.pdf.filepart', 'wb'); f.write(b'winscp'); f.close()\n\
             time.sleep(1)\n\
             s.rename(IN + '/plakat.pdf.filepart', IN + '/plakat.pdf')",
        )
        .well();
    assert_eq!(portal.until_delivered("plakat.pdf"), b"winscp");
    assert_eq!(portal.hotfolder_files().len(), 1);
    portal
        .paramiko(
            "s = portal()\n\
             f = s.open(IN + '/plakat.pdf.filepart', 'wb'); f.write(b'winscp 2'); f.close()\n\
             s.posix_rename(IN + '/plakat.pdf.filepart', IN + '/plakat.pdf')",
        )
        .well();
    eventually("the second version is delivered", || portal.delivered("plakat (2).pdf").exists());
    assert_eq!(std::fs::read(portal.delivered("plakat (2).pdf")).unwrap(), b"winscp 2");
    portal
        .paramiko(
            "s = portal()\n\
             f = s.open(IN + '/plakat.pdf.filepart', 'wb'); f.write(b'winscp 2'); f.close()\n\
             s.posix_rename(IN + '/plakat.pdf.filepart', IN + '/plakat.pdf')\n\
             print(s.listdir(IN))",
        )
        .well();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(
        portal.hotfolder_files().len(),
        2,
        "the same again is a repeat: {:?}",
        portal.hotfolder_files()
    );
}
