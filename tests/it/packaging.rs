//! What is shipped beside the program: the unit and its sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use crate::support::eventually;
use crate::support::instance::{BINARY, IN, PASSWORD, Setup};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/ptportal.service");

#[test]
fn the_unit_is_a_tight_sandbox() {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", "--threshold=25", UNIT]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "more exposed than 2.5: {said}");
    assert!(said.contains("Overall exposure level"), "{said}");
}

/// System calls by the name of their group, groups in groups resolved.
fn groups() -> BTreeMap<String, BTreeSet<String>> {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(["syscall-filter", "--no-pager"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut group = String::new();
    for line in text.lines() {
        let word = line.trim();
        if line.starts_with('@') {
            word.clone_into(&mut group);
        } else if line.starts_with("    ") && !word.starts_with('#') {
            found.entry(group.clone()).or_default().insert(word.to_owned());
        }
    }
    while let Some((group, inner)) = found.iter().find_map(|(group, calls)| {
        calls.iter().find(|call| call.starts_with('@')).map(|inner| (group.clone(), inner.clone()))
    }) {
        let calls = found.get(&inner).cloned().unwrap_or_default();
        let outer = found.get_mut(&group).unwrap();
        outer.remove(&inner);
        outer.extend(calls);
    }
    found
}

/// What the unit's `SystemCallFilter=` lines leave.
fn allowed() -> BTreeSet<String> {
    let unit = std::fs::read_to_string(UNIT).unwrap();
    let groups = groups();
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (is_denied, names) =
            line.strip_prefix('~').map_or((false, line), |names| (true, names));
        for name in names.split_whitespace() {
            let call = BTreeSet::from([name.to_owned()]);
            let of_group = || groups.get(name).unwrap_or_else(|| panic!("no group {name}"));
            let calls = if name.starts_with('@') { of_group() } else { &call };
            if is_denied {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls.iter().cloned());
            }
        }
    }
    allowed
}

