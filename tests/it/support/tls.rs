//! testssl.sh at a port of an instance.

use std::process::Command;

use serde_json::Value;

use super::eventually;
use super::instance::Instance;

/// What a client of FTPS is shown, as openssl tells it.
pub(crate) fn presented(port: u16) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-starttls", "ftp", "-connect", &format!("127.0.0.1:{port}")]);
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Instance {
    /// Puts a certificate of a test authority in place, for scanners that look at the chain.
    fn trust(&self) {
        let script = "set -e\n\
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt \
              -days 365 -subj '/CN=Test authority'\n\
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout new.key -out new.csr -subj /CN=localhost\n\
            printf 'subjectAltName=DNS:localhost\\nextendedKeyUsage=serverAuth\\nbasicConstraints=CA:FALSE\\n\
            crlDistributionPoints=URI:http://localhost/none.crl\\n' > extensions\n\
            openssl x509 -req -in new.csr -CA ca.crt -CAkey ca.key -days 200 -extfile extensions -out new.crt\n\
            cat new.key > certs/server.key\n\
            cat new.crt > certs/server.crt\n";
        let made =
            Command::new("bash").args(["-c", script]).current_dir(self.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        eventually("it is taken", || self.log().contains("the certificate has changed"));
    }

    /// What testssl.sh finds that is worse than "low".
    #[track_caller]
    pub(crate) fn testssl(&self, options: &[&str], port: u16) -> Vec<Value> {
        self.trust();
        let scanned = Command::new("testssl")
            .args(options)
            .args(["--quiet", "--color", "0", "--warnings", "off"])
            .args(["--protocols", "--std", "--fs", "--server-defaults", "--vulnerable"])
            .args(["--add-ca", "ca.crt", "--severity", "MEDIUM", "--jsonfile", "found.json"])
            .arg(format!("localhost:{port}"))
            .current_dir(self.path())
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&scanned.stdout);
        assert!(
            out.contains("TLS 1.3") && out.contains("Heartbleed"),
            "testssl did not run: {out}"
        );
        let found = std::fs::read_to_string(self.file("found.json")).unwrap();
        let mut findings: Vec<Value> = serde_json::from_str(&found).unwrap();
        findings
            .retain(|f| ["MEDIUM", "HIGH", "CRITICAL"].contains(&f["severity"].as_str().unwrap()));
        findings
    }
}
