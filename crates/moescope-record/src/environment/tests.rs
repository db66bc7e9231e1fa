//! Fake trees: laptops, servers, GPUs, and files nobody should believe.

use std::{fs, path::Path};

use moescope_trace::manifest::{DeviceInfo, DeviceType};
use tempfile::TempDir;

use super::{Card, MachineState, Roots, machine_state};

/// A tree of small files for `/sys` and `/proc`.
pub(crate) struct Tree {
    dir: TempDir,
    pub(crate) roots: Roots,
}

impl Tree {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let roots = Roots { sys: dir.path().join("sys"), proc: dir.path().join("proc") };
        let tree = Tree { dir, roots };
        files.iter().for_each(|(path, text)| tree.write(path, text));
        tree
    }

    /// At once, as a file of sysfs changes: a thread that reads it meanwhile never finds it empty.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = self.dir.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

pub(crate) fn info(device_type: DeviceType, vendor: u32, id: u32) -> DeviceInfo {
    DeviceInfo {
        backend: "wgpu".into(),
        adapter: "GPU".into(),
        driver: None,
        driver_version: None,
        vendor_id: Some(vendor),
        device_id: Some(id),
        device_type,
        limits: Default::default(),
    }
}

const CPU: &str = "sys/devices/system/cpu/cpu0/cpufreq";
const GPU: &str = "sys/bus/pci/devices/0000:03:00.0";
const AMD: u32 = 0x1002;

fn amd() -> Card {
    Card { address: "0000:03:00.0".into(), vendor: AMD }
}

#[test]
fn a_laptop_on_battery() {
    let tree = Tree::new(&[
        (&format!("{CPU}/scaling_governor"), "powersave\n"),
        (&format!("{CPU}/scaling_cur_freq"), "1400000\n"),
        ("sys/class/power_supply/AC/type", "Mains\n"),
        ("sys/class/power_supply/AC/online", "0\n"),
        ("sys/class/power_supply/BAT0/type", "Battery\n"),
        ("sys/class/power_supply/BAT0/status", "Discharging\n"),
        ("proc/loadavg", "0.52 1.25 2.00 3/1234 5678\n"),
        (&format!("{GPU}/pp_dpm_sclk"), "0: 500Mhz\n1: 1325Mhz *\n2: 2200Mhz\n"),
        (&format!("{GPU}/power_dpm_force_performance_level"), "auto\n"),
    ]);
    let state = machine_state(Some(&amd()), &tree.roots);
    let want = MachineState {
        cpu_governor: Some("powersave".into()),
        cpu_mhz: Some(1400.0),
        power_source: Some("battery".into()),
        load_average: Some([0.52, 1.25, 2.0]),
        gpu_mhz: Some(1325.0),
        gpu_state: Some("auto".into()),
    };
    assert_eq!(state, want);
    // The charger is plugged in.
    tree.write("sys/class/power_supply/AC/online", "1\n");
    assert_eq!(machine_state(None, &tree.roots).power_source.as_deref(), Some("mains"));
    assert_eq!(machine_state(None, &tree.roots).gpu_mhz, None);
}

#[test]
fn power_of_other_machines() {
    let source = |files: &[(&str, &str)]| machine_state(None, &Tree::new(files).roots).power_source;
    let bat = "sys/class/power_supply/BAT1";
    let usb = "sys/class/power_supply/ucsi";
    let mouse = "sys/class/power_supply/hid";
    // A battery that charges from something unseen.
    let files = [(format!("{bat}/type"), "Battery"), (format!("{bat}/status"), "Charging")];
    let files: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), *t)).collect();
    assert_eq!(source(&files).as_deref(), Some("mains"));
    // One of two discharges.
    let two = [
        ("sys/class/power_supply/BAT9/type", "Battery"),
        ("sys/class/power_supply/BAT9/status", "Discharging"),
    ];
    assert_eq!(source(&[&files[..], &two].concat()).as_deref(), Some("battery"));
    // USB-C.
    let usb = [(format!("{usb}/type"), "USB"), (format!("{usb}/online"), "1")];
    let usb: Vec<_> = usb.iter().map(|(p, t)| (p.as_str(), *t)).collect();
    assert_eq!(source(&[&two[..], &usb].concat()).as_deref(), Some("mains"));
    // A mouse does not feed the machine, and a desktop shows nothing.
    let mouse = [
        (format!("{mouse}/type"), "Battery"),
        (format!("{mouse}/scope"), "Device"),
        (format!("{mouse}/status"), "Discharging"),
    ];
    let mouse: Vec<_> = mouse.iter().map(|(p, t)| (p.as_str(), *t)).collect();
    assert_eq!(source(&mouse), None);
    assert_eq!(source(&[]), None);
}

