//! Bytes as text, without loss: names and paths are bytes, messages and records are text.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Prints a path with each byte that is not printable UTF-8 as `\xNN`, and `\` as `\\`.
pub(crate) struct Escaped<'a>(pub(crate) &'a Path);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0.as_os_str().as_bytes(), f)
    }
}

/// The first bytes of something, escaped, for a message.
pub(crate) fn cut(bytes: &[u8]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = escape(&bytes[..bytes.len().min(200)], &mut text);
    text
}

fn escape(bytes: &[u8], to: &mut impl fmt::Write) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => to.write_str("\\\\")?,
                _ if is_printable(char) => to.write_char(char)?,
                _ => hex(char.encode_utf8(&mut [0; 4]).as_bytes(), to)?,
            }
        }
        hex(chunk.invalid(), to)?;
    }
    Ok(())
}

/// Recognises characters that a terminal shows unchanged: no control, and nothing that turns the direction of writing.
fn is_printable(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn hex(bytes: &[u8], to: &mut impl fmt::Write) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(to, "\\x{byte:02x}"))
}

/// The text of `bytes`, from which [`decode`] makes the same bytes again.
#[cfg(any(test, feature = "serde"))]
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    // Writing to a string cannot fail.
    let _ = escape(bytes, &mut text);
    text
}

/// The bytes of a text that [`encode`] made; `None` for a `\` that begins no escape.
#[cfg(any(test, feature = "serde"))]
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                tail
            }
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                tail
            }
            (b'\\', _) => return None,
            (byte, tail) => {
                bytes.push(byte);
                tail
            }
        };
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn terminal_escapes_are_text() {
        let path = Path::new(OsStr::from_bytes(b"/a b/\xc3\xa9\x1b[2J\n\\\xff"));
        assert_eq!(Escaped(path).to_string(), "/a b/\u{e9}\\x1b[2J\\x0a\\\\\\xff");
        assert_eq!(Escaped(Path::new("a\u{202e}b")).to_string(), "a\\xe2\\x80\\xaeb");
    }

    #[test]
    fn a_stray_backslash_is_refused() {
        for bad in ["\\", "\\x1", "\\xg0", "\\n", "a\\"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
