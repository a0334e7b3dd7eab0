//! System tests: launch.
