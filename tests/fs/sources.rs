//! Rows 16, 17, 18: what is to be staged is not what it seems.

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use jail_fs::{Artifact, CopyOptions, ErrorKind, Progress, Strategy, private, read_only};
use nix::sys::stat::Mode;
use testkit::Tmpfs;

use crate::support::{jail_user, list, name, on_each_fs, plain};

/// link(2) puts the link itself into the jail.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_16_refuses_source_links() {
    on_each_fs("row_16_refuses_source_links", |scene| {
        let link = scene.dir("images").join("vmlinux");
        symlink(scene.host().join("secret"), &link).unwrap();
        let error = Artifact::open(&link).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.to_string().contains("secret"), "it tells where to: {error}");
        // A link that takes the name's place after it was opened changes nothing.
        let source = scene.source("image", "the image");
        fs::remove_file(source.path()).unwrap();
        symlink(scene.host().join("secret"), source.path()).unwrap();
        let jail = scene.jail("one");
        private(&source, &jail.dir, &name("private"), jail_user(), &plain()).unwrap();
        assert_eq!(fs::read_to_string(jail.path.join("private")).unwrap(), "the image");
        // Its last name is gone, so there is nothing to link to; that is an error, not another file.
        let linked = read_only(&source, &jail.dir, &name("shared"), jail_user(), &plain());
        assert_eq!(linked.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(list(&jail.path), ["private"]);
    });
}

/// Opening hangs, or a whole disk is copied.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_17_refuses_odd_sources() {
    on_each_fs("row_17_refuses_odd_sources", |scene| {
        let dir = scene.dir("images");
        nix::unistd::mkfifo(&dir.join("fifo"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(dir.join("socket")).unwrap();
        for (bad, noun) in [("fifo", "a fifo"), ("socket", "a socket"), ("", "a directory")] {
            let error = Artifact::open(&dir.join(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted);
            assert!(error.to_string().contains(noun), "{error}");
        }
        for device in ["/dev/null", "/dev/zero", "/dev/tty"] {
            let error = Artifact::open(device.as_ref()).unwrap_err();
            assert!(error.to_string().contains("a character device"), "{error}");
        }
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_18_changed_source_is_noticed() {
    on_each_fs("row_18_changed_source_is_noticed", |scene| {
        let jail = scene.jail("one");
        // Onto another filesystem, so that it is copied piece by piece and the watch is called.
        let elsewhere = scene.dir("elsewhere");
        let _tmpfs = Tmpfs::mount(&elsewhere, "mode=0755");
        let path = elsewhere.join("image");
        fs::write(&path, vec![7; 40 << 20]).unwrap();
        let touch = |change: &(dyn Fn() + Sync)| {
            let source = Artifact::open(&path).unwrap();
            let watch = |progress: Progress| {
                if progress.position == 16 << 20 {
                    change();
                }
                ControlFlow::Continue(())
            };
            let options = CopyOptions::new().watch(&watch);
            private(&source, &jail.dir, &name("private"), jail_user(), &options)
        };
        let append = || File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
        let overwrite =
            || File::options().write(true).open(&path).unwrap().write_all(b"x").unwrap();
        let shorten =
            || File::options().write(true).open(&path).unwrap().set_len(20 << 20).unwrap();
        for change in [&append as &(dyn Fn() + Sync), &overwrite, &shorten] {
            let error = touch(change).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SourceChanged, "{error:?}");
            assert_eq!(error.path(), path);
        }
        assert_eq!(list(&jail.path), [""; 0], "nothing of it is left");
        // Another stager of the same image is no change.
        let link = || fs::hard_link(&path, elsewhere.join("other")).unwrap();
        let receipt = touch(&link).unwrap();
        assert_eq!(receipt.strategy, Strategy::SparseCopy);
        // Between opening and staging, too.
        let source = Artifact::open(&path).unwrap();
        append();
        let late = private(&source, &jail.dir, &name("late"), jail_user(), &plain());
        assert_eq!(late.unwrap_err().kind(), ErrorKind::SourceChanged);
    });
}
