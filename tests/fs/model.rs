//! Random sequences of all verbs, crashes included, against a model of what must then be there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use jail_fs::{
    Artifact, ErrorKind, InodeId, Owner, StagedTree, ensure_char_device, private, read_only,
    remove_tree, replace, scrub, sweep, write,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use testkit::{Canary, FsKind, Tmpfs};

use crate::support::{Scene, jail_user, list, long, name, on, plain};
use crate::sys::Child;

const IDS: [&str; 3] = ["a", "b", "c"];
const FILES: [&str; 4] = ["vmlinux", "disk", "vm.json", "null"];

/// One step of a launcher, or of what befalls it.
#[derive(Debug, Clone)]
enum Step {
    /// Stages these files and publishes; dies after so many calls of it, if told so.
    Publish {
        id: usize,
        files: Vec<usize>,
        dies_after: Option<usize>,
    },
    /// The same in the place of the jail of that name.
    Restart {
        id: usize,
        files: Vec<usize>,
    },
    /// Removes, by the right inode or by another jail's.
    Remove {
        id: usize,
        rightly: bool,
    },
    /// Removes while something is mounted in it.
    RemoveMounted {
        id: usize,
    },
    /// Replaces the record beside the root.
    Record {
        id: usize,
        text: u8,
    },
    /// Removes files by name.
    Scrub {
        id: usize,
        files: Vec<usize>,
    },
    /// The jail's user plants links to the host's files wherever there is room.
    Plant {
        id: usize,
    },
    /// Stages one more file into the jail, where a link may be.
    Stage {
        id: usize,
        file: usize,
    },
    Sweep,
}

/// A jail as it must be: its inode, its record, and for each file what is known of it.
#[derive(Debug, Clone, PartialEq)]
struct Modelled {
    id: InodeId,
    record: Option<String>,
    files: BTreeMap<String, Content>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Content {
    Staged(usize),
    Planted,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || 0..IDS.len();
    let files = || proptest::collection::vec(0..FILES.len(), 0..6);
    let step = prop_oneof![
        4 => (id(), files(), proptest::option::weighted(0.3, 0_usize..8))
            .prop_map(|(id, files, dies_after)| Step::Publish { id, files, dies_after }),
        2 => (id(), files()).prop_map(|(id, files)| Step::Restart { id, files }),
        2 => (id(), any::<bool>()).prop_map(|(id, rightly)| Step::Remove { id, rightly }),
        1 => id().prop_map(|id| Step::RemoveMounted { id }),
        1 => (id(), any::<u8>()).prop_map(|(id, text)| Step::Record { id, text }),
        1 => (id(), files()).prop_map(|(id, files)| Step::Scrub { id, files }),
        2 => id().prop_map(|id| Step::Plant { id }),
        2 => (id(), 0..FILES.len()).prop_map(|(id, file)| Step::Stage { id, file }),
        1 => Just(Step::Sweep),
    ];
    proptest::collection::vec(step, 1..16)
}

/// The launcher under test, and what must be in its base.
struct World<'a> {
    scene: &'a Scene,
    jails: BTreeMap<usize, Modelled>,
}

