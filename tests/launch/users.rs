//! Row 15 of the threat model: each VM has a uid of its own, leased until the removal.

use microvm_runtime::{ErrorKind, User};

use crate::host::Host;

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_15_leased_uids_are_exclusive() {
    let mut host = Host::new("uids");
    let user = User::Leased { first: 54_000, last: 54_001 };
    let plan = |host: &mut Host, id: &str| {
        let spec = host.hello(id).user(user);
        host.jailer().plan(&spec).unwrap().prepare(&Default::default())
    };
    let first = plan(&mut host, "one").unwrap();
    let second = plan(&mut host, "two").unwrap();
    let (one, two) = (first.report().uid, second.report().uid);
    assert_ne!(one, two);
    let full = plan(&mut host, "three").unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Busy, "{full}");
    assert!(full.to_string().contains("54000..=54001"), "{full}");
    drop((first, second));
    // A restart keeps its uid, a sweep leaves living leases alone, a teardown gives it back.
    assert_eq!(plan(&mut host, "one").unwrap().report().uid, one);
    assert!(host.jailer().sweep().unwrap().uids.is_empty());
    assert_eq!(host.jailer().remove("two").unwrap().uid, Some(two));
    assert_eq!(plan(&mut host, "three").unwrap().report().uid, two);
    host.assert_clean();
}
