//! What a customer does every day with stock clients, and what becomes of it.

use crate::support::clients::same;
use crate::support::instance::{IN, PASSWORD, Setup, USER};
use crate::support::{eicar, eventually, noise};

#[test]
fn a_pdf_reaches_the_hotfolder_byte_for_byte_with_its_time() {
    let portal = Setup::new().start("pdf");
    let content = noise(3_000_000, 7);
    std::fs::write(portal.file("plakat.pdf"), &content).unwrap();
    let mut touch = std::process::Command::new("touch");
    touch.args(["-d", "2020-02-03T04:05:06Z"]).arg(portal.file("plakat.pdf"));
    assert!(touch.status().unwrap().success());
    portal.sftp(&format!("put -p plakat.pdf {IN}/plakat.pdf\n")).well();
    assert_eq!(portal.until_delivered("plakat.pdf"), content);
    let meta = std::fs::metadata(portal.delivered("plakat.pdf")).unwrap();
    let time = meta.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(time.as_secs(), 1_580_702_706);
    let upload = portal.until_state("plakat.pdf", "released");
    assert_eq!(upload["verdict"], "clean");
    assert_eq!(upload["size"], content.len());
    assert_eq!(upload["protocol"], "sftp");
    eventually("the delivery is recorded", || portal.upload("plakat.pdf")["delivered"].is_string());
    portal.sftp(&format!("get {IN}/plakat.pdf back.pdf\n")).well();
    assert!(same(&portal.file("plakat.pdf"), &portal.file("back.pdf")));
}

#[test]
fn a_virus_is_refused_with_its_name_and_never_delivered() {
    let portal = Setup::new().start("virus");
    std::fs::write(portal.file("bad.pdf"), eicar()).unwrap();
    std::fs::write(portal.file("good.pdf"), b"%PDF good").unwrap();
    let said = portal.sftp(&format!("put bad.pdf {IN}/bad.pdf\n")).badly();
    assert!(said.err.contains("Virus gefunden: Eicar-Test-Signature"), "{said:?}");
    assert!(said.err.contains("[virus-found 0"), "{said:?}");
    let upload = portal.until_state("bad.pdf", "infected");
    let id = upload["id"].as_str().unwrap();
    assert!(said.err.contains(id), "the customer is told the upload's id");
    assert!(portal.file("data/quarantine").join(id).exists());
    let listed = portal.sftp(&format!("put good.pdf {IN}/good.pdf\nls {IN}\n")).well();
    assert!(!listed.out.contains("bad.pdf"), "{listed:?}");
    portal.until_delivered("good.pdf");
    assert_eq!(portal.hotfolder_files().len(), 1);
    assert_eq!(portal.events("upload.infected").len(), 1);
    let status = portal.sftp("get 2026-0815/Status.txt status.txt\n").well();
    let text = std::fs::read_to_string(portal.file("status.txt")).unwrap();
    assert!(text.contains("abgelehnt: Virus gefunden (Eicar"), "{status:?} {text}");
}

#[test]
fn a_password_works_in_both_ways_and_a_wrong_one_does_not() {
    let portal = Setup::new().start("password");
    portal.set_password(PASSWORD);
    for method in ["password", "keyboard-interactive"] {
        let option = format!("-oPreferredAuthentications={method}");
        let said = portal.sftp_password(USER, PASSWORD, &[&option], "ls\n").well();
        assert!(said.out.contains("2026-0815"), "{said:?}");
    }
    let said = portal.sftp_password(USER, "ein falsches Kennwort", &[], "ls\n").badly();
    assert!(said.err.contains("Permission denied"), "{said:?}");
    let failed = portal.events("login.failed");
    assert_eq!(failed[0]["detail"]["reason"], "wrong password", "{failed:#?}");
    let account = portal.cli(&["account", "show", USER]);
    assert_eq!(account["checked"], true);
    assert!(account["first_login"].is_string());
}

