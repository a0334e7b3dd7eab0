//! System tests: cgroup.
