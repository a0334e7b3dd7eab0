//! jail-cgroup
