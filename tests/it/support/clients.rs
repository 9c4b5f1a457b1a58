//! Real clients: OpenSSH's sftp, curl, rclone, and paramiko for what those never do.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::instance::{Instance, PASSWORD, USER};

const NO_QUESTIONS: [&str; 6] = [
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
            folder = super::instance::IN,
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

    pub(crate) fn rclone(&self, arguments: &[&str]) -> Said {
        let remote = format!(
            "[portal]\ntype = sftp\nhost = 127.0.0.1\nport = {}\nuser = {USER}\nkey_file = {}\n\
             shell_type = none\nmd5sum_command = none\nsha1sum_command = none\n",
            self.port,
            self.file("id").display(),
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
