//! The kernel's keyed files: `key value` a line, and `name key=value key=value` a line.

/// The number that `key` has in a flat keyed text, such as `cpu.stat`.
pub(crate) fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// The number that `key` has in the fields of a nested keyed line, such as one of `io.stat`.
pub(crate) fn field<T: std::str::FromStr>(line: &str, key: &str) -> Option<T> {
    line.split_ascii_whitespace().find_map(|field| {
        let (name, value) = field.split_once('=')?;
        (name == key).then(|| value.parse().ok())?
    })
}

/// The numbers of a device, `8:16`.
pub(crate) fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_found_whole() {
        let text = "oom 3\noom_kill 1\nempty\nmax x\n";
        assert_eq!(number(text, "oom"), Some(3));
        assert_eq!(number(text, "oom_kill"), Some(1));
        assert_eq!(number(text, "empty"), None);
        assert_eq!(number(text, "max"), None);
        assert_eq!(field("8:0 rbytes=1 wbytes=22", "wbytes"), Some(22_u64));
        assert_eq!(field::<u64>("8:0 rbytes=1", "bytes"), None);
        assert_eq!(device("254:16"), Some((254, 16)));
        assert_eq!(device("254"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", key in "[a-z]{0,3}") {
            let _ = number(&text, &key);
            let _ = field::<f32>(&text, &key);
            let _ = device(&text);
        }
    }
}
