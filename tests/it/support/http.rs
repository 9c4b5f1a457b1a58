//! HTTP with curl: the API, and the pages as a program sees them.

use std::process::Command;

use serde_json::Value;

use super::instance::Instance;
use super::{TempDir, random};

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lower-case names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }
}

pub(crate) fn curl(arguments: &[&str]) -> Answer {
    let dir = TempDir::new(&format!("curl-{:x}", random()));
    let (head, body) = (dir.path().join("head"), dir.path().join("body"));
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "60"])
        .arg("-D")
        .arg(&head)
        .arg("-o")
        .arg(&body)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let head = String::from_utf8_lossy(&std::fs::read(head).unwrap()).into_owned();
    // Of several (100 Continue) the last.
    let head = head.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default().to_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default();
    let headers = lines.filter_map(|line| line.split_once(':'));
    Answer {
        status: status.parse().unwrap_or(0),
        headers: headers.map(|(k, v)| (k.to_lowercase(), v.trim().to_owned())).collect(),
        body: String::from_utf8_lossy(&std::fs::read(body).unwrap_or_default()).into_owned(),
    }
}

impl Instance {
    /// A token of the API; made once for each test.
    pub(crate) fn token(&self, name: &str) -> String {
        self.cli(&["token", "create", name])["token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn api(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let url = format!("http://127.0.0.1:{}/api/v1{path}", self.api_port);
        let bearer = format!("Authorization: Bearer {token}");
        let text = body.map(ToString::to_string).unwrap_or_default();
        let mut arguments = vec!["-X", method, "-H", &bearer];
        if body.is_some() {
            arguments.extend(["-H", "Content-Type: application/json", "--data-binary", &text]);
        }
        arguments.push(&url);
        curl(&arguments)
    }

    pub(crate) fn page(&self, path: &str, arguments: &[&str]) -> Answer {
        let url = format!("http://localhost:{}{path}", self.web_port);
        curl(&[arguments, &[url.as_str()]].concat())
    }
}
