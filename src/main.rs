//! Arguments, clock, signals and exit code; everything else is in the library.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ptportal::domain::time::Timestamp;

/// At the end, for work on disk that is under way.
const LAST_THREADS: Duration = Duration::from_secs(5);

/// The only place that reads the wall clock.
#[expect(clippy::disallowed_methods, reason = "main.rs is where the wall clock is read")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(ptportal::cli::main(now));
            // A thread that hangs on a share whose server is gone keeps nobody waiting.
            runtime.shutdown_timeout(LAST_THREADS);
            code
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "there is no other way to say this")]
            {
                eprintln!("ptportal: the runtime cannot start: {error}");
            }
            ExitCode::FAILURE
        }
    }
}
