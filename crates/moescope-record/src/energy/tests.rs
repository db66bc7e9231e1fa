//! Counters of fake machines.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use moescope_trace::manifest::DeviceType;

use super::{Meter, NoMeter, hwmon::Integral};
use crate::environment::{
    Card,
    tests::{Tree, info},
};

const GPU: &str = "sys/bus/pci/devices/0000:03:00.0";
const RAPL: &str = "sys/class/powercap/intel-rapl";

fn card() -> Card {
    Card { address: "0000:03:00.0".into(), vendor: 0x1002 }
}

fn open(tree: &Tree, card: Option<&Card>, kind: DeviceType) -> Result<Meter, NoMeter> {
    Meter::of(card, &info(kind, 0x1002, 1), &tree.roots)
}

/// Two packages, one of which has parts; a domain that is no package.
fn packages() -> Tree {
    let tree = Tree::new(&[
        (&format!("{RAPL}:0:0/name"), "core"),
        (&format!("{RAPL}:0:0/energy_uj"), "999"),
        ("sys/class/powercap/intel-rapl-mmio:0/name", "package-0"),
        ("sys/class/powercap/intel-rapl-mmio:0/energy_uj", "999"),
        (&format!("{RAPL}:2/name"), "psys"),
        (&format!("{RAPL}:2/energy_uj"), "999"),
        ("sys/class/powercap/intel-rapl/enabled", "1"),
    ]);
    for package in 0..2 {
        tree.write(&format!("{RAPL}:{package}/name"), &format!("package-{package}\n"));
        tree.write(&format!("{RAPL}:{package}/max_energy_range_uj"), "10000000\n");
        tree.write(&format!("{RAPL}:{package}/energy_uj"), "9000000\n");
    }
    tree
}

#[test]
fn packages_add_up_and_wrap_around() {
    let tree = packages();
    let mut meter = open(&tree, None, DeviceType::Cpu).unwrap();
    assert_eq!((meter.source(), meter.joules()), ("rapl", Some(0.0)));
    let set = |package: u32, microjoules: u64| {
        tree.write(&format!("{RAPL}:{package}/energy_uj"), &format!("{microjoules}\n"));
    };
    set(0, 9_500_000);
    set(1, 9_250_000);
    assert_eq!(meter.joules(), Some(0.75));
    // The first goes past its end: 0.5 J to the end, 2 J from the start.
    set(0, 2_000_000);
    assert_eq!(meter.joules(), Some(3.25));
    // Parts, the same package through another interface, and the platform do not count.
    tree.write(&format!("{RAPL}:0:0/energy_uj"), "5000000");
    tree.write("sys/class/powercap/intel-rapl-mmio:0/energy_uj", "5000000");
    tree.write(&format!("{RAPL}:2/energy_uj"), "5000000");
    assert_eq!(meter.joules(), Some(3.25));
    // Twice round.
    set(0, 9_999_999);
    assert_eq!(meter.joules(), Some(11.249999));
    set(0, 0);
    assert_eq!(meter.joules(), Some(11.25));
    std::fs::remove_file(tree.path().join(format!("{RAPL}:1/energy_uj"))).unwrap();
    assert_eq!(meter.joules(), None);
}

#[test]
fn a_software_adapter_runs_on_the_processor() {
    let mut meter = open(&packages(), None, DeviceType::Software).unwrap();
    assert_eq!(meter.source(), "rapl");
    assert_eq!(meter.joules(), None, "the tree is gone");
}

#[test]
fn an_energy_counter_comes_before_power() {
    let tree = Tree::new(&[
        (&format!("{GPU}/hwmon/hwmon2/power1_average"), "50000000"),
        (&format!("{GPU}/hwmon/hwmon3/energy1_input"), "7000000"),
    ]);
    let mut meter = open(&tree, Some(&card()), DeviceType::Discrete).unwrap();
    assert_eq!(meter.source(), "hwmon");
    tree.write(&format!("{GPU}/hwmon/hwmon3/energy1_input"), "9500000");
    assert_eq!(meter.joules(), Some(2.5));
    // A counter that was reset tells nothing.
    tree.write(&format!("{GPU}/hwmon/hwmon3/energy1_input"), "100");
    assert_eq!(meter.joules(), None);
}

#[test]
fn power_is_integrated() {
    let tree = Tree::new(&[(&format!("{GPU}/hwmon/hwmon0/power1_input"), "20000000")]);
    let path = tree.path().join(format!("{GPU}/hwmon/hwmon0/power1_input"));
    let start = Instant::now();
    let mut integral = Integral::start(path, start).unwrap();
    integral.advance(start + Duration::from_secs(3));
    assert_eq!(integral.joules, Some(60.0));
    tree.write(&format!("{GPU}/hwmon/hwmon0/power1_input"), "40000000");
    integral.advance(start + Duration::from_secs(4));
    assert_eq!(integral.joules, Some(90.0));
    tree.write(&format!("{GPU}/hwmon/hwmon0/power1_input"), "off");
    integral.advance(start + Duration::from_secs(5));
    assert_eq!(integral.joules, None);
}

/// The thread counts while nobody asks.
#[test]
fn power_is_sampled() {
    let tree = Tree::new(&[(&format!("{GPU}/hwmon/hwmon0/power1_average"), "10000000")]);
    let start = Instant::now();
    let mut meter = open(&tree, Some(&card()), DeviceType::Integrated).unwrap();
    assert_eq!(meter.source(), "hwmon-sampled");
    sleep(Duration::from_millis(100));
    // Between two readings the power was another: only a thread can have seen it.
    tree.write(&format!("{GPU}/hwmon/hwmon0/power1_average"), "1000000000");
    sleep(Duration::from_millis(100));
    tree.write(&format!("{GPU}/hwmon/hwmon0/power1_average"), "10000000");
    let joules = meter.joules().unwrap();
    let most = start.elapsed().as_secs_f64() * 1000.0;
    assert!(joules > 20.0 && joules < most, "{joules} J, at most {most} J");
}

#[test]
fn reasons() {
    let says = |result: Result<Meter, NoMeter>, words: &[&str]| {
        let message = result.err().unwrap().to_string();
        for word in words {
            assert!(message.contains(word), "{message}: expected {word}");
        }
    };
    let empty = Tree::new(&[]);
    says(open(&empty, None, DeviceType::Cpu), &["no RAPL package", "powercap"]);
    says(open(&empty, None, DeviceType::Discrete), &["which card"]);
    says(open(&empty, Some(&card()), DeviceType::Discrete), &["sensor", "0000:03:00.0"]);
    says(open(&empty, Some(&card()), DeviceType::Integrated), &["RAPL"]);
    let tree = packages();
    tree.write(&format!("{RAPL}:1/energy_uj"), "many");
    says(open(&tree, None, DeviceType::Cpu), &["intel-rapl:1/energy_uj", "no number"]);
    std::fs::remove_file(tree.path().join(format!("{RAPL}:0/energy_uj"))).unwrap();
    says(open(&tree, None, DeviceType::Cpu), &["intel-rapl:0/energy_uj", "No such file"]);
    // A card of NVIDIA's is asked through its library, which is there or says that it is not; no sensor
    // of another kind stands in for it.
    let tree = Tree::new(&[(&format!("{GPU}/hwmon/hwmon0/energy1_input"), "1")]);
    let nvidia = Card { vendor: 0x10de, address: "ffff:ff:1f.7".into() };
    says(open(&tree, Some(&nvidia), DeviceType::Discrete), &["NVML"]);
}
