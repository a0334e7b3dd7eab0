// The README's example is compiled with the others.
#![doc = include_str!("../../../README.md")]
