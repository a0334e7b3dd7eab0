//! jail-fs
