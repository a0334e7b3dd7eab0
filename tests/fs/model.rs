//! Random sequences of all verbs, with kills before any call, against a model.

mod world;

use std::os::unix::fs::chown;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use testkit::{Canary, FsKind};

use self::world::{FILES, IDS, World};
use crate::support::{Scene, long, loop_device, on};

/// One step of a launcher, or an accident.
#[derive(Debug, Clone)]
enum Step {
    /// Stages these files and publishes.
    Publish { id: usize, files: Vec<usize> },
    /// Stages these files and abandons the tree.
    Abandon { id: usize, files: Vec<usize> },
    /// Publishes in the place of the jail of that name.
    Restart { id: usize, files: Vec<usize> },
    /// Removes, by the right inode or by another jail's.
    Remove { id: usize, rightly: bool },
    /// Removes and restarts a jail with a mount inside.
    RemoveMounted { id: usize },
    /// Replaces the record beside the root.
    Record { id: usize, text: u8 },
    /// Removes files by name.
    Scrub { id: usize, files: Vec<usize> },
    /// The jail's user plants links to the host's files under every free name.
    Plant { id: usize },
    /// Stages one more file into the jail, where a link may be.
    Stage { id: usize, file: usize },
    /// Reads a file of the jail's.
    Read { id: usize, file: usize },
    /// Takes or releases the jail's lease.
    Lease { id: usize },
    /// Looks whether the base is still the base.
    Look,
    /// Removes what the dead left.
    Sweep,
    /// Another launcher does this, and is killed before the given call.
    Killed { step: Box<Self>, call: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || 0..IDS.len();
    let file = || 0..FILES.len();
    let files = || proptest::collection::vec(0..FILES.len(), 0..7);
    let mortal = prop_oneof![
        4 => (id(), files()).prop_map(|(id, files)| Step::Publish { id, files }),
        1 => (id(), files()).prop_map(|(id, files)| Step::Abandon { id, files }),
        2 => (id(), files()).prop_map(|(id, files)| Step::Restart { id, files }),
        2 => (id(), any::<bool>()).prop_map(|(id, rightly)| Step::Remove { id, rightly }),
        1 => (id(), any::<u8>()).prop_map(|(id, text)| Step::Record { id, text }),
        1 => (id(), files()).prop_map(|(id, files)| Step::Scrub { id, files }),
        2 => (id(), file()).prop_map(|(id, file)| Step::Stage { id, file }),
        1 => Just(Step::Sweep),
    ];
    let step = prop_oneof![
        12 => mortal.clone(),
        // Few are more than so many calls long.
        4 => (mortal, 0_u32..70).prop_map(|(step, call)| Step::Killed { step: step.into(), call }),
        1 => id().prop_map(|id| Step::RemoveMounted { id }),
        2 => id().prop_map(|id| Step::Plant { id }),
        1 => (id(), file()).prop_map(|(id, file)| Step::Read { id, file }),
        1 => id().prop_map(|id| Step::Lease { id }),
        1 => Just(Step::Look),
    ];
    proptest::collection::vec(step, 1..16)
}

fn play(
    scene: &Scene,
    device: &std::path::Path,
    canary: &Canary,
    steps: &[Step],
) -> TestCaseResult {
    let mut world = World::new(scene, device);
    for step in steps {
        world.step(step);
        world.check();
    }
    world.end();
    let differences = canary.differences();
    prop_assert!(differences.is_empty(), "the host changed: {differences:?}");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn verbs_match_the_model() {
    let test = "verbs_match_the_model";
    for (kind, share) in [(FsKind::Ext4, 2), (FsKind::Xfs, 1), (FsKind::Btrfs, 1)] {
        let cases = if long() { 10_000 } else { 500 } * share / 4;
        on(test, kind, |scene| {
            for (file, content) in [("vmlinux", "kernel"), ("disk", "disk"), ("data", "data")] {
                scene.source(file, content);
            }
            let backing = scene.source("backing", vec![0; 1 << 20]);
            let device = loop_device(backing.path());
            let canary = Canary::take(&scene.host());
            let config = Config { cases, failure_persistence: None, ..Config::default() };
            let played = TestRunner::new(config).run(&steps(), |steps| {
                // A persistent disk becomes its user's for good; in each case it is the host's again.
                chown(scene.root().join("images/data"), Some(0), Some(0)).unwrap();
                play(scene, device.path(), &canary, &steps)
            });
            played.unwrap_or_else(|failure| panic!("{kind}: {failure}"));
        });
    }
}
