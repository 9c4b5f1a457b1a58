//! The product through its outer doors, with real parts: real clamd, OpenSSH, rclone, curl, paramiko, PostgreSQL.
//!
//! One binary for all modules, so that one link step and one build serve every test. Run by `make test`, which installs
//! and starts what is needed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod acme;
mod architecture;
mod batches;
mod browser;
mod clients;
mod clock;
mod commands;
mod configuration;
mod crash;
mod databases;
mod deadlocks;
mod delivery;
mod desk;
mod disks;
mod ftps;
mod ftps_attacks;
mod ftps_uploads;
mod hangup;
mod hooks;
mod http;
mod limits;
mod mails;
mod model;
mod networks;
mod orders;
mod outbox;
mod packaging;
mod portal;
mod power;
mod protocol;
mod proxies;
mod publish;
mod pull;
mod retention;
mod scanning;
mod servers;
mod shares;
mod siege;
mod soak;
mod ssh_attacks;
mod steps;
mod store;
mod store_portal;
mod store_workflow;
mod support;
mod tree;
mod upgrades;
mod upkeep;
mod uploads;
