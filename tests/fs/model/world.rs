//! Launchers, a base, and the expected content.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use jail_fs::{
    Access, Artifact, ErrorKind, InodeId, Lease, Owner, StagedTree, StagingDir, TrustedDir,
    block_device, ensure_char_device, open_dir, persistent, private, read_only, read_small,
    remove_tree, scrub, sweep, write,
};
use testkit::Tmpfs;

use super::Step;
use crate::support::{Scene, jail_user, list, name, plain};
use crate::sys::killed_before;

pub(super) const IDS: [&str; 3] = ["a", "b", "c"];

/// One file a verb.
pub(super) const FILES: [&str; 6] = ["vmlinux", "disk", "vm.json", "null", "data", "sdb"];
const NODE: usize = 3;
const PERSISTENT: usize = 4;

/// The expected state of a jail: its inode, its record, and for each file what is known of it.
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

/// The launcher under test, and the expected content of the base.
pub(super) struct World<'a> {
    scene: &'a Scene,
    device: &'a Path,
    jails: BTreeMap<usize, Modelled>,
    held: BTreeMap<usize, Lease>,
}

impl<'a> World<'a> {
    pub(super) fn new(scene: &'a Scene, device: &'a Path) -> Self {
        Self { scene, device, jails: BTreeMap::new(), held: BTreeMap::new() }
    }

    fn image(&self, file: &str) -> PathBuf {
        self.scene.root().join("images").join(file)
    }

    fn root(&self, id: usize) -> PathBuf {
        self.scene.base.path().join(IDS[id]).join("root")
    }

    fn names_of_the_disk(&self) -> u64 {
        fs::metadata(self.image("data")).unwrap().nlink()
    }

