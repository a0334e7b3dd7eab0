//! The short form: of each kind of call in each phase one fails, and the launcher dies before one.

use faults::{Choice, Scene, Shape, isolated, launcher, run};
use testkit::Binaries;

const NAME: &str = "each_call_fails_once";

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn each_call_fails_once() {
    match testkit::role().as_deref() {
        Some("launcher") => assert!(launcher::serve()),
        Some(_) => faults_in_here(),
        None => {
            let test = testkit::reenter(NAME, "driver");
            let mut driver = isolated(std::env::current_exe().unwrap());
            driver.args(test.get_args());
            driver.envs(test.get_envs().filter_map(|(name, value)| Some((name, value?))));
            assert!(driver.status().unwrap().success());
        }
    }
}

fn faults_in_here() {
    let launcher = || testkit::reenter(NAME, "launcher");
    let scenes = Scene::several(4, &Binaries::stand_ins(), Shape::ByLauncher, launcher);
    let report =
        run(&scenes, Choice::Sample, &[], &mut |_, _, _| {}).expect("launchers can be traced");
    Scene::finish(scenes);
    let total = report.total();
    for phase in &report.phases {
        println!("{phase:?}");
    }
    for violation in &report.violations {
        println!("{violation}");
    }
    assert!(total.reported > 0 && total.succeeded > 0 && total.recovered > 0, "{total:?}");
    assert_eq!(total.violations, 0);
}
