//! The imitated release, and that release's form of failure.

use jail_cmd::{Feature, JailerVersion};

use crate::failure::Failure;

const RELEASE_ENV: &str = "MICROVM_STAND_IN_RELEASE";

/// The release asked for in the environment, else the newest known.
pub(crate) fn acted() -> JailerVersion {
    std::env::var(RELEASE_ENV)
        .ok()
        .and_then(|release| release.parse().ok())
        .unwrap_or(JailerVersion::NEWEST)
}

/// Prints the message. From 1.13.0 on `main` adds the second line and exits 1; an older release panics, unless it was
/// the grammar that refused.
pub(crate) fn report(release: JailerVersion, failure: &Failure) {
    if release.supports(Feature::PlainErrors) || matches!(failure, Failure::ArgumentParsing(_)) {
        eprintln!("{failure}");
        return;
    }
    eprintln!(
        "\nthread 'main' ({}) panicked at src/jailer/src/main.rs:379:27:\nJailer error: {failure}\nnote: run with \
         `RUST_BACKTRACE=1` environment variable to display a backtrace",
        std::process::id()
    );
    std::process::abort();
}