#[test]
fn a_disabled_account_is_told_so_and_running_sessions_end() {
    let portal = Setup::new().start("disabled");
    portal.set_password(PASSWORD);
    let running = portal.paramiko(&format!(
        "import subprocess\n\
         s = portal(); s.listdir('/')\n\
         subprocess.check_call([{binary:?}, '--config', {config:?}, 'account', 'disable', '{USER}'])\n\
         begin = time.time()\n\
         try:\n\
         \x20   while time.time() - begin < 20:\n\
         \x20       s.listdir('/'); time.sleep(0.05)\n\
         \x20   print('still there')\n\
         except (EOFError, OSError, paramiko.SSHException):\n\
         \x20   print('ended after', time.time() - begin)",
        binary = crate::support::instance::BINARY,
        config = portal.file("ptportal.toml").to_str().unwrap(),
    ));
    assert!(running.well().out.contains("ended after"));
    let said = portal.sftp_password(USER, PASSWORD, &[], "ls\n").badly();
    assert!(said.err.contains("nicht aktiv"), "{said:?}");
    let said = portal.sftp_password(USER, "ein falsches Kennwort", &[], "ls\n").badly();
    assert!(!said.err.contains("nicht aktiv"), "only the owner learns it: {said:?}");
}

#[test]
fn an_empty_file_is_delivered_like_any_other() {
    let portal = Setup::new().start("empty");
    std::fs::write(portal.file("leer.txt"), b"").unwrap();
    portal.sftp(&format!("put leer.txt {IN}/leer.txt\n")).well();
    assert_eq!(portal.until_delivered("leer.txt"), b"");
}

#[test]
fn a_broken_upload_is_kept_and_reput_goes_on() {
    let portal = Setup::new().start("reput");
    let content = noise(5_000_000, 3);
    std::fs::write(portal.file("gross.tif"), &content).unwrap();
    portal
        .paramiko(
            "t = transport(); s = paramiko.SFTPClient.from_transport(t)\n\
             f = s.open(IN + '/gross.tif', 'wb'); f.set_pipelined(False)\n\
             f.write(open('gross.tif', 'rb').read(2000000))\n\
             t.sock.close()\n\
             os._exit(0)",
        )
        .well();
    let upload = portal.until_state("gross.tif", "incomplete");
    assert_eq!(upload["size"], 2_000_000);
    let listed = portal.sftp(&format!("ls -l {IN}\n")).well();
    assert!(listed.out.contains(" 2000000 "), "{listed:?}");
    portal.sftp(&format!("get {IN}/gross.tif nicht.tif\n")).badly();
    assert!(portal.hotfolder_files().is_empty());
    portal.sftp(&format!("reput gross.tif {IN}/gross.tif\n")).well();
    assert_eq!(portal.until_delivered("gross.tif"), content);
    assert_eq!(portal.upload("gross.tif")["id"], upload["id"], "the same upload went on");
    portal.sftp(&format!("get {IN}/gross.tif halb.tif\n")).well();
    std::fs::write(portal.file("halb.tif"), &content[..1_234_567]).unwrap();
    portal.sftp(&format!("reget {IN}/gross.tif halb.tif\n")).well();
    assert_eq!(std::fs::read(portal.file("halb.tif")).unwrap(), content);
}

#[test]
fn resuming_a_finished_file_without_a_byte_is_a_repeat() {
    let portal = Setup::new().start("repeat");
    std::fs::write(portal.file("a.pdf"), b"%PDF once").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    portal.until_delivered("a.pdf");
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    portal.paramiko("s = portal(); f = s.open(IN + '/a.pdf', 'ab'); f.close()").well();
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(portal.hotfolder_files().len(), 1, "{:?}", portal.hotfolder_files());
    assert!(portal.events("upload.repeated").len() >= 2, "{}", portal.log());
    let versions = portal.cli(&["upload", "list", "--state", "released"]);
    assert_eq!(versions.as_array().unwrap().len(), 1);
}

#[test]
fn appending_to_a_finished_file_makes_a_new_version_of_the_whole() {
    let portal = Setup::new().start("append");
    let content = noise(700_000, 5);
    std::fs::write(portal.file("a.bin"), &content[..400_000]).unwrap();
    portal.sftp(&format!("put a.bin {IN}/a.bin\n")).well();
    assert_eq!(portal.until_delivered("a.bin").len(), 400_000);
    std::fs::write(portal.file("a.bin"), &content).unwrap();
    portal.sftp(&format!("reput a.bin {IN}/a.bin\n")).well();
    eventually("the new version is delivered", || portal.delivered("a (2).bin").exists());
    assert_eq!(std::fs::read(portal.delivered("a (2).bin")).unwrap(), content);
    assert_eq!(
        std::fs::read(portal.delivered("a.bin")).unwrap(),
        &content[..400_000],
        "never overwritten"
    );
    assert_eq!(portal.upload("a.bin")["version"], 2);
}

