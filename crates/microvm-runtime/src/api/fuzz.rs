//! The parsers of the API's bytes, for `crate::fuzz`.

use super::http::{Incoming, MAX_BODY, MAX_REFUSAL};
use super::{InstanceInfo, InstanceState};
use crate::text::QUOTED;

/// A response is the same in one piece and in many, and small.
pub(crate) fn response(bytes: &[u8]) {
    let whole = Incoming::default().take(bytes);
    if let Ok(Some((status, body))) = &whole {
        let most = if (200..300).contains(status) { MAX_BODY } else { MAX_REFUSAL };
        assert!(
            body.len() <= most
                && bytes.windows(body.len().max(1)).any(|it| it == *body || body.is_empty())
        );
    }
    let length = 1 + usize::from(bytes.first().copied().unwrap_or_default() % 16);
    let mut incoming = Incoming::default();
    let mut last = Ok(None);
    for piece in bytes.chunks(length) {
        last = incoming.take(piece);
        if !matches!(last, Ok(None)) {
            break;
        }
    }
    match whole {
        Ok(whole) => assert_eq!(last.unwrap(), whole),
        // Of a line that has not ended nothing is refused yet.
        Err(_) => assert!(matches!(last, Err(_) | Ok(None)), "{last:?}"),
    }
}

/// No text of an instance is long or can act on a terminal.
pub(crate) fn instance(bytes: &[u8]) {
    let Ok(info) = serde_json::from_slice::<InstanceInfo>(bytes) else { return };
    let state = match info.state {
        InstanceState::Other(state) => state,
        _ => String::new(),
    };
    for text in [info.id, info.vmm_version, info.app_name, state] {
        assert!(text.len() <= QUOTED + "…".len());
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
