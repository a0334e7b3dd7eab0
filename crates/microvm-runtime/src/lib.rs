//! microvm-runtime