#[test]
fn nothing_there_is_nothing_known() {
    let tree = Tree::new(&[("proc/version", "Linux")]);
    let mut state = machine_state(Some(&amd()), &tree.roots);
    if cfg!(target_os = "macos") {
        state.load_average = None;
    }
    assert_eq!(state, MachineState::default());
}

#[test]
fn clocks_from_elsewhere() {
    let tree = Tree::new(&[
        ("proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 2893.202\nprocessor\t: 1\ncpu MHz\t: 800\n"),
        (&format!("{GPU}/hwmon/hwmon4/freq1_input"), "1850000000\n"),
    ]);
    let state = machine_state(Some(&amd()), &tree.roots);
    assert_eq!((state.cpu_mhz, state.gpu_mhz), (Some(2893.202), Some(1850.0)));
    let intel = Tree::new(&[(&format!("{GPU}/drm/card1/gt_act_freq_mhz"), "1150\n")]);
    assert_eq!(machine_state(Some(&amd()), &intel.roots).gpu_mhz, Some(1150.0));
}

/// Files that hold anything but what they should: none of it gets into a fingerprint.
#[test]
fn hostile_files_are_not_believed() {
    let long = "9".repeat(100_000);
    let texts =
        ["", "\n", "-1", "1e99", "NaN", "\u{1b}[31mred", "a\0b", "inf inf inf", long.as_str()];
    for text in texts {
        let tree = Tree::new(&[
            (&format!("{CPU}/scaling_governor"), text),
            (&format!("{CPU}/scaling_cur_freq"), text),
            ("sys/class/power_supply/A/type", text),
            ("sys/class/power_supply/B/type", "Battery"),
            ("sys/class/power_supply/B/status", text),
            ("proc/loadavg", text),
            ("proc/cpuinfo", &format!("cpu MHz : {text}")),
            (&format!("{GPU}/pp_dpm_sclk"), &format!("0: {text}Mhz *")),
            (&format!("{GPU}/hwmon/hwmon0/freq1_input"), text),
        ]);
        let state = machine_state(Some(&amd()), &tree.roots);
        assert_eq!(state.power_source, None, "{text:?}");
        assert_eq!(state.load_average, None, "{text:?}");
        for mhz in [state.cpu_mhz, state.gpu_mhz] {
            assert!(mhz.is_none_or(|mhz| mhz.is_finite() && mhz > 0.0), "{text:?}: {mhz:?}");
        }
        let word = state.cpu_governor.unwrap_or_default();
        assert!(word.len() <= 64 && !word.contains(char::is_control), "{text:?}");
    }
    // Bytes that are no text, and a directory where a file should be.
    let tree = Tree::new(&[(&format!("{CPU}/scaling_governor/x"), "y")]);
    fs::create_dir_all(tree.path().join("proc")).unwrap();
    fs::write(tree.path().join("proc/loadavg"), [0xff, 0xfe, 0x30]).unwrap();
    let state = machine_state(None, &tree.roots);
    assert_eq!((state.cpu_governor, state.load_average), (None, None));
}

/// By address where the driver tells it; else by ids, if they mean one card only.
#[test]
fn the_card_that_is_measured() {
    let other = "sys/bus/pci/devices/0000:0a:00.0";
    let tree = Tree::new(&[
        (&format!("{GPU}/vendor"), "0x1002\n"),
        (&format!("{GPU}/device"), "0x744c\n"),
        (&format!("{other}/vendor"), "0x10de\n"),
        (&format!("{other}/device"), "0x2204\n"),
    ]);
    let find = |address: Option<&str>, vendor, id| {
        let info = info(DeviceType::Discrete, vendor, id);
        Card::find(address.map(str::to_owned), &info, &tree.roots)
    };
    assert_eq!(find(None, AMD, 0x744c), Some(amd()));
    let nvidia = find(None, 0x10de, 0x2204).unwrap();
    assert_eq!((nvidia.address.as_str(), nvidia.is_nvidia()), ("0000:0a:00.0", true));
    assert_eq!(find(None, AMD, 0x1111), None);
    let told = find(Some("0000:0b:00.0"), AMD, 0x744c).unwrap();
    assert_eq!(told.address, "0000:0b:00.0");
    // Two alike: either could be meant.
    tree.write(&format!("{other}/vendor"), "0x1002");
    tree.write(&format!("{other}/device"), "0x744c");
    assert_eq!(find(None, AMD, 0x744c), None);
}

#[test]
fn this_machine_says_something() {
    let state = machine_state(None, &Roots::default());
    if cfg!(target_os = "linux") {
        let load = state.load_average.unwrap();
        assert!(load.iter().all(|n| (0.0..10_000.0).contains(n)), "{load:?}");
    }
    assert!(state.cpu_mhz.is_none_or(|mhz| (100.0..20_000.0).contains(&mhz)), "{state:?}");
}
