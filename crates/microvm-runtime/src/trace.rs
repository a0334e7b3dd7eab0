//! Tracing spans of the verbs (the feature `tracing`).

use crate::error::Result;

/// Runs `verb` in a span `vm` with the fields `verb` and `vm_id`; logs the result at the end: `debug`
/// on success, `error` with the kind and the whole message on failure.
#[cfg(feature = "tracing")]
pub(crate) fn verb<T>(
    verb: &'static str,
    vm_id: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    // A tenant chooses the id, and a terminal may be at the other end.
    let vm_id = crate::text::escaped(vm_id, crate::text::QUOTED);
    let _span = tracing::info_span!("vm", verb, vm_id).entered();
    let done = work();
    match &done {
        Ok(_) => tracing::debug!("done"),
        Err(failure) => tracing::error!(kind = ?failure.kind(), "{}", &**failure),
    }
    done
}

/// Does the work.
#[cfg(not(feature = "tracing"))]
pub(crate) fn verb<T>(_: &'static str, _: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    work()
}

#[cfg(test)]
#[cfg(feature = "tracing")]
mod tests {
    use std::fmt::{Debug, Write as _};
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;
    use crate::error::{Error, ErrorKind};

    /// Records all spans and events as text.
    #[derive(Clone, Default)]
    struct Listener(Arc<Mutex<String>>);

    impl Visit for Listener {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0.lock().unwrap(), " {field}={value:?}").unwrap();
        }
    }

    impl Subscriber for Listener {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.0.lock().unwrap().push_str("span");
            span.record(&mut self.clone());
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            write!(self.0.lock().unwrap(), " {}", event.metadata().level()).unwrap();
            event.record(&mut self.clone());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {
            self.0.lock().unwrap().push('\n');
        }
    }

    #[test]
    fn verbs_are_spans() {
        let listener = Listener::default();
        tracing::subscriber::with_default(listener.clone(), || {
            assert_eq!(verb("prepare", "a/b", || Ok(7)).unwrap(), 7);
            let failed = || Err::<(), _>(Error::new(ErrorKind::Busy, "lock the jail"));
            verb("remove", "a\u{1b}/b", failed).unwrap_err();
        });
        assert_eq!(
            *listener.0.lock().unwrap(),
            "span verb=\"prepare\" vm_id=\"a/b\" DEBUG message=done\n\
             span verb=\"remove\" vm_id=\"a\\\\u{1b}/b\" ERROR message=failed to lock the jail kind=Busy\n"
        );
    }
}