#[test]
fn writes_in_any_order_and_gaps_are_what_a_file_system_would_hold() {
    let portal = Setup::new().start("order");
    portal
        .paramiko(
            "s = portal()\n\
             data = bytes(range(256)) * 4096\n\
             f = s.open(IN + '/reverse.bin', 'wb')\n\
             for at in range(len(data) - 32768, -1, -32768):\n\
             \x20   f.seek(at); f.write(data[at:at + 32768])\n\
             f.close()\n\
             g = s.open(IN + '/gap.bin', 'wb'); g.write(b'begin'); g.seek(300000); g.write(b'end'); g.close()\n\
             h = s.open(IN + '/twice.bin', 'wb'); h.write(b'xxxxxxxxxx'); h.seek(2); h.write(b'abc'); h.close()",
        )
        .well();
    let data: Vec<u8> = (0..=255u8).cycle().take(256 * 4096).collect();
    assert_eq!(portal.until_delivered("reverse.bin"), data);
    let mut gap = vec![0u8; 300_003];
    gap[..5].copy_from_slice(b"begin");
    gap[300_000..].copy_from_slice(b"end");
    assert_eq!(portal.until_delivered("gap.bin"), gap);
    assert_eq!(portal.until_delivered("twice.bin"), b"xxabcxxxxx");
    assert_eq!(portal.upload("reverse.bin")["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn what_a_client_has_cut_away_is_not_there_for_a_resume() {
    let portal = Setup::new().start("cutaway");
    portal
        .paramiko(
            "t = transport(); s = paramiko.SFTPClient.from_transport(t)\n\
             f = s.open(IN + '/a.bin', 'wb')\n\
             f.seek(1 << 20)\n\
             for n in range(33): f.write(b'x' * 32768)\n\
             f.truncate(0); f.seek(0)\n\
             for n in range(32): f.write(b'y' * 32768)\n\
             t.close()\n\
             os._exit(0)",
        )
        .well();
    portal.until_state("a.bin", "incomplete");
    let listed = portal.sftp(&format!("ls -l {IN}\n")).well();
    assert!(listed.out.contains(" 1048576 "), "{listed:?}");
    let content = [vec![b'y'; 1 << 20], noise(300_000, 3)].concat();
    std::fs::write(portal.file("a.bin"), &content).unwrap();
    portal.sftp(&format!("reput a.bin {IN}/a.bin\n")).well();
    assert_eq!(portal.until_delivered("a.bin"), content);
}

#[test]
fn a_write_of_nothing_far_behind_the_end_changes_nothing() {
    let portal = Setup::new().start("nothing");
    portal
        .paramiko(
            "from paramiko.sftp import CMD_WRITE; from paramiko.sftp_client import long\n\
             s = portal(); f = s.open(IN + '/leer.bin', 'wb')\n\
             s._request(CMD_WRITE, f.handle, long(1000), b'')\n\
             f.close()\n\
             assert s.stat(IN + '/leer.bin').st_size == 0",
        )
        .well();
    assert_eq!(portal.until_delivered("leer.bin"), b"");
}

#[test]
fn what_was_written_out_of_order_before_a_crash_is_no_beginning_to_go_on_from() {
    let mut portal = Setup::new().start("holecrash");
    let script = "s = portal()\n\
         f = s.open(IN + '/a.bin', 'wb'); f.seek(1 << 20)\n\
         for n in range(40): f.write(b'x' * 32768)\n\
         g = s.open(IN + '/b.bin', 'wb')\n\
         for n in range(40): g.write(b'y' * 32768)\n\
         open('written', 'w').close()\n\
         try:\n\
         \x20   while True: s.stat('/'); time.sleep(0.1)\n\
         except (EOFError, OSError, paramiko.SSHException): pass";
    std::thread::scope(|scope| {
        scope.spawn(|| portal.paramiko(script).well());
        eventually("it has written", || portal.file("written").exists());
        std::thread::sleep(std::time::Duration::from_millis(500));
        let server = portal.server_id().to_string();
        assert!(
            std::process::Command::new("kill").args(["-9", &server]).status().unwrap().success()
        );
    });
    portal.kill();
    portal.serve();
    let listed = portal.sftp(&format!("ls -l {IN}\n")).well();
    assert!(!listed.out.contains("a.bin"), "{listed:?}");
    assert!(listed.out.contains(" 1048576 ") || listed.out.contains(" 1310720 "), "{listed:?}");
    let content = [vec![b'y'; 40 * 32768], noise(100_000, 4)].concat();
    for (command, name) in [("put", "a.bin"), ("reput", "b.bin")] {
        std::fs::write(portal.file(name), &content).unwrap();
        portal.sftp(&format!("{command} {name} {IN}/{name}\n")).well();
        assert_eq!(portal.until_delivered(name), content, "{name}");
    }
}

#[test]
fn the_same_content_of_days_ago_is_delivered_again_however_it_comes() {
    let portal = Setup::new().start("daysago");
    portal.put("a.pdf", b"one").well();
    portal.until_delivered("a.pdf");
    portal.sql("UPDATE uploads SET completed = completed - 172800000");
    portal.put("a.pdf.part", b"one").well();
    portal.sftp(&format!("rename {IN}/a.pdf.part {IN}/a.pdf\n")).well();
    eventually("it is delivered again", || portal.hotfolder_files().len() == 2);
    // Versions of a name that was given up are nobody's earlier version.
    portal.put("b.pdf", b"X1").well();
    portal.put("b.pdf", b"X2").well();
    portal.put("c.pdf", b"Y").well();
    portal.sftp(&format!("rename {IN}/b.pdf {IN}/c.pdf\n")).well();
    eventually("three more", || portal.hotfolder_files().len() == 5);
    portal.put("b.pdf", b"X1").well();
    let listed = portal.sftp(&format!("ls {IN}\n")).well();
    assert!(listed.out.contains("b.pdf"), "{listed:?}");
    eventually("and one more", || portal.hotfolder_files().len() == 6);
}

#[test]
fn an_unclosed_handle_and_a_cut_connection_never_complete_a_file() {
    let portal = Setup::new().start("cut");
    portal
        .paramiko(
            "t = transport(); s = paramiko.SFTPClient.from_transport(t)\n\
             f = s.open(IN + '/offen.pdf', 'wb'); f.write(b'%PDF half'); f.flush()\n\
             s.stat(IN + '/offen.pdf')\n\
             g = s.open(IN + '/nichts.pdf', 'wb')\n\
             t.close()\n\
             os._exit(0)",
        )
        .well();
    portal.until_state("offen.pdf", "incomplete");
    portal.until_state("nichts.pdf", "deleted");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(portal.hotfolder_files().is_empty());
    let listed = portal.sftp(&format!("ls {IN}\n")).well();
    assert!(listed.out.contains("offen.pdf") && !listed.out.contains("nichts.pdf"), "{listed:?}");
}

#[test]
fn one_writer_for_each_name_and_a_silent_one_is_taken_over() {
    let portal = Setup::new().start("writer");
    let said = portal
        .paramiko(
            "a = portal(); b = portal()\n\
             f = a.open(IN + '/x.pdf', 'wb'); f.write(b'first'); f.flush(); a.stat(IN)\n\
             try:\n\
             \x20   b.open(IN + '/x.pdf', 'wb'); print('no refusal')\n\
             except IOError as e: print('busy:', e)\n\
             time.sleep(5.5)\n\
             g = b.open(IN + '/x.pdf', 'r+b')\n\
             g.seek(5); g.write(b' second'); g.close()\n\
             try:\n\
             \x20   f.write(b'zombie'); f.flush(); f.close(); print('zombie wrote')\n\
             except IOError as e: print('fenced:', e)\n\
             os._exit(0)",
        )
        .well();
    assert!(said.out.contains("busy: ") && said.out.contains("[busy "), "{said:?}");
    assert!(said.out.contains("fenced: "), "{said:?}");
    assert_eq!(portal.until_delivered("x.pdf"), b"first second");
}

#[test]
fn a_repeat_after_broken_attempts_is_still_a_repeat() {
    let portal = Setup::new().start("brokenrepeat");
    std::fs::write(portal.file("a.pdf"), b"%PDF the same").unwrap();
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    portal.until_delivered("a.pdf");
    portal
        .paramiko(
            "t = transport(); s = paramiko.SFTPClient.from_transport(t)\n\
             f = s.open(IN + '/a.pdf', 'wb'); f.write(b'%PDF th'); f.flush(); s.stat(IN); t.close(); os._exit(0)",
        )
        .well();
    portal.until_state("a.pdf", "incomplete");
    let said = portal
        .paramiko("s = portal(); f = s.open(IN + '/a.pdf', 'r+b'); f.close(); time.sleep(0.5)")
        .well();
    assert_eq!(
        portal.upload("a.pdf")["state"],
        "incomplete",
        "closing without a byte completes nothing: {said:?}"
    );
    portal.sftp(&format!("put a.pdf {IN}/a.pdf\n")).well();
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(portal.hotfolder_files().len(), 1, "{:?}", portal.hotfolder_files());
}
