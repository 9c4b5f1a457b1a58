//! Real clients: OpenSSH's sftp, curl, rclone, and paramiko for what those never do.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::instance::{IN, Instance, PASSWORD, USER};

pub(crate) const NO_QUESTIONS: [&str; 6] = [
    "-oStrictHostKeyChecking=no",
    "-oUserKnownHostsFile=/dev/null",
    "-oLogLevel=ERROR",
    "-oConnectTimeout=10",
    "-oServerAliveInterval=20",
    "-oIdentitiesOnly=yes",
];

/// What a client said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    #[track_caller]
    pub(crate) fn well(self) -> Self {
        assert!(self.ok, "client failed: {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn badly(self) -> Self {
        assert!(!self.ok, "client succeeded: {self:#?}");
        self
    }
}

impl Instance {
    /// Uploads this content under this name with `sftp`.
    pub(crate) fn put(&self, name: &str, content: &[u8]) -> Said {
        std::fs::write(self.file("a.bin"), content).unwrap();
        self.sftp(&format!("put a.bin {IN}/{name}\n"))
    }

    /// Runs `sftp -b` with the account's key.
    pub(crate) fn sftp(&self, batch: &str) -> Said {
        self.sftp_with(&[], batch)
    }

    pub(crate) fn sftp_with(&self, options: &[&str], batch: &str) -> Said {
        use std::io::Write;
        let mut command = Command::new("sftp");
        command.args(NO_QUESTIONS).arg("-i").arg(self.file("id")).args(options);
        command.args(["-P", &self.port.to_string(), "-b", "-", &format!("{USER}@127.0.0.1")]);
        command.current_dir(self.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Runs `sftp` with a password from `SSH_ASKPASS`.
    pub(crate) fn sftp_password(
        &self,
        user: &str,
        password: &str,
        options: &[&str],
        batch: &str,
    ) -> Said {
        use std::os::unix::fs::PermissionsExt;
        let script = self.file(&format!("askpass-{:x}", super::random()));
        std::fs::write(&script, format!("#!/bin/sh\nprintf '%s\\n' '{password}'\n")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(self.file("batch"), batch).unwrap();
        let mut command = Command::new("sftp");
        command.args([
            "-oBatchMode=no",
            "-oPubkeyAuthentication=no",
            "-oNumberOfPasswordPrompts=1",
        ]);
        command.args(NO_QUESTIONS).args(options);
        command.env("SSH_ASKPASS", &script).env("SSH_ASKPASS_REQUIRE", "force");
        command.args(["-P", &self.port.to_string(), "-b", "batch", &format!("{user}@127.0.0.1")]);
        command.current_dir(self.path()).stdin(Stdio::null()).output().unwrap().into()
    }

    pub(crate) fn ssh(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new("ssh");
        command.args(NO_QUESTIONS).arg("-i").arg(self.file("id"));
        command.args(["-p", &self.port.to_string(), "-oBatchMode=yes"]).args(arguments);
        command.current_dir(self.path()).stdin(Stdio::null()).output().unwrap().into()
    }

    /// Runs a Python script with paramiko; `portal()` in it opens an SFTP session.
    pub(crate) fn paramiko(&self, script: &str) -> Said {
        let head = format!(
            "import paramiko, sys, os, time, threading, hashlib\n\
             def transport():\n\
             \x20   t = paramiko.Transport(('127.0.0.1', {port}))\n\
             \x20   t.connect(username='{USER}', pkey=paramiko.Ed25519Key.from_private_key_file({key:?}))\n\
             \x20   return t\n\
             def portal():\n\
             \x20   return paramiko.SFTPClient.from_transport(transport())\n\
             IN = '{folder}'\n",
            port = self.port,
            key = self.file("id").to_str().unwrap(),
            folder = IN,
        );
        let name = self.file(&format!("script-{:x}.py", super::random()));
        std::fs::write(&name, format!("{head}{script}\n")).unwrap();
        let mut command = Command::new("/usr/bin/python3");
        command.arg(&name).current_dir(self.path()).stdin(Stdio::null()).output().unwrap().into()
    }

    pub(crate) fn curl(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--insecure", "--user", &format!("{USER}:{PASSWORD}")])
            .args(arguments);
        command.current_dir(self.path()).stdin(Stdio::null()).output().unwrap().into()
    }

    /// curl over FTPS; `path` begins at the root of the tree.
    pub(crate) fn curl_ftps(&self, path: &str, arguments: &[&str]) -> Said {
        let url = format!("ftp://127.0.0.1:{}{path}", self.ftps_port);
        let mut all = vec!["--ssl-reqd"];
        all.extend(arguments);
        all.push(&url);
        self.curl(&all)
    }

    /// lftp over FTPS; the commands end with its own exit status.
    pub(crate) fn lftp(&self, commands: &str) -> Said {
        self.lftp_to("127.0.0.1", 2, commands)
    }

    /// The same to another address of the server; it tries again and goes on by itself so many times.
    pub(crate) fn lftp_to(&self, host: &str, retries: u32, commands: &str) -> Said {
        let script = format!(
            "set net:max-retries {retries}\nset net:timeout 20\nset net:reconnect-interval-base 1\n\
             set net:reconnect-interval-multiplier 1\nset ftp:ssl-force true\nset ftp:ssl-protect-data true\n\
             set ssl:verify-certificate no\nset cmd:fail-exit true\n\
             open -u {USER},\"{PASSWORD}\" ftp://{host}:{}\n{commands}\n",
            self.ftps_port
        );
        let name = self.file(&format!("lftp-{:x}", super::random()));
        std::fs::write(&name, script).unwrap();
        let mut command = Command::new("lftp");
        command.arg("-f").arg(&name).env("HOME", self.path()).current_dir(self.path());
        command.stdin(Stdio::null()).output().unwrap().into()
    }

    /// Runs a Python script with ftplib: `portal()` logs in under TLS, `portal(reuse=True)` resumes the session on data
    /// connections, `raw()` is a socket to the control port.
    pub(crate) fn ftplib(&self, script: &str) -> Said {
        let head = format!(
            "PORT = {port}\nUSER = {USER:?}\nPASSWORD = {PASSWORD:?}\nIN = {folder:?}\n{}\n",
            include_str!("ftplib.py"),
            port = self.ftps_port,
            folder = IN,
        );
        let name = self.file(&format!("ftplib-{:x}.py", super::random()));
        std::fs::write(&name, format!("{head}\n{script}\n")).unwrap();
        let mut command = Command::new("/usr/bin/python3");
        command.arg(&name).current_dir(self.path()).stdin(Stdio::null()).output().unwrap().into()
    }

    pub(crate) fn rclone(&self, arguments: &[&str]) -> Said {
        let remote = format!(
            "[portal]\ntype = sftp\nhost = 127.0.0.1\nport = {}\nuser = {USER}\nkey_file = {}\n\
             shell_type = none\nmd5sum_command = none\nsha1sum_command = none\n\
             [ftps]\ntype = ftp\nhost = 127.0.0.1\nport = {}\nuser = {USER}\npass = {}\n\
             explicit_tls = true\nno_check_certificate = true\n",
            self.port,
            self.file("id").display(),
            self.ftps_port,
            obscured(),
        );
        std::fs::write(self.file("rclone.conf"), remote).unwrap();
        let mut command = Command::new("rclone");
        command.arg("--config").arg(self.file("rclone.conf")).args(arguments);
        command.current_dir(self.path()).stdin(Stdio::null()).output().unwrap().into()
    }
}

/// Whether two files hold the same bytes.
pub(crate) fn same(a: &Path, b: &Path) -> bool {
    Command::new("cmp").arg("-s").arg(a).arg(b).status().unwrap().success()
}

/// The password as rclone's configuration wants it.
fn obscured() -> String {
    static OBSCURED: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let obscure = || {
        let output = Command::new("rclone").args(["obscure", PASSWORD]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    OBSCURED.get_or_init(obscure).clone()
}
