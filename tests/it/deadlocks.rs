//! The three deadlocks that the obvious russh-sftp server has with stock clients, and rekeying in big transfers.

use crate::support::clients::same;
use crate::support::instance::{IN, Instance, Setup};

const GIB2: usize = 2 << 30;

/// A big file that costs no time to make: noise, repeated with a counter so that no two MiB are alike.
fn big_file(portal: &Instance, name: &str, len: usize) {
    use std::io::Write;
    let mut piece = crate::support::noise(1 << 20, 31);
    let mut out = std::io::BufWriter::new(std::fs::File::create(portal.file(name)).unwrap());
    for n in 0..len >> 20 {
        piece[..8].copy_from_slice(&n.to_le_bytes());
        out.write_all(&piece).unwrap();
    }
}

#[test]
fn two_gib_up_and_down_with_a_rekey_every_four_mib() {
    let portal = Setup::new()
        .without_scanner()
        .set("hotfolder", "root", "\"\"")
        .environment("PTPORTAL_TEST_REKEY_BYTES", "4194304")
        .start("rekey");
    big_file(&portal, "big.bin", GIB2);
    portal.sftp(&format!("put big.bin {IN}/big.bin\n")).well();
    // 255 KiB reads (limits@openssh.com) of the stock client, and the default of older ones.
    for (options, name) in [(&["-B", "261120"][..], "back.bin"), (&["-B", "32768"][..], "back.bin")]
    {
        portal.sftp_with(options, &format!("get {IN}/big.bin {name}\n")).well();
        assert!(same(&portal.file("big.bin"), &portal.file(name)), "{options:?}");
    }
}

#[test]
fn a_rekey_under_a_slow_disk_and_scanner_hangs_nothing() {
    let mut portal = Setup::new()
        .environment("PTPORTAL_TEST_REKEY_BYTES", "4194304")
        .set("scan", "answer_within", "\"2s\"")
        .start("slowdisk");
    big_file(&portal, "big.bin", 256 << 20);
    // The server stands still for moments at a time, as one whose disk does; the scanner all the while.
    portal.clamd.as_mut().unwrap().freeze();
    let pid = portal.server_id().to_string();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Acquire) {
                for signal in ["-STOP", "-CONT"] {
                    std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(15));
                }
            }
        });
        let said = portal.sftp(&format!("put big.bin {IN}/big.bin\n"));
        stop.store(true, std::sync::atomic::Ordering::Release);
        said.well();
    });
    portal.clamd.as_mut().unwrap().thaw();
    portal.until_state("big.bin", "released");
    portal.sftp(&format!("get {IN}/big.bin back.bin\n")).well();
    assert!(same(&portal.file("big.bin"), &portal.file("back.bin")));
}

#[test]
fn paramikos_prefetch_of_everything_at_once_is_served() {
    let portal = Setup::new().without_scanner().set("hotfolder", "root", "\"\"").start("prefetch");
    big_file(&portal, "big.bin", 256 << 20);
    portal.sftp(&format!("put big.bin {IN}/big.bin\n")).well();
    portal.paramiko("portal().get(IN + '/big.bin', 'back.bin')").well();
    assert!(same(&portal.file("big.bin"), &portal.file("back.bin")));
}
