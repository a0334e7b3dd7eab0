//! System tests: fs.
