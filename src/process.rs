//! ADAPTER programs of the print shop: run without a shell, with an environment of their own and bounded output, and
//! ended together with everything that they started.

use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// What is kept of the output: its beginning and its end.
const HEAD: usize = 16 * 1024;
const TAIL: usize = 48 * 1024;
/// What is still in the pipes once everything has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Processes that fork while they are being killed are looked for again, this often.
const ROUNDS: usize = 50;

/// A program, and what it is given.
#[derive(Debug)]
pub struct Program {
    pub path: PathBuf,
    /// The working folder.
    pub dir: PathBuf,
    /// Nothing else stands in its environment.
    pub environment: Vec<(String, String)>,
    /// Standard input.
    pub input: Vec<u8>,
    pub limit: Duration,
    /// An entry of the environment (`NAME=value`) that no other process has: by it, descendants are found.
    pub mark: String,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Exited(i32),
    Signalled(i32),
    TimedOut,
    /// The caller wanted it to end.
    Cut,
    NotStarted(String),
}

/// What became of a program.
#[derive(Debug)]
pub struct Ended {
    pub status: Status,
    /// Standard output and standard error, as they came.
    pub output: String,
    pub took: Duration,
}

/// Runs a program to its end, or until `cut`. Not cancel-safe: dropped, it kills the program but not what that started.
pub async fn run(program: Program, cut: impl Future<Output = ()>) -> Ended {
    let started = Instant::now();
    let output = Mutex::new(Output::default());
    let mut command = Command::new(&program.path);
    command
        .env_clear()
        .envs(program.environment)
        .current_dir(&program.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let status = Status::NotStarted(reason(&error, &program.path));
            return Ended { status, output: String::new(), took: started.elapsed() };
        }
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let (mut stdin, stdout, stderr) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut pipe) = stdin.take() {
            // A program that reads nothing may close it.
            pipe.write_all(&program.input).await.ok();
        }
    };
    let talk = async { tokio::join!(feed, drain(stdout, &output), drain(stderr, &output)) };
    tokio::pin!(talk);
    let mut is_talking = true;
    let waiting = tokio::time::timeout(program.limit, async {
        loop {
            tokio::select! {
                status = child.wait() => break status,
                _ = &mut talk, if is_talking => is_talking = false,
            }
        }
    });
    let waited = tokio::select! {
        waited = waiting => waited.map_err(|_elapsed| Status::TimedOut),
        () = cut => Err(Status::Cut),
    };
    end_descendants(group, &program.mark).await;
    if is_talking {
        // Whatever still holds a pipe has been killed.
        tokio::time::timeout(LAST_WORDS, talk).await.ok();
    }
    let status = match waited {
        Ok(Ok(status)) => status_of(status),
        Ok(Err(error)) => Status::NotStarted(error.to_string()),
        Err(status) => {
            // Reaps it; it has been killed with its group.
            tokio::time::timeout(LAST_WORDS, child.wait()).await.ok();
            status
        }
    };
    let output = std::mem::take(&mut *output.lock().unwrap_or_else(PoisonError::into_inner)).text();
    Ended { status, output, took: started.elapsed() }
}

fn reason(error: &io::Error, path: &Path) -> String {
    match error.raw_os_error() {
        // ENOEXEC: no interpreter line. ENOENT of a file that is there: its interpreter is missing.
        Some(8) => "is neither a program nor a script whose first line names its interpreter (#!)"
            .to_owned(),
        Some(2) if path.exists() => "its interpreter (first line, #!) is not installed".to_owned(),
        _ => error.to_string(),
    }
}

fn status_of(status: ExitStatus) -> Status {
    match (status.code(), status.signal()) {
        (Some(code), _) => Status::Exited(code),
        (None, Some(signal)) => Status::Signalled(signal),
        (None, None) => Status::Signalled(0),
    }
}

/// Kills the process group, and whoever left it but carries the mark in its environment.
async fn end_descendants(group: Option<Pid>, mark: &str) {
    for _ in 0..ROUNDS {
        if let Some(group) = group {
            // Gone already is what is wanted.
            rustix::process::kill_process_group(group, Signal::KILL).ok();
        }
        let mark = mark.to_owned();
        let found = tokio::task::spawn_blocking(move || kill_marked(&mark)).await.unwrap_or(0);
        if found == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tracing::warn!("what a hook started cannot be ended");
}

/// Processes that have ended but were not waited for have no environment any more.
fn kill_marked(mark: &str) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let own = std::process::id().to_string();
    let mut found = 0usize;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.parse::<i32>().ok().and_then(Pid::from_raw).filter(|_| name != own);
        let Some(pid) = pid else { continue };
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|part| part == mark.as_bytes()) {
            rustix::process::kill_process(pid, Signal::KILL).ok();
            found = found.saturating_add(1);
        }
    }
    found
}

async fn drain(pipe: Option<impl AsyncRead + Unpin>, output: &Mutex<Output>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0u8; 16 * 1024];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                let piece = buffer.get(..n).unwrap_or_default();
                output.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
            }
        }
    }
}

/// Beginning and end of an output of any length.
#[derive(Default)]
struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    skipped: usize,
}

impl Output {
    fn push(&mut self, piece: &[u8]) {
        let room = HEAD.saturating_sub(self.head.len()).min(piece.len());
        let (first, rest) = piece.split_at_checked(room).unwrap_or((piece, &[]));
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..over);
        self.skipped = self.skipped.saturating_add(over);
    }

    /// As text; NUL, which PostgreSQL does not store, and what is not UTF-8 are replaced.
    fn text(self) -> String {
        let mut bytes = self.head;
        if self.skipped > 0 {
            bytes.extend(format!("\n[… {} bytes left out …]\n", self.skipped).into_bytes());
        }
        bytes.extend(self.tail);
        String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_beginning_and_end_are_kept() {
        let mut output = Output::default();
        output.push(b"first ");
        for _ in 0..1000 {
            output.push(&[b'x'; 10_000]);
        }
        output.push(b" last");
        let text = output.text();
        assert!(text.starts_with("first xxx") && text.ends_with("xxx last"));
        assert!(text.contains("bytes left out") && text.len() < HEAD + TAIL + 100);
    }
}