impl World<'_> {
    fn stage(&self, root: &jail_fs::Dir, file: usize) -> jail_fs::Result<()> {
        let open = |file: &str| Artifact::open(&self.scene.root().join("images").join(file));
        let at = name(FILES[file]);
        match file {
            0 => read_only(&open("vmlinux")?, root, &at, jail_user(), &plain()).map(drop),
            1 => private(&open("disk")?, root, &at, jail_user(), &plain()).map(drop),
            2 => write(root, &at, b"{}", jail_user(), 0o440).map(drop),
            _ => ensure_char_device(root, &at, 1, 3, jail_user(), 0o600).map(drop),
        }
    }

    /// Stages a tree; a file that is asked for twice is refused the second time.
    fn tree(
        &self,
        id: usize,
        files: &[usize],
        dies_after: usize,
    ) -> (StagedTree, BTreeMap<String, Content>) {
        let tree = StagedTree::create(&self.scene.base, &name(IDS[id])).unwrap();
        let root = tree.make_dir("root", jail_user(), 0o700).unwrap();
        let mut staged = BTreeMap::new();
        for file in files.iter().take(dies_after) {
            let again = staged.insert(FILES[*file].to_owned(), Content::Staged(*file)).is_some();
            match self.stage(&root, *file) {
                // The right node is accepted, any number of times.
                Ok(()) => assert!(!again || *file == 3),
                Err(error) => {
                    assert!(again && error.kind() == ErrorKind::AlreadyExists, "{error:?}")
                }
            }
        }
        (tree, staged)
    }

    fn step(&mut self, step: &Step) {
        let base = &self.scene.base;
        match step {
            Step::Publish { id, files, dies_after: Some(calls) } => {
                // Its process ends without a word, as by SIGKILL: no drop is run.
                let died = Child::spawn(Owner::ROOT, || {
                    std::mem::forget(self.tree(*id, files, *calls));
                    true
                });
                assert!(died.succeeded());
            }
            Step::Publish { id, files, dies_after: None } => {
                let (tree, files) = self.tree(*id, files, usize::MAX);
                match (tree.publish(), self.jails.get(id)) {
                    (Ok(published), None) => {
                        self.jails
                            .insert(*id, Modelled { id: published.dir.id(), record: None, files });
                    }
                    (Err(error), Some(_)) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
                    (answer, model) => panic!("{answer:?}, where the model has {model:?}"),
                }
            }
            Step::Restart { id, files } => {
                let old = self.jails.get(id).map(|jail| jail.id);
                let (tree, files) = self.tree(*id, files, usize::MAX);
                match (tree.exchange(old.unwrap_or(base.id())), old) {
                    (Ok(published), Some(_)) => {
                        published.replaced.unwrap().unwrap();
                        self.jails
                            .insert(*id, Modelled { id: published.dir.id(), record: None, files });
                    }
                    (Err(error), None) => assert_eq!(error.kind(), ErrorKind::NotFound),
                    (answer, model) => panic!("{answer:?}, where the model has {model:?}"),
                }
            }
            Step::Remove { id, rightly } => {
                let model = self.jails.get(id).map(|jail| jail.id);
                let expected = if *rightly { model } else { Some(base.id()) };
                let answer = remove_tree(base, &name(IDS[*id]), expected);
                match (answer, model) {
                    (Ok(removed), None) => assert_eq!(removed.entries, 0),
                    (Ok(removed), Some(_)) => {
                        assert!(*rightly);
                        let jail = self.jails.remove(id).unwrap();
                        let entries = 2 + jail.files.len() + usize::from(jail.record.is_some());
                        assert_eq!(removed.entries, u64::try_from(entries).unwrap());
                    }
                    (Err(error), _) => {
                        assert!(!*rightly && error.kind() == ErrorKind::Replaced, "{error:?}")
                    }
                }
            }
            Step::RemoveMounted { id } => {
                if self.jails.contains_key(id) {
                    let _mount =
                        Tmpfs::mount(&base.path().join(IDS[*id]).join("root"), "size=1m,mode=0755");
                    let error = remove_tree(base, &name(IDS[*id]), None).unwrap_err();
                    assert_eq!((error.kind(), error.mounts().len()), (ErrorKind::Mounted, 1));
                }
            }
            Step::Record { id, text } => {
                if let Some(jail) = self.jails.get_mut(id) {
                    let dir = base.child(&name(IDS[*id])).unwrap();
                    let text = format!("record {text}");
                    replace(
                        dir.dir(),
                        &name("jail.json"),
                        text.as_bytes(),
                        Owner::ROOT,
                        0o600,
                        &plain(),
                    )
                    .unwrap();
                    jail.record = Some(text);
                }
            }
            Step::Scrub { id, files } => {
                if let Some(jail) = self.jails.get_mut(id) {
                    let root =
                        jail_fs::open_dir(base.dir(), Path::new(IDS[*id]).join("root")).unwrap();
                    let names: Vec<_> = files.iter().map(|file| name(FILES[*file])).collect();
                    let there = names
                        .iter()
                        .filter(|it| jail.files.remove(it.as_str().unwrap()).is_some())
                        .count();
                    assert_eq!(scrub(&root, &names).unwrap().len(), there);
                }
            }
            Step::Plant { id } => {
                if let Some(jail) = self.jails.get_mut(id) {
                    let root = base.path().join(IDS[*id]).join("root");
                    let host = self.scene.host();
                    for (file, target) in [
                        ("vmlinux", "secret"),
                        ("disk", "new"),
                        ("vm.json", "dir"),
                        ("planted", ".."),
                    ] {
                        // Root on the jail's behalf: what counts is that they are there.
                        if symlink(host.join(target), root.join(file)).is_ok() {
                            jail.files.insert(file.to_owned(), Content::Planted);
                        }
                    }
                    if fs::hard_link(host.join("secret"), root.join("null")).is_ok() {
                        jail.files.insert("null".to_owned(), Content::Planted);
                    }
                }
            }
            Step::Stage { id, file } => {
                if let Some(mut jail) = self.jails.remove(id) {
                    let root =
                        jail_fs::open_dir(base.dir(), Path::new(IDS[*id]).join("root")).unwrap();
                    match (self.stage(&root, *file), jail.files.get(FILES[*file])) {
                        (Ok(()), None) => {
                            jail.files.insert(FILES[*file].to_owned(), Content::Staged(*file));
                        }
                        (Ok(()), Some(Content::Staged(3))) => {}
                        (Err(error), Some(_)) => {
                            assert!(matches!(
                                error.kind(),
                                ErrorKind::AlreadyExists | ErrorKind::Untrusted
                            ));
                        }
                        (answer, model) => panic!("{answer:?}, where the model has {model:?}"),
                    }
                    self.jails.insert(*id, jail);
                }
            }
            Step::Sweep => {
                let report = sweep(base).unwrap();
                assert!(report.kept.is_empty() && report.failed.is_empty(), "{report:?}");
                assert!(self.scene.entries().iter().all(|entry| !entry.starts_with('.')));
            }
        }
    }

    /// Everything that has a name is what the model says, owners and modes included.
    fn check(&self) {
        let base = self.scene.base.path();
        let named: Vec<_> = self
            .scene
            .entries()
            .into_iter()
            .filter(|entry| !entry.starts_with(".staging-"))
            .collect();
        let modelled: Vec<_> = self.jails.keys().map(|id| IDS[*id]).collect();
        assert_eq!(named, modelled);
        for (id, jail) in &self.jails {
            let dir = self.scene.base.child(&name(IDS[*id])).unwrap();
            assert_eq!(dir.id(), jail.id);
            let record = fs::read_to_string(dir.path().join("jail.json")).ok();
            assert_eq!(record, jail.record);
            let root = base.join(IDS[*id]).join("root");
            assert_eq!(list(&root), jail.files.keys().cloned().collect::<Vec<_>>());
            for (file, content) in &jail.files {
                if let Content::Staged(which) = content {
                    check_file(&root.join(file), *which);
                }
            }
        }
    }
}

