//! Numbers for Prometheus: their names, and where they are counted. Gauges are set when someone asks (`admin`).

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::domain::event::EventKind;

/// Facts that happened, by `kind`: the words of the events table. Verdicts, failed logins and bans are among them.
const EVENTS: &str = "ptportal_events_total";
/// Bytes of content, by `protocol` and `direction` (`in`, `out`).
const BYTES: &str = "ptportal_bytes_total";
/// Seconds that clamd took for a whole file.
const SCAN: &str = "ptportal_scan_seconds";
/// Seconds from the end of an upload to the answer to its client.
const ANSWER: &str = "ptportal_close_to_answer_seconds";

/// Bugs that ended a task. Anything above 0 is worth a report.
const PANICS: &str = "ptportal_panics_total";

/// Seconds; 12 is the default of `scan.answer_within`.
const BUCKETS: [f64; 13] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 12.0, 30.0, 120.0, 600.0];

/// Begins to count; before it (in commands) nothing is counted.
///
/// # Errors
/// When it was called before in this process.
pub fn start() -> Result<PrometheusHandle, BuildError> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?;
    let handle = builder.install_recorder()?;
    metrics::describe_counter!(EVENTS, "What happened, by kind of event");
    metrics::describe_counter!(BYTES, "Content received and sent");
    metrics::describe_counter!(PANICS, "Bugs that ended one task each");
    metrics::counter!(PANICS).absolute(0);
    metrics::describe_histogram!(SCAN, "Time of clamd for a whole file");
    metrics::describe_histogram!(ANSWER, "Time from the end of an upload to its answer");
    metrics::gauge!("ptportal_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

pub fn happened(kind: EventKind) {
    metrics::counter!(EVENTS, "kind" => kind.as_str()).increment(1);
}

pub fn panicked() {
    metrics::counter!(PANICS).increment(1);
}

/// A counter of received bytes, to be kept while a file comes.
pub fn received(protocol: &'static str) -> metrics::Counter {
    metrics::counter!(BYTES, "direction" => "in", "protocol" => protocol)
}

/// A counter of sent bytes, to be kept while a file goes.
pub fn sent(protocol: &'static str) -> metrics::Counter {
    metrics::counter!(BYTES, "direction" => "out", "protocol" => protocol)
}

pub fn scanned(took: std::time::Duration) {
    metrics::histogram!(SCAN).record(took.as_secs_f64());
}

pub fn answered(took: std::time::Duration) {
    metrics::histogram!(ANSWER).record(took.as_secs_f64());
}
