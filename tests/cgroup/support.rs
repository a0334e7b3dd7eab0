//! Hierarchies and processes for tests.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio, exit};
use std::time::{Duration, Instant};

use jail_cgroup::{CgroupVersion, Host, Leaf, LeafPlan, Limits};
use testkit::KillOnDrop;

/// Longest wait, against hanging tests only.
pub(crate) const FOREVER: Duration = Duration::from_secs(60);

/// A parent of the test's own in this machine's hierarchies of one version; removed, and all in it killed, on drop.
pub(crate) struct Ground {
    pub(crate) host: Host,
    pub(crate) version: CgroupVersion,
    pub(crate) parent: String,
}

impl Ground {
    /// One for each version that can do `limits` here; if none can, `test` is skipped.
    pub(crate) fn each(test: &str, limits: &Limits) -> Vec<Self> {
        let host = Host::discover().unwrap();
        let mut why = Vec::new();
        let mut grounds = Vec::new();
        for version in [CgroupVersion::V1, CgroupVersion::V2] {
            match LeafPlan::new(&host, version, "probe", "probe", limits) {
                Ok(_) => grounds.push(Self {
                    host: host.clone(),
                    version,
                    parent: testkit::unique(&format!("cg-{version}")),
                }),
                Err(error) => why.push(error.to_string()),
            }
        }
        if grounds.is_empty() {
            testkit::skip(test, &why.join("; "));
        }
        for ground in &grounds {
            println!("{test}: on {} of a {} host", ground.version, ground.host.layout());
        }
        grounds
    }

    /// The ground that a role names: `<name> <parent> <version>`.
    pub(crate) fn of_role() -> Self {
        let role = testkit::role().unwrap();
        let words: Vec<_> = role.split(' ').collect();
        let [_, parent, version] = words[..] else { panic!("{role}") };
        let version = if version == "v1" { CgroupVersion::V1 } else { CgroupVersion::V2 };
        Self { host: Host::discover().unwrap(), version, parent: parent.to_owned() }
    }

    pub(crate) fn plan(&self, name: &str, limits: &Limits) -> LeafPlan {
        LeafPlan::new(&self.host, self.version, &self.parent, name, limits).unwrap()
    }

    pub(crate) fn leaf(&self, name: &str, limits: &Limits) -> Leaf {
        self.plan(name, limits).create().unwrap_or_else(|error| panic!("{error}: {error:?}"))
    }

    /// The parent's directories, in every hierarchy.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        testkit::cgroups_named(&self.parent, "")
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        testkit::remove_cgroup(&self.parent);
    }
}

/// A process of this test binary that plays a role after [`go`](Self::go); killed and reaped on drop.
pub(crate) struct Actor(KillOnDrop);

impl Actor {
    pub(crate) fn new(test: &str, role: &str) -> Self {
        let mut command = testkit::reenter(test, role);
        Self(KillOnDrop::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped())))
    }

    /// One that is in `leaf`.
    pub(crate) fn in_leaf(leaf: &Leaf, test: &str, role: &str) -> Self {
        let actor = Self::new(test, role);
        leaf.adopt(actor.pid()).unwrap();
        actor
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// Waits for a line that begins with `key`, and returns the rest of the line.
    pub(crate) fn says(&mut self, key: &str) -> String {
        let lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
        let mut all = Vec::new();
        for line in lines {
            if let Some(rest) = line.strip_prefix(key) {
                return rest.trim().to_owned();
            }
            all.push(line);
        }
        panic!("it ended without a word on {key:?}: {all:?}");
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Waits for the exit: the exit code, or the signal.
    pub(crate) fn wait(&mut self) -> Result<i32, i32> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.0.wait().unwrap();
        status.code().ok_or_else(|| status.signal().unwrap())
    }
}

/// In a process made by [`Actor`], plays the role and ends; elsewhere does nothing.
pub(crate) fn play() {
    let Some(role) = testkit::role() else { return };
    let mut words = role.split(' ');
    let name = words.next().unwrap();
    let number = |word: Option<&str>| word.unwrap().parse::<usize>().unwrap();
    if name != "bomblet" {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        if line.is_empty() {
            // Who has made us is gone.
            exit(1);
        }
    }
    match name {
        "idle" => {
            println!("\nidle");
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        // Not even the end of who has made it ends it.
        "orphan" => {
            println!("\norphan");
            loop {
                std::thread::park();
            }
        }
        "hog" => drop(hog(number(words.next()))),
        "keep" => {
            let held = hog(number(words.next()));
            std::io::stdin().read_line(&mut String::new()).unwrap();
            drop(held);
        }
        "spin" => spin(number(words.next())),
        "bomb" | "bomblet" => bomb(),
        "write" => crate::io::write_for(words.next().unwrap(), number(words.next())),
        "crowd" => crate::kill::crowd(number(words.next())),
        "killer" => crate::kill::killer(),
        "stranger" => crate::kill::stranger(),
        "suicidal" => crate::kill::suicidal(),
        "namespaced" => crate::discovery::namespaced(),
        "launcher" => crate::rivals::launcher(),
        other => panic!("no such role: {other}"),
    }
    exit(0);
}

/// Uses that much memory, page by page.
fn hog(mib: usize) -> Vec<Vec<u8>> {
    let held: Vec<_> = (0..mib).map(|_| vec![1_u8; 1 << 20]).collect();
    println!("\nheld {}", held.len());
    held
}

/// Uses all CPUs that are available.
fn spin(threads: usize) {
    println!("\nspinning");
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    std::hint::spin_loop();
                }
            });
        }
    });
}

/// Makes processes that make processes.
fn bomb() {
    loop {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(std::env::args_os().skip(1))
            .env("MICROVM_TEST_ROLE", "bomblet")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // At the limit it goes on trying.
        let _ = command.spawn();
    }
}

/// Waits until `done`.
#[track_caller]
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + FOREVER;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not after {FOREVER:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
