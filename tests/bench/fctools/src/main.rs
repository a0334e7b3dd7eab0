//! `bench-fctools <jailer> <firecracker> <kernel> <base> <uid> <gid>`: a launch by fctools, timed from within.
//!
//! Reads `launch <id> [--cgroup-version <n> --parent-cgroup <name> --cgroup <file>=<value>…]` a line, stages the kernel,
//! starts a VM, waits until the API answers `GET /`, prints `{"ns":<nanoseconds>}`, and then removes the VM.

use std::error::Error;
use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fctools::process_spawner::DirectProcessSpawner;
use fctools::runtime::tokio::TokioRuntime;
use fctools::vmm::arguments::jailer::{JailerArguments, JailerCgroupVersion};
use fctools::vmm::arguments::{VmmApiSocket, VmmArguments};
use fctools::vmm::executor::jailed::{FlatVirtualPathResolver, JailedVmmExecutor};
use fctools::vmm::id::VmmId;
use fctools::vmm::installation::VmmInstallation;
use fctools::vmm::ownership::VmmOwnershipModel;
use fctools::vmm::process::VmmProcess;
use fctools::vmm::resource::system::ResourceSystem;
use fctools::vmm::resource::{MovedResourceType, ResourceType};
use http::Request;
use http_body_util::Full;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [jailer, firecracker, kernel, base, uid, gid] = arguments.as_slice() else {
        return Err("usage: bench-fctools <jailer> <firecracker> <kernel> <base> <uid> <gid>".into());
    };
    // The third program, the editor of snapshots, is not used.
    let installation = VmmInstallation::new(firecracker, jailer, firecracker);
    let owner = VmmOwnershipModel::Downgraded { uid: uid.parse()?, gid: gid.parse()? };
    for line in stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split(' ').collect();
        let ["launch", id, groups @ ..] = words.as_slice() else {
            return Err(format!("no verb in {line:?}").into());
        };
        let jail = jail(id, groups)?.chroot_base_dir(base);
        let took = launch(jail, installation.clone(), owner, Path::new(kernel)).await?;
        println!("{{\"ns\":{}}}", took.as_nanos());
        stdout().flush()?;
    }
    Ok(())
}

/// Returns the arguments of the jailer.
fn jail(id: &str, groups: &[&str]) -> Result<JailerArguments> {
    let mut jail = JailerArguments::new(VmmId::new(id)?);
    for pair in groups.chunks(2) {
        jail = match *pair {
            ["--cgroup-version", "1"] => jail.cgroup_version(JailerCgroupVersion::V1),
            ["--cgroup-version", _] => jail.cgroup_version(JailerCgroupVersion::V2),
            ["--parent-cgroup", parent] => jail.parent_cgroup(parent),
            ["--cgroup", setting] => {
                let (file, value) = setting.split_once('=').ok_or("a setting without a value")?;
                jail.cgroup(file, value)
            }
            _ => return Err(format!("no option {pair:?}").into()),
        };
    }
    Ok(jail)
}

async fn launch(
    jail: JailerArguments,
    installation: VmmInstallation,
    owner: VmmOwnershipModel,
    kernel: &Path,
) -> Result<Duration> {
    let begun = Instant::now();
    let mut resources = ResourceSystem::new(DirectProcessSpawner, TokioRuntime, owner);
    let moved = ResourceType::Moved(MovedResourceType::HardLinkedOrCopied);
    let _kernel = resources.create_resource(kernel, moved)?;
    let arguments = VmmArguments::new(VmmApiSocket::Enabled("/api.sock".into()));
    let executor = JailedVmmExecutor::new(arguments, jail, FlatVirtualPathResolver);
    let mut vmm = VmmProcess::new(executor, resources, installation);
    vmm.prepare().await?;
    vmm.invoke(None).await?;
    // As fctools itself waits for the API of a VM.
    let get = || Request::get("/").body(Full::new(Bytes::new()));
    loop {
        match vmm.send_api_request("/", get()?).await {
            Ok(answer) if answer.status().is_success() => break,
            Ok(answer) => return Err(format!("the API answers {}", answer.status()).into()),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => {}
        }
    }
    let took = begun.elapsed();
    vmm.send_sigkill()?;
    vmm.wait_for_exit().await?;
    vmm.cleanup().await?;
    Ok(took)
}