fn check_file(path: &Path, which: usize) {
    let meta = fs::symlink_metadata(path).unwrap();
    let user = jail_user();
    let found = (meta.uid(), meta.gid(), meta.mode());
    let (expected, content): (_, &[u8]) = match which {
        0 => ((0, 0, 0o100_644), b"kernel"),
        1 => ((user.uid(), user.gid(), 0o100_600), b"disk"),
        2 => ((user.uid(), user.gid(), 0o100_440), b"{}"),
        _ => return assert_eq!((found, meta.rdev()), ((user.uid(), user.gid(), 0o020_600), 0x103)),
    };
    assert_eq!(found, expected);
    assert_eq!(fs::read(path).unwrap(), content);
}

fn play(scene: &Scene, canary: &Canary, steps: &[Step]) -> TestCaseResult {
    let mut world = World { scene, jails: BTreeMap::new() };
    for step in steps {
        world.step(step);
        world.check();
    }
    // The hard link to the host's secret goes with its jail, and with it the last difference outside.
    for id in IDS {
        remove_tree(&scene.base, &name(id), None).unwrap();
    }
    assert!(sweep(&scene.base).unwrap().failed.is_empty());
    assert_eq!(scene.entries(), [""; 0], "nothing is left behind");
    let differences = canary.differences();
    prop_assert!(differences.is_empty(), "the host changed: {differences:?}");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn any_sequence_of_verbs_leaves_what_the_model_says() {
    let test = "any_sequence_of_verbs_leaves_what_the_model_says";
    for (kind, share) in [(FsKind::Ext4, 2), (FsKind::Xfs, 1), (FsKind::Btrfs, 1)] {
        let cases = if long() { 10_000 } else { 500 } * share / 4;
        on(test, kind, |scene| {
            scene.source("vmlinux", "kernel");
            scene.source("disk", "disk");
            let canary = Canary::take(&scene.host());
            let config = Config { cases, failure_persistence: None, ..Config::default() };
            let played =
                TestRunner::new(config).run(&steps(), |steps| play(scene, &canary, &steps));
            played.unwrap_or_else(|failure| panic!("{kind}: {failure}"));
        });
    }
}
