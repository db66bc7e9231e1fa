//! RAPL: counters of the processor's packages, as the powercap driver shows them.

use std::{io, path::PathBuf};

use super::NoMeter;
use crate::environment::{
    Roots,
    sysfs::{entries, name, number, word},
};

/// The counters of all packages.
pub(super) struct Rapl {
    packages: Vec<Package>,
    microjoules: u64,
}

struct Package {
    counter: PathBuf,
    /// The counter goes on from 0 after this, where that is known.
    range: Option<u64>,
    last: u64,
}

impl Rapl {
    /// Finds every package domain (`intel-rapl:0` and so on; AMD's are called so too). Domains below them
    /// (cores, graphics, memory) are parts of them or beside them, `psys` is more than them.
    pub(super) fn open(roots: &Roots) -> Result<Self, NoMeter> {
        let folder = roots.sys.join("class/powercap");
        let domains = entries(&folder);
        let is_package = |path: &PathBuf| {
            let number = name(path).strip_prefix("intel-rapl:").unwrap_or("");
            let top = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            top && word(&path.join("name")).is_some_and(|name| name.starts_with("package"))
        };
        let mut packages = Vec::new();
        for path in domains.into_iter().filter(is_package) {
            let counter = path.join("energy_uj");
            let last = number(&counter).ok_or_else(|| unreadable(&counter))?;
            let range = number(&path.join("max_energy_range_uj"));
            packages.push(Package { counter, range, last });
        }
        match packages.is_empty() {
            true => Err(NoMeter(format!("no RAPL package in {}", folder.display()))),
            false => Ok(Rapl { packages, microjoules: 0 }),
        }
    }

    pub(super) fn joules(&mut self) -> Option<f64> {
        for package in &mut self.packages {
            let now = number(&package.counter)?;
            self.microjoules = self.microjoules.saturating_add(package.advance(now)?);
        }
        Some(self.microjoules as f64 / 1e6)
    }
}

impl Package {
    /// Microjoules since the last reading, at most one turn of the counter ago; `None` where it went back and
    /// nobody knows from where.
    fn advance(&mut self, now: u64) -> Option<u64> {
        let used = match now >= self.last {
            true => Some(now - self.last),
            false => self.range.map(|range| range.saturating_sub(self.last).saturating_add(now)),
        };
        self.last = now;
        used
    }
}

fn unreadable(counter: &std::path::Path) -> NoMeter {
    let reason = match std::fs::read(counter) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            "permission denied; only root may read it unless it is opened with chmod o+r".into()
        }
        Err(error) => error.to_string(),
        Ok(_) => "it holds no number".into(),
    };
    NoMeter(format!("{}: {reason}", counter.display()))
}