    fn stage<'p>(
        &self,
        place: impl Into<StagingDir<'p>>,
        dir: &jail_fs::Dir,
        file: usize,
    ) -> jail_fs::Result<()> {
        let place = place.into();
        let (at, user) = (name(FILES[file]), jail_user());
        let open = |file: &str| Artifact::open(&self.image(file));
        match file {
            0 => read_only(&open("vmlinux")?, place, &at, user, &plain()).map(drop),
            1 => private(&open("disk")?, place, &at, user, &plain()).map(drop),
            2 => write(place, &at, b"{}", user, 0o440).map(drop),
            NODE => ensure_char_device(dir, &at, 1, 3, user, 0o600).map(drop),
            PERSISTENT => persistent(&open("data")?, dir, &at, Some(user), &plain()).map(drop),
            _ => {
                let device = Artifact::open(self.device)?;
                block_device(&device, dir, &at, user, Access::ReadWrite).map(drop)
            }
        }
    }

    /// The expected answer of staging this file over that content.
    fn answer(&self, file: usize, there: Option<Content>) -> Option<ErrorKind> {
        match (file, there) {
            (NODE, Some(Content::Staged(NODE))) => None,
            (NODE, Some(_)) => Some(ErrorKind::Untrusted),
            (PERSISTENT, _) if self.names_of_the_disk() != 1 => Some(ErrorKind::Busy),
            (_, Some(_)) => Some(ErrorKind::AlreadyExists),
            (_, None) => None,
        }
    }

    /// Stages a tree, and returns the expected content.
    fn tree(&self, id: usize, files: &[usize]) -> (StagedTree, BTreeMap<String, Content>) {
        let tree = StagedTree::create(&self.scene.base, &name(IDS[id])).unwrap();
        let root = tree.make_dir("root", jail_user(), 0o700).unwrap();
        let mut staged = BTreeMap::new();
        for file in files {
            let expected = self.answer(*file, staged.get(FILES[*file]).copied());
            let answer = self.stage(&root, &root, *file);
            assert_eq!(answer.as_ref().err().map(jail_fs::Error::kind), expected, "{answer:?}");
            if expected.is_none() {
                staged.insert(FILES[*file].to_owned(), Content::Staged(*file));
            }
        }
        drop(root);
        (tree, staged)
    }

    pub(super) fn step(&mut self, step: &Step) {
        let base = &self.scene.base;
        match step {
            Step::Publish { id, files } => {
                let (tree, files) = self.tree(*id, files);
                match (tree.publish(), self.jails.get(id)) {
                    (Ok(published), None) => {
                        let made = Modelled { id: published.dir.id(), record: None, files };
                        self.jails.insert(*id, made);
                    }
                    (Err(error), Some(_)) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
                    (answer, model) => panic!("{answer:?}, where the model has {model:?}"),
                }
            }
            Step::Abandon { id, files } => drop(self.tree(*id, files)),
            Step::Restart { id, files } => {
                self.held.remove(id);
                let old = self.jails.get(id).map(|jail| jail.id);
                let (tree, files) = self.tree(*id, files);
                match (tree.exchange(old.unwrap_or(base.id())), old) {
                    (Ok(published), Some(_)) => {
                        published.replaced.unwrap().unwrap();
                        let made = Modelled { id: published.dir.id(), record: None, files };
                        self.jails.insert(*id, made);
                    }
                    (Err(error), None) => assert_eq!(error.kind(), ErrorKind::NotFound),
                    (answer, model) => panic!("{answer:?}, where the model has {model:?}"),
                }
            }
            Step::Remove { id, rightly } => {
                let model = self.jails.get(id).map(|jail| jail.id);
                let expected = if *rightly { model } else { Some(base.id()) };
                // A launcher that was killed over a record left the new one under another name.
                let dir = base.path().join(IDS[*id]);
                let mut extra = 0;
                if model.is_some() {
                    extra = list(&dir).iter().filter(|entry| entry.starts_with(".new-")).count();
                }
                match (remove_tree(base, &name(IDS[*id]), expected), model) {
                    (Ok(removed), None) => assert_eq!(removed.entries, 0),
                    (Ok(removed), Some(_)) => {
                        assert!(*rightly);
                        self.held.remove(id);
                        let jail = self.jails.remove(id).unwrap();
                        let entries =
                            2 + extra + jail.files.len() + usize::from(jail.record.is_some());
                        assert_eq!(removed.entries, u64::try_from(entries).unwrap());
                    }
                    (Err(error), _) => {
                        assert!(!*rightly && error.kind() == ErrorKind::Replaced, "{error:?}");
                    }
                }
            }
            Step::RemoveMounted { id } => {
                if let Some(jail) = self.jails.get(id) {
                    let (tree, _) = self.tree(*id, &[]);
                    let _mount = Tmpfs::mount(&self.root(*id), "size=1m,mode=0755");
                    let error = remove_tree(base, &name(IDS[*id]), None).unwrap_err();
                    assert_eq!((error.kind(), error.mounts().len()), (ErrorKind::Mounted, 1));
                    let error = tree.exchange(jail.id).unwrap_err();
                    assert_eq!((error.kind(), error.mounts().len()), (ErrorKind::Mounted, 1));
                }
            }
            Step::Record { id, text } => {
                if let Some(jail) = self.jails.get_mut(id) {
                    let dir = base.child(&name(IDS[*id])).unwrap();
                    let (text, record) = (format!("record {text}"), name("jail.json"));
                    let wrote = write(dir.dir(), &record, text.as_bytes(), Owner::ROOT, 0o600);
                    match &jail.record {
                        None => jail.record = wrote.map(|_| Some(text)).unwrap(),
                        Some(_) => {
                            assert_eq!(wrote.unwrap_err().kind(), ErrorKind::AlreadyExists);
                        }
                    }
                }
            }
            Step::Scrub { id, files } => {
                if let Some(jail) = self.jails.get_mut(id) {
                    let root = open_dir(base.dir(), Path::new(IDS[*id]).join("root")).unwrap();
                    let names: Vec<_> = files.iter().map(|file| name(FILES[*file])).collect();
                    let there = names
                        .iter()
                        .filter(|it| jail.files.remove(it.as_str().unwrap()).is_some())
                        .count();
                    assert_eq!(scrub(&root, &names).unwrap().len(), there);
                }
            }
            Step::Plant { id } => self.plant(*id),
            Step::Stage { id, file } => {
                let Some(jail) = self.jails.get(id) else { return };
                let there = jail.files.get(FILES[*file]).copied();
                let expected = self.answer(*file, there);
                let root = open_dir(base.dir(), Path::new(IDS[*id]).join("root")).unwrap();
                let answer = self.stage(&root, &root, *file);
                assert_eq!(answer.as_ref().err().map(jail_fs::Error::kind), expected, "{answer:?}");
                if expected.is_none()
                    && let Some(jail) = self.jails.get_mut(id)
                {
                    jail.files.insert(FILES[*file].to_owned(), Content::Staged(*file));
                }
            }
            Step::Read { id, file } => {
                let Some(jail) = self.jails.get(id) else { return };
                let path = Path::new(IDS[*id]).join("root").join(FILES[*file]);
                let answer = read_small(base.dir(), path, 10).map_err(|error| error.kind());
                let expected = match jail.files.get(FILES[*file]) {
                    Some(Content::Staged(1)) => Ok(b"disk".to_vec()),
                    Some(Content::Staged(2)) => Ok(b"{}".to_vec()),
                    // A link, a device, or a file that has another name.
                    Some(_) => Err(ErrorKind::Untrusted),
                    None => Err(ErrorKind::NotFound),
                };
                assert_eq!(answer, expected);
            }
            Step::Lease { id } => {
                if let Some(jail) = self.jails.get(id) {
                    let dir = base.child(&name(IDS[*id])).unwrap();
                    assert_eq!(dir.id(), jail.id);
                    match self.held.remove(id) {
                        Some(lease) => drop(lease),
                        None => {
                            self.held.insert(*id, Lease::try_acquire(&dir).unwrap());
                            let again = Lease::try_acquire(&dir).unwrap_err();
                            assert_eq!(again.kind(), ErrorKind::Busy);
                        }
                    }
                }
            }
            Step::Look => {
                base.verify_path().unwrap();
                assert_eq!(TrustedDir::open(base.path()).unwrap().id(), base.id());
                for (id, at) in IDS.iter().enumerate() {
                    let there = base.child(&name(at)).map(|dir| dir.id());
                    assert_eq!(there.ok(), self.jails.get(&id).map(|jail| jail.id));
                }
            }
            Step::Sweep => {
                let report = sweep(base).unwrap();
                assert!(report.kept.is_empty() && report.failed.is_empty(), "{report:?}");
                assert!(self.scene.entries().iter().all(|entry| !entry.starts_with('.')));
            }
            Step::Killed { step, call } => {
                // What a launcher held goes with it.
                self.held.clear();
                let _ = killed_before(*call, || {
                    self.step(step);
                    true
                });
                self.adopt(step);
            }
        }
    }

    fn plant(&mut self, id: usize) {
        let (root, host) = (self.root(id), self.scene.host());
        let Some(jail) = self.jails.get_mut(&id) else { return };
        for (file, target) in [
            ("vmlinux", "secret"),
            ("disk", "new"),
            ("vm.json", "dir"),
            ("data", "image"),
            ("sdb", "dir/file"),
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

    /// Takes over what a killed launcher left of this step: all of it or nothing, and of a list of files some.
    fn adopt(&mut self, step: &Step) {
        let base = &self.scene.base;
        let there = |id: &usize| base.child(&name(IDS[*id])).ok().map(|dir| dir.id());
        match step {
            Step::Publish { id, files } | Step::Restart { id, files } => {
                let restarts = matches!(step, Step::Restart { .. });
                match (there(id), self.jails.get(id).map(|jail| jail.id)) {
                    (now, was) if now == was => {}
                    (Some(now), was) if was.is_some() == restarts => {
                        // The disk was there for it or not; all else must be.
                        let disk = fs::symlink_metadata(self.root(*id).join("data")).is_ok();
                        let files = files
                            .iter()
                            .filter(|file| **file != PERSISTENT || disk)
                            .map(|file| (FILES[*file].to_owned(), Content::Staged(*file)))
                            .collect();
                        self.jails.insert(*id, Modelled { id: now, record: None, files });
                    }
                    (now, was) => panic!("{now:?}, where {was:?} was, after {step:?}"),
                }
            }
            Step::Remove { id, rightly } if there(id).is_none() => {
                assert!(*rightly || !self.jails.contains_key(id));
                self.jails.remove(id);
            }
            Step::Record { id, text } => {
                let record = fs::read_to_string(base.path().join(IDS[*id]).join("jail.json"));
                if let (Some(jail), Ok(record)) = (self.jails.get_mut(id), record)
                    && record == format!("record {text}")
                {
                    jail.record = Some(record);
                }
            }
            Step::Scrub { id, files } => {
                let root = self.root(*id);
                if let Some(jail) = self.jails.get_mut(id) {
                    let scrubbed: Vec<_> = files.iter().map(|file| FILES[*file]).collect();
                    jail.files.retain(|file, _| {
                        !scrubbed.contains(&file.as_str())
                            || fs::symlink_metadata(root.join(file)).is_ok()
                    });
                }
            }
            Step::Stage { id, file } => {
                let path = self.root(*id).join(FILES[*file]);
                let was = self.jails.get(id).and_then(|jail| jail.files.get(FILES[*file]));
                let mut now = fs::symlink_metadata(&path).is_ok();
                // A node is made by one call and given away by the next; it is the one thing that can be half done.
                let half = |meta: fs::Metadata| meta.rdev() != 0 && meta.uid() == 0;
                if was.is_none() && fs::symlink_metadata(&path).is_ok_and(half) {
                    fs::remove_file(&path).unwrap();
                    now = false;
                }
                if let Some(jail) = self.jails.get_mut(id).filter(|_| now) {
                    let staged = Content::Staged(*file);
                    jail.files.entry(FILES[*file].to_owned()).or_insert(staged);
                }
            }
            _ => {}
        }
    }

    /// Everything that has a name is what the model says, owners and modes included.
    pub(super) fn check(&self) {
        let base = self.scene.base.path();
        let (aside, named): (Vec<_>, Vec<_>) =
            self.scene.entries().into_iter().partition(|entry| entry.starts_with('.'));
        let modelled: Vec<_> = self.jails.keys().map(|id| IDS[*id]).collect();
        assert_eq!(named, modelled);
        let mut names_of_the_disk = 1;
        for (id, jail) in &self.jails {
            let dir = self.scene.base.child(&name(IDS[*id])).unwrap();
            assert_eq!(dir.id(), jail.id);
            let record = fs::read_to_string(dir.path().join("jail.json")).ok();
            assert_eq!(record, jail.record);
            let root = base.join(IDS[*id]).join("root");
            assert_eq!(list(&root), jail.files.keys().cloned().collect::<Vec<_>>());
            for (file, content) in &jail.files {
                if let Content::Staged(which) = content {
                    self.check_file(&root.join(file), *which);
                    names_of_the_disk += u64::from(*which == PERSISTENT);
                }
            }
        }
        // What is aside may have one more of them.
        let found = self.names_of_the_disk();
        assert!(found == names_of_the_disk || !aside.is_empty() && found == names_of_the_disk + 1);
    }

    fn check_file(&self, path: &Path, which: usize) {
        let meta = fs::symlink_metadata(path).unwrap();
        let user = jail_user();
        let found = (meta.uid(), meta.gid(), meta.mode());
        let node = |kind: u32| (user.uid(), user.gid(), kind | 0o600);
        let (expected, content): (_, &[u8]) = match which {
            0 => ((0, 0, 0o100_644), b"kernel"),
            1 => ((user.uid(), user.gid(), 0o100_600), b"disk"),
            2 => ((user.uid(), user.gid(), 0o100_440), b"{}"),
            NODE => return assert_eq!((found, meta.rdev()), (node(0o020_000), 0x103)),
            PERSISTENT => {
                let disk = fs::metadata(self.image("data")).unwrap();
                // It is given away last: a launcher that was killed may not have come to it.
                assert!([0, user.uid()].contains(&meta.uid()));
                return assert_eq!(meta.ino(), disk.ino());
            }
            _ => {
                let device = fs::metadata(self.device).unwrap();
                return assert_eq!((found, meta.rdev()), (node(0o060_000), device.rdev()));
            }
        };
        assert_eq!(found, expected);
        assert_eq!(fs::read(path).unwrap(), content);
    }

    /// All jails go, and what the dead left; then nothing is there.
    pub(super) fn end(self) {
        for id in IDS {
            remove_tree(&self.scene.base, &name(id), None).unwrap();
        }
        assert!(sweep(&self.scene.base).unwrap().failed.is_empty());
        assert_eq!(self.scene.entries(), [""; 0], "nothing is left behind");
        assert_eq!(self.names_of_the_disk(), 1);
    }
}
