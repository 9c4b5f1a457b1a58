//! The rules of the product: no I/O, no async, no clock, no randomness. `now` and bytes are parameters.

pub mod account;
pub mod activation;
pub mod announcement;
pub mod base_url;
pub mod client_defaults;
pub mod content;
pub mod decision;
pub mod event;
pub mod hotname;
pub mod id;
pub mod listing;
pub mod mail;
pub mod order;
pub mod password;
pub mod path;
pub mod publish;
pub mod refusal;
pub mod time;
pub mod upload;
pub mod verdict;
