//! From a hit rate to tokens per second.

use moescope_analysis::simulate::speed::{Machine, ModelBytes, Speed};

use crate::support::{SMALL, close, uniform};

const GB: f64 = 1e9;

/// 1 GB dense, 4 layers of 10 experts of 0.1 GB, 2 per token: 5 GB.
const MODEL: ModelBytes =
    ModelBytes { expert: 0.1 * GB, dense: GB, experts: 40, selected: 8, layers: 4 };

const MACHINE: Machine = Machine {
    vram: 4.0 * GB,
    reserved: 0.5 * GB,
    device_bandwidth: 100.0 * GB,
    link_bandwidth: 10.0 * GB,
    link_latency: 0.0,
    host_bandwidth: Some(50.0 * GB),
};

#[test]
fn by_hand() {
    let speed = Speed::new(MODEL, MACHINE);
    close(MODEL.total() / GB, 5.0);
    // 4 - 0.5 - 1 GB.
    assert_eq!(speed.experts_that_fit(), Some(25));
    // 1.8 GB at 100 GB/s.
    close(speed.device_seconds(), 0.018);
    close(speed.transfer_seconds(), 0.01);
    close(speed.tokens_per_second(1.0), 1.0 / 0.018);
    close(speed.tokens_per_second(0.0), 1.0 / 0.098);
    // 80 ms of transfers against 18: 1 - 18/80.
    close(speed.break_even(), 0.775);
    close(1.0 / speed.tokens_per_second(speed.break_even()), 0.036);
    // 20 tokens/s are 50 ms: 32 for the link, of 80.
    close(speed.hit_rate_for(20.0).unwrap(), 0.6);
    assert_eq!(speed.hit_rate_for(60.0), None);
    close(speed.hit_rate_for(5.0).unwrap(), 0.0);
    // 10 ms on the device and 0.8 GB at 50 GB/s on the host.
    close(speed.on_host().unwrap(), 1.0 / 0.026);
    // 26 ms against 18 without a miss: 8 for the link, of 80.
    close(speed.hit_rate_to_beat_host().unwrap(), 0.9);
    close(speed.tokens_per_second(0.9), 1.0 / 0.026);
    // A host that reads faster than the device: no cache is as fast. One that is slow: any is.
    let of_host = |host| {
        let host_bandwidth = Some(host * GB);
        Speed::new(MODEL, Machine { host_bandwidth, ..MACHINE }).hit_rate_to_beat_host()
    };
    assert_eq!(of_host(200.0), None);
    close(of_host(1.0).unwrap(), 0.0);
    let slow = Machine { link_latency: 0.01, host_bandwidth: None, ..MACHINE };
    close(Speed::new(MODEL, slow).transfer_seconds(), 0.02);
    assert_eq!(Speed::new(MODEL, slow).on_host(), None);
    assert_eq!(Speed::new(MODEL, slow).hit_rate_to_beat_host(), None);
}

#[test]
fn what_fits() {
    let fits = |vram: f64| Speed::new(MODEL, Machine { vram, ..MACHINE }).experts_that_fit();
    assert_eq!(fits(GB), None);
    assert_eq!(fits(1.5 * GB), Some(0));
    assert_eq!(fits(100.0 * GB), Some(40), "no more than there are");
    let fast = Machine { link_bandwidth: 1e15, ..MACHINE };
    close(Speed::new(MODEL, fast).break_even(), 0.0);
}

#[test]
fn bytes_from_a_manifest() {
    let mut manifest = uniform(SMALL, 1).manifest;
    assert_eq!(ModelBytes::of(&manifest), None, "ids alone say nothing of bytes");
    // Two layers of 16 experts, 2 each: 28 idle experts of 10 parameters, 4 active ones, 60 dense.
    manifest.model.total_parameters = 380;
    manifest.model.active_parameters = 100;
    manifest.model.bytes = 760;
    let bytes = ModelBytes::of(&manifest).unwrap();
    assert_eq!((bytes.experts, bytes.selected, bytes.layers), (32, 4, 2));
    close(bytes.expert, 20.0);
    close(bytes.dense, 120.0);
    close(bytes.total(), 760.0);
    // More active than there are.
    manifest.model.active_parameters = 400;
    assert_eq!(ModelBytes::of(&manifest), None);
}
