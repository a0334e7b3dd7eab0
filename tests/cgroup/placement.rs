//! Placement on CPUs and memory nodes.

use std::collections::BTreeMap;
use std::fs;

use jail_cgroup::{CpuSet, ErrorKind, Limit, Limits};

use crate::support::{Actor, Ground, eventually, play};

/// Reads the CPUs or nodes that a process may use: `Cpus_allowed_list` or `Mems_allowed_list`.
fn allowed(pid: u32, key: &str) -> CpuSet {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').parse().unwrap()
}

/// The CPU each of the process's threads runs on, or ran on last (proc_pid_stat(5)).
fn processors(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .map(|task| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            let (_, fields) = stat.rsplit_once(')').unwrap();
            // The 39th field; the 3rd comes first here.
            fields.split_whitespace().nth(36).unwrap().parse().unwrap()
        })
        .collect()
}

/// Counts the pages of large anonymous mappings by node (proc_pid_numa_maps(5)).
fn pages_by_node(pid: u32) -> BTreeMap<u32, usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/numa_maps")).unwrap();
    let mut pages = BTreeMap::new();
    for line in maps.lines() {
        let fields = || line.split(' ').filter_map(|field| field.split_once('='));
        let anonymous = fields().find(|(key, _)| *key == "anon");
        // What it had before it joined is little.
        if anonymous.is_none_or(|(_, count)| count.parse::<usize>().unwrap() < 128) {
            continue;
        }
        for (key, count) in fields() {
            if let Some(Ok(node)) = key.strip_prefix('N').map(str::parse) {
                *pages.entry(node).or_insert(0) += count.parse::<usize>().unwrap();
            }
        }
    }
    pages
}

/// The ids in a set that one can name.
fn ids(set: &CpuSet) -> Vec<u32> {
    (0..1024).filter(|id| set.contains(*id)).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn processes_run_on_their_cpus() {
    play();
    const TEST: &str = "placement::processes_run_on_their_cpus";
    let all = allowed(std::process::id(), "Cpus_allowed_list");
    let last = CpuSet::from_iter([*ids(&all).last().unwrap()]);
    if last == all {
        testkit::skip(TEST, "there is one CPU");
        return;
    }
    let limits = Limits::new().cpuset_cpus(last.clone());
    for ground in Ground::each(TEST, &limits) {
        let leaf = ground.leaf("leaf", &limits);
        let idle = Actor::new(TEST, "idle");
        assert_eq!(allowed(idle.pid(), "Cpus_allowed_list"), all);
        leaf.adopt(idle.pid()).unwrap();
        assert_eq!(allowed(idle.pid(), "Cpus_allowed_list"), last);
        // Not only allowed: each of its threads is there, however many would rather be elsewhere.
        let mut spin = Actor::in_leaf(&leaf, TEST, "spin 4");
        spin.go();
        spin.says("spinning");
        eventually("the threads run", || processors(spin.pid()).len() > 4);
        // A thread that has not run since it was moved still names the processor that it ran on before.
        eventually("each thread has run in the leaf", || {
            CpuSet::from_iter(processors(spin.pid())) == last
        });
        for _ in 0..20 {
            assert_eq!(CpuSet::from_iter(processors(spin.pid())), last);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn numa_nodes_bind_memory() {
    play();
    const TEST: &str = "placement::numa_nodes_bind_memory";
    let nodes = ids(&allowed(std::process::id(), "Mems_allowed_list"));
    for node in &nodes {
        let limits = Limits::new().numa_node(*node);
        for ground in Ground::each(TEST, &limits) {
            let leaf = ground.leaf("leaf", &limits);
            let idle = Actor::in_leaf(&leaf, TEST, "idle");
            let expected = CpuSet::from_iter([*node]);
            assert_eq!(allowed(idle.pid(), "Mems_allowed_list"), expected);
            let cpus = jail_cgroup::numa_node_cpus(*node).unwrap();
            assert_eq!(allowed(idle.pid(), "Cpus_allowed_list"), cpus);

            let mut keep = Actor::in_leaf(&leaf, TEST, "keep 32");
            keep.go();
            keep.says("held");
            let pages = pages_by_node(keep.pid());
            println!("{TEST}: {} node {node}: {pages:?} pages", ground.version);
            assert!(pages[node] >= 32 << 8, "{pages:?}");
            assert_eq!(pages.len(), 1, "{pages:?}");
        }
    }
    println!("{TEST}: nodes {nodes:?}");
    let error = jail_cgroup::numa_node_cpus(1000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// v1 refuses what the parent does not have; v2 takes it in silence and gives what the parent has, so it is looked at.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn missing_cpus_are_refused() {
    const TEST: &str = "placement::missing_cpus_are_refused";
    let last = *ids(&allowed(std::process::id(), "Cpus_allowed_list")).last().unwrap();
    for cpus in [CpuSet::from_iter([0, last + 1]), CpuSet::from_iter([last + 1])] {
        let limits = Limits::new().cpuset_cpus(cpus);
        for ground in Ground::each(TEST, &limits) {
            let error = ground.plan("leaf", &limits).create().unwrap_err();
            assert_eq!(
                (error.kind(), error.limit()),
                (ErrorKind::Refused, Some(Limit::CpusetCpus))
            );
            assert!(ground.dirs().is_empty());
        }
    }
}
