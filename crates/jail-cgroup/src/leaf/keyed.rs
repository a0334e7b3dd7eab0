//! Parsers of the kernel's keyed files: `key value` lines, and lines of `name key=value key=value`.

use std::str::FromStr;

/// Splits a file into lines.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

/// Splits a line at spaces.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Parses the whole text, without white space around, as a value.
pub(crate) fn parse<T: FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

/// Returns the number of `key` in a flat keyed file, such as `cpu.stat`.
pub(crate) fn number(text: &[u8], key: &str) -> Option<u64> {
    lines(text).find_map(|line| {
        let value = line.strip_prefix(key.as_bytes())?.strip_prefix(b" ")?;
        parse(value)
    })
}

/// Returns the value of `key` in a nested keyed line, such as a line of `io.stat`.
pub(crate) fn field<T: FromStr>(line: &[u8], key: &str) -> Option<T> {
    words(line).find_map(|word| parse(word.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?))
}

/// Parses the numbers of a device, `8:16`.
pub(crate) fn device(text: &[u8]) -> Option<(u32, u32)> {
    let at = text.iter().position(|byte| *byte == b':')?;
    Some((parse(text.get(..at)?)?, parse(text.get(at + 1..)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_whole() {
        let text = b"oom 3\noom_kill 1\nempty\nmax x\n\xff 1\n";
        assert_eq!(number(text, "oom"), Some(3));
        assert_eq!(number(text, "oom_kill"), Some(1));
        assert_eq!(number(text, "empty"), None);
        assert_eq!(number(text, "max"), None);
        assert_eq!(field(b"8:0 rbytes=1 wbytes=22", "wbytes"), Some(22_u64));
        assert_eq!(field::<u64>(b"8:0 rbytes=1", "bytes"), None);
        assert_eq!(device(b"254:16"), Some((254, 16)));
        assert_eq!(device(b"254"), None);
    }
}
