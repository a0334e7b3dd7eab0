//! Row 25: a file in the jail that root reads.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use jail_fs::{ErrorKind, open_dir, open_file, read_small};
use nix::sys::stat::Mode;
use testkit::Tmpfs;

use crate::support::{as_jail_user, on_each_fs};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_25_refuses_odd_logs() {
    on_each_fs("row_25_refuses_odd_logs", |scene| {
        let jail = scene.jail("one");
        let (root, host) = (jail.path.clone(), scene.host());
        assert!(as_jail_user(|| {
            let at = |name: &str| root.join(name);
            fs::write(at("log"), "line\n").unwrap();
            symlink(host.join("secret"), at("link")).unwrap();
            symlink(host.join("dir"), at("dir-link")).unwrap();
            symlink("/proc/self/root", at("magic")).unwrap();
            nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
            UnixListener::bind(at("socket")).unwrap();
            // A sparse terabyte, which costs the jail nothing.
            File::create(at("huge")).unwrap().set_len(1 << 40).unwrap();
            fs::create_dir(at("dir")).is_ok()
        }));
        fs::hard_link(host.join("secret"), root.join("hard")).unwrap();
        assert_eq!(read_small(&jail.dir, "log", 5).unwrap(), b"line\n");
        for bad in
            ["link", "dir-link/file", "magic/etc/passwd", "fifo", "socket", "huge", "hard", "dir"]
        {
            let error = read_small(&jail.dir, bad, 1 << 20).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{bad}: {error:?}");
            assert!(error.path().ends_with(bad), "{error:?}");
        }
        assert!(read_small(&jail.dir, "log", 4).unwrap_err().to_string().contains("4 are allowed"));
        for out in ["..", "../../x", "/etc/passwd", "dir/../../../host/secret"] {
            open_file(&jail.dir, out).unwrap_err();
        }
        // A mount is a way out, too.
        fs::remove_file(root.join("hard")).unwrap();
        let _mount = Tmpfs::mount(&root.join("dir"), "mode=0755");
        fs::write(root.join("dir/file"), "x").unwrap();
        assert_eq!(open_dir(&jail.dir, "dir").unwrap_err().kind(), ErrorKind::Mounted);
        assert_eq!(open_file(&jail.dir, "dir/file").unwrap_err().kind(), ErrorKind::Mounted);
    });
}