#[test]
fn the_unit_allows_every_system_call_of_a_whole_day() {
    let mut portal = Setup::new().start("syscalls");
    portal.stop();
    portal.set_password(PASSWORD);
    crate::hooks::hook(
        &portal,
        "upload.delivered",
        "10-look",
        "#!/bin/sh\ncat > \"$PTPORTAL_HOOKS_DIR/seen\"\n",
    );
    let calls = portal.file("calls");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-c", "-U", "name", "-o"]).arg(&calls).arg(BINARY);
    command.arg("--config").arg(portal.file("ptportal.toml")).arg("serve");
    command.current_dir(portal.path()).stdin(Stdio::null()).stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let port = portal.port;
    eventually("it serves", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    std::fs::write(portal.file("a.pdf"), b"%PDF a day").unwrap();
    portal
        .sftp(&format!("put a.pdf {IN}/a.pdf\nrename {IN}/a.pdf {IN}/b.pdf\nget {IN}/b.pdf back\n"))
        .well();
    portal.curl_ftps(&format!("{IN}/c.pdf"), &["-T", "a.pdf"]).well();
    portal.curl_ftps(&format!("{IN}/c.pdf"), &["-o", "again"]).well();
    portal.until_delivered("c.pdf");
    portal.page("/", &[]).is(200);
    portal.cli(&["account", "link", "acme"]);
    let seen = portal.file("hooks/seen");
    eventually("the hook runs", || seen.exists());
    let pid = server.id().to_string();
    // strace hands it on and ends with the server.
    let mut pgrep = Command::new("pgrep");
    let children = pgrep.args(["-P", &pid]).output().unwrap();
    let child = String::from_utf8_lossy(&children.stdout).trim().to_owned();
    assert!(Command::new("kill").args(["-TERM", &child]).status().unwrap().success());
    server.wait().unwrap();
    let made = std::fs::read_to_string(&calls).unwrap();
    let made: BTreeSet<&str> = made
        .lines()
        .map(str::trim)
        .filter(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    assert!(made.contains("openat") && made.len() > 50, "{made:?}");
    let allowed = allowed();
    assert!(allowed.contains("setpriority"), "which only big copies make");
    let refused: Vec<_> = made.iter().filter(|call| !allowed.contains(**call)).collect();
    // The first and last line; SQLite's fchown as root, which the service is not; and its own wish for more descriptors,
    // which may fail where LimitNOFILE= gives them.
    let passed = ["syscall", "total", "fchown", "setrlimit"];
    assert!(refused.iter().all(|call| passed.contains(call)), "{refused:?}");
}

/// A Debian system in a folder, from the archive that this machine uses.
fn bare_root(dir: &std::path::Path) {
    let release = std::fs::read_to_string("/etc/os-release").unwrap();
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap();
    let format = "$(REPO_URI) $(RELEASE)";
    let mut command = Command::new("apt-get");
    let listed = command.args(["indextargets", "--format", format]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut places = listed.lines().filter_map(|line| line.split_once(' '));
    let is_main = |(uri, of): &(&str, &str)| *of == suite && uri.ends_with("/debian/");
    let (mirror, _) = places.find(is_main).expect("this machine installs from Debian's archive");
    let mut command = Command::new("debootstrap");
    command.args([
        "--variant=minbase",
        "--include=init-system-helpers,adduser,ca-certificates",
        suite,
    ]);
    let made = command.arg(dir).arg(mirror).output().unwrap();
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(made.status.success(), "{said}\n{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn the_debian_package_installs_runs_and_goes_on_a_bare_system() {
    let dir = crate::support::TempDir::new("deb");
    let (root, built) = (dir.path().join("root"), dir.path().join("built"));
    std::thread::scope(|scope| {
        scope.spawn(|| bare_root(&root));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/package");
        let packed = Command::new(script).arg("dev").arg(&built).output().unwrap();
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    });
    let package = std::fs::read_dir(&built).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(&package, root.join("ptportal.deb")).unwrap();
    let inside = |line: &str| {
        // With a /proc that goes with the command.
        let enter = "mount -t proc proc \"$0/proc\" && exec chroot \"$0\" sh -c \"$1\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", enter]).arg(&root).arg(line);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), text)
    };
    let well = |line: &str| {
        let (is_good, text) = inside(line);
        assert!(is_good, "{line}: {text}");
        text
    };
    let installed = well("dpkg -i /ptportal.deb");
    assert!(installed.contains("systemctl enable --now ptportal"), "{installed}");
    well("test ! -e /etc/systemd/system/multi-user.target.wants/ptportal.service");
    assert!(well("ptportal --version").starts_with("ptportal "));
    let owners = well(
        "stat -c '%U:%G %a %n' /etc/ptportal /etc/ptportal/ptportal.toml /etc/ptportal/certs /var/lib/ptportal",
    );
    for line in [
        "root:ptportal 750 /etc/ptportal\n",
        "root:ptportal 640 /etc/ptportal/ptportal.toml\n",
        "ptportal:ptportal 700 /etc/ptportal/certs\n",
        "ptportal:ptportal 700 /var/lib/ptportal\n",
    ] {
        assert!(owners.contains(line), "{owners}");
    }
    well("test -e /lib/systemd/system/ptportal.service -a -e /etc/logrotate.d/ptportal");
    well("test -x /usr/share/doc/ptportal/examples/hooks/upload.delivered/10-pdf-quick-look");
    // As the service's user, with the configuration as it is shipped; only clamd is not there yet.
    let as_service = "setpriv --reuid=ptportal --regid=ptportal --clear-groups";
    well("mkdir -p /srv/hotfolder && chown ptportal /srv/hotfolder");
    let (_, checked) = inside(&format!("cd / && {as_service} ptportal check"));
    assert!(checked.contains("/etc/ptportal/ptportal.toml"), "{checked}");
    let failed: Vec<&str> = checked.lines().filter(|line| line.contains("failed")).collect();
    assert!(failed.iter().all(|line| line.starts_with("clamd")), "{checked}");
    well(&format!("cd / && {as_service} ptportal client add 1001 --name Muster"));
    // What an administrator changed outlives a newer package, and what customers sent outlives a purge.
    well("echo '# mine' >> /etc/ptportal/ptportal.toml && dpkg -i /ptportal.deb");
    well("grep -q '^# mine' /etc/ptportal/ptportal.toml");
    well("dpkg -r ptportal && test -e /etc/ptportal/ptportal.toml -a ! -e /usr/bin/ptportal");
    let purged = well("dpkg -P ptportal");
    assert!(purged.contains("/var/lib/ptportal and /etc/ptportal/certs are kept"), "{purged}");
    well("test -e /var/lib/ptportal/ptportal.db -a ! -e /etc/ptportal/ptportal.toml");
    well("getent passwd ptportal");
    // Data elsewhere: the keys tell that the service has run.
    well(
        "rm -rf /var/lib/ptportal && dpkg -i /ptportal.deb && touch /etc/ptportal/certs/ssh_host_ed25519_key",
    );
    well("dpkg -P ptportal && test -e /etc/ptportal/certs/ssh_host_ed25519_key");
    well("getent passwd ptportal");
    // Without anything in it, nothing stays.
    well("rm -rf /etc/ptportal/certs && dpkg -i /ptportal.deb && dpkg -P ptportal");
    let (_, left) =
        inside("ls -d /etc/ptportal /var/lib/ptportal /var/log/ptportal; getent passwd ptportal");
    assert!(!left.contains("ptportal:x:"), "{left}");
    assert_eq!(left.matches("No such file").count(), 3, "{left}");
}
