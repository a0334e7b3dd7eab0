//! jail-cmd
