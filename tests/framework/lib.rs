//! The small framework under the system tests.
