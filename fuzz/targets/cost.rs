//! Searches for the requests with the highest cost for their size: guest instructions of the built suite in the meter's
//! interpreter. A request that costs more than its size allows is a finding.
#![no_main]

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use penstock_meter::{Guest, hostile};

/// libFuzzer keeps an input that sets one of these for the first time, as it does for newly reached code. One is set
/// for each step of instructions per byte, so that inputs which cost slightly more than all before are kept and mutated
/// further.
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static STEPS: [AtomicU8; 512] = [const { AtomicU8::new(0) }; 512];

thread_local! {
    static GUESTS: RefCell<Vec<Guest>> = RefCell::new(guests());
}

fn guests() -> Vec<Guest> {
    let dist = std::env::var_os("PENSTOCK_DIST").expect("PENSTOCK_DIST names the folder of the built modules");
    let suite = Path::new(&dist).join("suite.wasm");
    hostile::policies().iter().map(|policy| hostile::configured(&suite, policy).expect("it takes the policy")).collect()
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    GUESTS.with_borrow_mut(|guests| {
        let (policy, headers) = hostile::request(bytes, guests.len());
        let spent = hostile::cost(&mut guests[policy], &headers).expect("no trap");
        hostile::check(&spent, &headers).expect("within its bytes");
        // The fixed cost dominates small requests.
        let per_byte = 2 * spent.instructions / hostile::size(&headers).max(4096);
        let step = usize::try_from(per_byte).unwrap_or(usize::MAX).min(STEPS.len() - 1);
        STEPS[step].store(1, Ordering::Relaxed);
    });
});
