//! The call surface: under strace, every file call of every verb goes through a held directory or a named door.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use jail_fs::{
    Access, Artifact, CopyOptions, Lease, Owner, StagedTree, TrustedDir, block_device,
    ensure_char_device, open_dir, open_file, persistent, private, read_only, read_small,
    remove_tree, return_persistent, scrub, sweep, write,
};
use testkit::{FsKind, Tmpfs};

use crate::support::{has_strace, jail_user, loop_device, name, on};

/// Calls with this name mark the begin and end of the verbs in the trace.
const MARK: &str = "/microvm-runtime-test-mark";

fn mark() {
    assert!(fs::symlink_metadata(MARK).is_err());
}

/// Calls every verb, with and without success.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn every_verb_is_called() {
    on("every_verb_is_called", FsKind::Xfs, |scene| {
        let images = scene.dir("images");
        let elsewhere = scene.dir("elsewhere");
        let _tmpfs = Tmpfs::mount(&elsewhere, "mode=0755");
        fs::write(images.join("kernel"), "kernel").unwrap();
        fs::write(images.join("disk"), vec![1; 100_000]).unwrap();
        fs::write(images.join("persistent"), "p").unwrap();
        fs::write(elsewhere.join("disk"), vec![1; 600_000]).unwrap();
        fs::write(images.join("backing"), vec![1; 1 << 20]).unwrap();
        fs::set_permissions(images.join("persistent"), Permissions::from_mode(0o600)).unwrap();
        symlink("disk", images.join("link")).unwrap();
        let device = loop_device(&images.join("backing"));
        let base = scene.root().join("new/base");
        let trap = scene.dir("base/trap/root");
        symlink(scene.host(), trap.join("link")).unwrap();
        fs::create_dir_all(trap.join("a/b/c")).unwrap();
        fs::create_dir_all(scene.base.path().join(".staging-dead-1/root")).unwrap();
        let owner = jail_user();
        let options = CopyOptions::new().fsync(true);

        mark();
        let base = TrustedDir::create(&base).unwrap();
        TrustedDir::open(&images.join("link")).unwrap_err();
        let parent = base.create_child(&name("fc")).unwrap();
        base.child(&name("missing")).unwrap_err();
        assert!(!parent.mount_flags().unwrap().read_only);
        let tree = StagedTree::create(&parent, &name("one")).unwrap();
        let root = tree.make_dir("root", Owner::ROOT, 0o700).unwrap();
        let dev = tree.make_dir("root/dev", owner, 0o700).unwrap();
        let open = |path: &str| Artifact::open(&scene.root().join(path)).unwrap();
        Artifact::open(&images.join("link")).unwrap_err();
        read_only(&open("images/kernel"), &root, &name("kernel"), owner, &options).unwrap();
        read_only(&open("images/kernel"), &root, &name("kernel"), owner, &options).unwrap_err();
        private(&open("images/disk"), &root, &name("disk"), owner, &options).unwrap();
        private(&open("elsewhere/disk"), &root, &name("copy"), owner, &options).unwrap();
        let lent =
            persistent(&open("images/persistent"), &root, &name("own"), Some(owner), &options)
                .unwrap();
        let device = Artifact::open(device.path()).unwrap();
        block_device(&device, &root, &name("block"), owner, Access::ReadWrite).unwrap();
        ensure_char_device(&dev, &name("kvm"), 10, 232, owner, 0o666).unwrap();
        ensure_char_device(&dev, &name("kvm"), 10, 232, owner, 0o600).unwrap();
        write(&root, &name("vm.json"), b"{}", owner, 0o440).unwrap();
        write(tree.top(), &name("jail.json"), b"{}", Owner::ROOT, 0o600).unwrap();
        let published = tree.publish().unwrap();
        published.dir.verify_path().unwrap();
        let dir = parent.child(&name("one")).unwrap();
        Lease::try_acquire(&dir).unwrap_err();
        assert_eq!(read_small(dir.dir(), "jail.json", 10).unwrap(), b"{}");
        write(dir.dir(), &name("vmm.json"), b"{}", Owner::ROOT, 0o600).unwrap();
        let root = open_dir(dir.dir(), "root").unwrap();
        open_file(&root, "vm.json").unwrap();
        open_file(&root, "dev/kvm").unwrap_err();
        scrub(&root, &[name("vm.json"), name("missing")]).unwrap();
        return_persistent(&root, &lent).unwrap();
        let again = StagedTree::create(&parent, &name("one")).unwrap();
        let published = again.exchange(published.dir.id()).unwrap();
        drop(StagedTree::create(&parent, &name("dropped")).unwrap());
        remove_tree(&parent, &name("one"), Some(published.dir.id())).unwrap();
        remove_tree(&scene.base, &name("trap"), None).unwrap();
        remove_tree(&scene.base, &name("trap"), None).unwrap();
        assert_eq!(sweep(&scene.base).unwrap().removed.len(), 1);
        assert_eq!(parent.entries().unwrap(), []);
        mark();
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn path_strings_use_named_doors() {
    let test = "path_strings_use_named_doors";
    if !has_strace(test) {
        return;
    }
    let scratch = testkit::Scratch::new("strace");
    let log = scratch.join("log");
    let run = Command::new("strace")
        .args(["-f", "-qq", "-v", "-s", "8192", "-e", "trace=%file,%desc", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "surface::every_verb_is_called", "--ignored"])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && output.contains("1 passed"),
        "{output}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let log = fs::read_to_string(log).unwrap();
    let calls = between_marks(&log);
    assert!(calls.len() > 300, "only {} calls were seen", calls.len());
    let bad: Vec<_> = calls.iter().filter(|call| !is_fine(call)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    // A trace in which a verb's own call is missing has not seen that verb.
    for seen in [
        "openat2(",
        "mkdirat(",
        "mknodat(",
        "FICLONE",
        "copy_file_range(",
        "pwrite64(",
        "linkat(",
        "renameat2(",
        "RENAME_NOREPLACE",
        "RENAME_EXCHANGE",
        "unlinkat(",
        "AT_REMOVEDIR",
        "fchown(",
        "fchownat(",
        "fchmod(",
        "flock(",
        "getdents64(",
        "O_TMPFILE",
        "fsync(",
        "statx(",
        "fgetxattr(",
    ] {
        assert!(calls.iter().any(|call| call.contains(seen)), "no {seen} was seen");
    }
    println!(
        "{} calls, {} of them openat2",
        calls.len(),
        calls.iter().filter(|call| call.starts_with("openat2(")).count()
    );
}

/// The calls of the marked thread, without the thread number.
fn between_marks(log: &str) -> Vec<&str> {
    let marked = log.lines().find(|line| line.contains(MARK)).expect("the mark is in the trace");
    let (thread, _) = marked.split_once(' ').unwrap();
    let own = log.lines().filter_map(|line| {
        line.split_once(' ').filter(|(it, _)| *it == thread).map(|(_, call)| call.trim_start())
    });
    own.skip_while(|call| !call.contains(MARK))
        .skip(1)
        .take_while(|call| !call.contains(MARK))
        .collect()
}

/// Accepts calls that name nothing, one component below a held directory, or a named door.
fn is_fine(call: &str) -> bool {
    let (syscall, arguments) = call.split_once('(').unwrap_or((call, ""));
    let strings: Vec<&str> = arguments.split('"').skip(1).step_by(2).collect();
    let single = |path: &str| !path.contains('/') && path != "..";
    let held = !arguments.contains("AT_FDCWD");
    let has = |flags: &[&str]| flags.iter().all(|flag| arguments.contains(flag));
    let nofollow = has(&["O_NOFOLLOW", "O_CLOEXEC"]);
    match syscall {
        // The four flags, always; the path may have components, for none of them can lead out.
        "openat2" => {
            held && nofollow
                && has(&[
                    "RESOLVE_BENEATH",
                    "RESOLVE_NO_SYMLINKS",
                    "RESOLVE_NO_MAGICLINKS",
                    "RESOLVE_NO_XDEV",
                ])
                && (arguments.contains("O_PATH") || has(&["O_NONBLOCK", "O_NOCTTY"]))
        }
        // Doors: `/`, then one component at a time; a source, by its host's word; mountinfo.
        "openat" if held => single(strings[0]) && nofollow && has(&["O_DIRECTORY"]),
        "openat" => {
            strings[0] == "/proc/thread-self/mountinfo"
                || (strings[0] == "/" && nofollow && has(&["O_DIRECTORY"]))
                || (nofollow && !has(&["O_CREAT"]) && is_source(strings[0]))
        }
        // A node's mode, and a message's path: by this very descriptor.
        "fchmodat" | "readlink" | "readlinkat" if !held || syscall == "readlink" => {
            strings[0].starts_with("/proc/self/fd/")
                || (syscall != "fchmodat" && is_source(strings[0]))
        }
        "linkat" if !held => strings[0].starts_with("/proc/self/fd/"),
        "statx" if !held => is_source(strings[0]) && has(&["AT_SYMLINK_NOFOLLOW"]),
        "statx" => single(strings[0]) && (strings[0].is_empty() || has(&["AT_SYMLINK_NOFOLLOW"])),
        "mkdirat" | "mknodat" | "unlinkat" | "renameat" | "renameat2" | "linkat" | "fchownat"
        | "readlinkat" => held && strings.iter().all(|path| single(path)),
        // Calls on descriptors name no file: what they quote is content, or an attribute's name.
        "read" | "pread64" | "write" | "pwrite64" | "getdents64" | "fgetxattr" | "fremovexattr"
        | "close" | "fcntl" | "ioctl" | "lseek" | "flock" | "fchown" | "fchmod" | "fsync"
        | "ftruncate" | "copy_file_range" | "ppoll" | "fstatfs" | "fstat" | "mmap" => true,
        _ => false,
    }
}

fn is_source(path: &str) -> bool {
    path.contains("/images/") || path.contains("/elsewhere/") || path.starts_with("/dev/loop")
}
