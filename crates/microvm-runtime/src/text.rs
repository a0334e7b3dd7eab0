//! Escaping and cutting of foreign text (from a VM, `/proc` or a caller) before a person reads the text.

use std::fmt::Write as _;

/// Bytes of a quoted text that are shown.
pub(crate) const QUOTED: usize = 256;

/// Returns `bytes` in double quotes, escaped, and cut to [`QUOTED`] bytes.
pub(crate) fn quoted(bytes: impl AsRef<[u8]>) -> String {
    format!("\"{}\"", cut(bytes.as_ref(), QUOTED, |c| matches!(c, '"' | '\\')))
}

/// Returns `bytes` as one harmless line of at most `max` bytes, with `…` at the end of a cut line.
///
/// Control characters (also DEL and C1, so every terminal escape), line separators, marks that change the direction of
/// text and invisible characters are written as escapes; bytes that are not UTF-8 as `\xNN`.
pub(crate) fn escaped(bytes: impl AsRef<[u8]>, max: usize) -> String {
    cut(bytes.as_ref(), max, |_| false)
}

fn cut(bytes: &[u8], max: usize, also: impl Fn(char) -> bool) -> String {
    let mut text = String::new();
    let mut piece = String::new();
    // More can never be shown: each byte of the source takes a byte at least.
    let (head, beyond) = bytes.split_at(max.min(bytes.len()));
    let beyond = !beyond.is_empty();
    let mut chunks = head.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        for c in chunk.valid().chars() {
            piece.clear();
            match c {
                '\\' | '"' if also(c) => piece.extend(['\\', c]),
                '\0' => piece.push_str("\\0"),
                '\n' => piece.push_str("\\n"),
                '\r' => piece.push_str("\\r"),
                '\t' => piece.push_str("\\t"),
                c if is_harmful(c) => {
                    let _ = write!(piece, "\\u{{{:x}}}", u32::from(c));
                }
                c => piece.push(c),
            }
            if text.len() + piece.len() > max {
                text.push('…');
                return text;
            }
            text.push_str(&piece);
        }
        // The last character may have been cut in two by the limit, not by the writer.
        if beyond && chunks.peek().is_none() && chunk.invalid().len() < 4 {
            break;
        }
        for byte in chunk.invalid() {
            if text.len() + 4 > max {
                text.push('…');
                return text;
            }
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if beyond {
        text.push('…');
    }
    text
}

/// Returns true if the character can mislead a terminal or a reader.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terminal_escapes_are_text() {
        let text = "a\u{1b}[31mred\u{7f}\u{9b}2J\u{202e}txt\u{2066}\u{200b}\r\nend\tÄ";
        assert_eq!(
            escaped(text, 1000),
            "a\\u{1b}[31mred\\u{7f}\\u{9b}2J\\u{202e}txt\\u{2066}\\u{200b}\\r\\nend\\tÄ"
        );
        assert_eq!(escaped(b"\xff\xfe name", 100), "\\xff\\xfe name");
        assert_eq!(quoted("say \"x\\y\""), r#""say \"x\\y\"""#);
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(escaped("abcdef", 3), "abc…");
        assert_eq!(escaped("abc", 3), "abc");
        assert_eq!(escaped("aé", 2), "a…", "never within a character");
        assert_eq!(escaped("\u{1b}\u{1b}", 8), "\\u{1b}…", "never within an escape");
        assert_eq!(quoted("x".repeat(1 << 20)).len(), QUOTED + "\"\"…".len());
    }

    proptest! {
        #[test]
        fn any_bytes_become_harmless(bytes in prop::collection::vec(any::<u8>(), 0..600), max in 0_usize..400) {
            let text = escaped(&bytes, max);
            prop_assert!(text.len() <= max + "…".len());
            prop_assert!(!text.chars().any(is_harmful), "{text:?}");
            prop_assert_eq!(escaped(&text, text.len()), text.clone(), "escaped once");
        }
    }
}
