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

/// Runs a client while the server stands still for moments at a time, as one whose disk does.
fn with_a_slow_disk<T>(portal: &Instance, client: impl FnOnce() -> T) -> T {
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
        let done = client();
        stop.store(true, std::sync::atomic::Ordering::Release);
        done
    })
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
    let get = |options: &[&str]| {
        portal.sftp_with(options, &format!("get {IN}/big.bin back.bin\n")).well();
        assert!(same(&portal.file("big.bin"), &portal.file("back.bin")), "{options:?}");
    };
    // 255 KiB reads (limits@openssh.com) of the stock client, and the default of older ones.
    get(&["-B", "261120"]);
    with_a_slow_disk(&portal, || get(&["-B", "32768"]));
}

#[test]
fn two_gib_up_on_a_slow_disk_with_a_scanner_that_stands_still() {
    let portal = Setup::new()
        .environment("PTPORTAL_TEST_REKEY_BYTES", "4194304")
        .set("scan", "answer_within", "\"2s\"")
        .start("slowdisk");
    // What is longer than clamd can scan is held at once, where nobody has noticed yet that it stands still.
    big_file(&portal, "big.bin", GIB2 - (1 << 20));
    portal.clamd.as_ref().unwrap().freeze();
    with_a_slow_disk(&portal, || portal.sftp(&format!("put big.bin {IN}/big.bin\n"))).well();
    let upload = portal.until_state("big.bin", "scanning");
    let id = upload["id"].as_str().unwrap();
    let vault = std::fs::read_dir(portal.file("data/vault")).unwrap();
    let sealed = vault.map(|shard| shard.unwrap().path().join(id)).find(|path| path.exists());
    assert!(same(&portal.file("big.bin"), &sealed.unwrap()));
}

#[test]
fn paramikos_prefetch_of_everything_at_once_is_served() {
    let portal = Setup::new().without_scanner().set("hotfolder", "root", "\"\"").start("prefetch");
    big_file(&portal, "big.bin", 256 << 20);
    portal.sftp(&format!("put big.bin {IN}/big.bin\n")).well();
    portal.paramiko("portal().get(IN + '/big.bin', 'back.bin')").well();
    assert!(same(&portal.file("big.bin"), &portal.file("back.bin")));
}
