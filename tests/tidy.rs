//! Rules of this repository, as tests: what the documents state of its structure, its sources hold.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/facade.rs"]
mod facade;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/minimum_rust.rs"]
mod minimum_rust;
#[path = "tidy/repository.rs"]
mod repository;
#[path = "tidy/signatures.rs"]
mod signatures;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/system_calls.rs"]
mod system_calls;
#[path = "tidy/twins.rs"]
mod twins;
