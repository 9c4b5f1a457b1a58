//! Random operations of a customer against a small model: the tree is what the model says, the hotfolder holds nothing but
//! what was accepted, and everything that is still there.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::support::eventually;
use crate::support::instance::Setup;

fn played(seed: u32) {
    let portal = Setup::new()
        .set("hotfolder", "delivery_delay", "\"0s\"")
        .set("portal", "temporary_names", "[\"*.part\"]")
        .start(&format!("model{seed}"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/siege/model.py");
    let said = portal
        .paramiko(&format!("exec(open({script:?}).read()); play({seed}, 160)\nos._exit(0)"))
        .well();
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let hashes = |value: &serde_json::Value| -> BTreeSet<String> {
        let all = value.as_object().unwrap().values();
        let flat = all.flat_map(|v| v.as_array().cloned().unwrap_or_else(|| vec![v.clone()]));
        flat.map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    let (accepted, present) = (hashes(&told["accepted"]), hashes(&told["present"]));
    eventually("every delivery ends", || {
        ["pending", "placing"].iter().all(|state| {
            portal.cli(&["delivery", "list", "--state", state]) == serde_json::json!([])
        })
    });
    let mut delivered = BTreeSet::new();
    for path in portal.hotfolder_files() {
        let hash = hex::encode(Sha256::digest(std::fs::read(&path).unwrap()));
        assert!(accepted.contains(&hash), "{} was never sent as a whole", path.display());
        assert!(delivered.insert(hash), "{} came twice", path.display());
    }
    let missing: Vec<_> = present.difference(&delivered).collect();
    assert!(missing.is_empty(), "accepted and not delivered: {missing:?}");
    let sound = portal.try_cli(&["fsck", "--deep"]);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stdout));
}

#[test]
fn random_operations_leave_what_a_model_says() {
    played(1);
}

#[test]
fn other_random_operations_leave_what_a_model_says() {
    // Printed when it fails, so that it can be played again.
    let seed = u32::try_from(crate::support::random() % 1_000_000).unwrap();
    println!("seed {seed}");
    played(seed);
}
