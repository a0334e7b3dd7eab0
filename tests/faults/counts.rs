//! The costs of a verb, counted: opens do not grow with the host.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use faults::{Many, Opened, Scene, Shape, isolated, launcher, opened};
use testkit::{Binaries, KillOnDrop, Scratch, Tmpfs};

/// Runs `test` in a pid namespace and a mount namespace of its own; the launchers that it starts enter here too.
fn alone(name: &str, test: impl FnOnce(fn() -> Command), launcher: fn() -> Command) {
    match testkit::role().as_deref() {
        Some("launcher") => assert!(launcher::serve()),
        Some(_) => test(launcher),
        None => {
            let test = testkit::reenter(name, "driver");
            let mut driver = isolated(std::env::current_exe().unwrap());
            driver.args(test.get_args());
            driver.envs(test.get_envs().filter_map(|(name, value)| Some((name, value?))));
            assert!(driver.status().unwrap().success());
        }
    }
}

fn count(opened: &[Opened], phase: &str, of: impl Fn(&Path) -> bool) -> usize {
    opened.iter().filter(|open| open.phase == phase && of(&open.path)).count()
}

fn is_proc(path: &Path) -> bool {
    path == Path::new("/proc")
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn no_verb_reads_proc_twice() {
    const NAME: &str = "no_verb_reads_proc_twice";
    let test = |launcher| {
        let scene = Scene::new(Binaries::stand_ins(), Shape::ByLauncher, launcher);
        // A process of a VM with a control group is in that group: nothing is searched.
        let life = opened(&scene, None).unwrap();
        let reads = life.iter().find(|open| is_proc(&open.path));
        assert_eq!(reads, None);
        // Processes that the caller started are searched, once for all jails.
        for by_caller in [1, 5] {
            let many = opened(&scene, Some(Many { born_in_leaf: 3, by_caller })).unwrap();
            for phase in ["list", "sweep"] {
                assert_eq!(count(&many, phase, is_proc), 1, "{phase} of {by_caller}");
            }
            for n in 0..3 {
                assert_eq!(count(&many, &format!("remove born-{n}"), is_proc), 0);
            }
            for n in 0..by_caller {
                assert_eq!(count(&many, &format!("remove by-caller-{n}"), is_proc), 1);
            }
        }
        Scene::finish(vec![scene]);
    };
    alone(NAME, test, || testkit::reenter(NAME, "launcher"));
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_list_opens_a_few_files_a_jail() {
    const NAME: &str = "a_list_opens_a_few_files_a_jail";
    let test = |launcher| {
        let scene = Scene::new(Binaries::stand_ins(), Shape::ByLauncher, launcher);
        let opens = |born_in_leaf| {
            let many = opened(&scene, Some(Many { born_in_leaf, by_caller: 0 })).unwrap();
            let [list, sweep, remove] =
                ["list", "sweep", "remove born-0"].map(|phase| count(&many, phase, |_| true));
            (list, sweep, remove)
        };
        let (few, many) = (opens(2), opens(6));
        let a_jail = [(many.0 - few.0), (many.1 - few.1)].map(|opens| opens.div_ceil(4));
        println!("opens a jail: list {}, sweep {}", a_jail[0], a_jail[1]);
        assert!(a_jail.iter().all(|opens| *opens <= 40), "{a_jail:?}");
        assert_eq!(few.2, many.2, "a removal opens more beside more jails");
        // Beside many processes and mounts, the same.
        let scratch = Scratch::new("mounts");
        let mounts: Vec<_> = (0..20)
            .map(|n| Tmpfs::mount(&scratch.dir(format!("mount-{n}")), "mode=0755"))
            .collect();
        let mut sleep = Command::new("sleep");
        sleep.arg("3600").stdin(Stdio::null());
        let crowd: Vec<_> = (0..40).map(|_| KillOnDrop::spawn(&mut sleep)).collect();
        assert!(fs::read_dir("/proc").unwrap().count() > 40);
        assert_eq!(opens(6), many);
        drop((crowd, mounts, scratch));
        Scene::finish(vec![scene]);
    };
    alone(NAME, test, || testkit::reenter(NAME, "launcher"));
}
