use super::*;
use penstock_host::testing::{self, FakeProxy, with as host};
use penstock_policy::state::{Key, State, Table, Unavailable, laws};

/// A worker of its own: in a proxy, another VM.
pub(super) struct Worker {
    store: Store,
    state: SharedState,
}

impl State for Worker {
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable> {
        self.state.update(&mut self.store, key, change).map_err(|_| Unavailable)
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
        self.state.read(&mut self.store, key, read).map_err(|_| Unavailable)
    }
}

fn worker_of(plugin: &[u8], tables: &[Table]) -> Worker {
    let mut state = SharedState::new(plugin, 0);
    state.set_tables(tables);
    Worker { store: Store::new(), state }
}

pub(super) fn worker(tables: &[Table]) -> Worker {
    worker_of(b"plugin", tables)
}

/// A policy with `number` tables of `slots` values, whose identities count from `first`.
fn policy(first: u64, number: u32, slots: u32) -> Vec<Table> {
    (0..number).map(|number| Table { identity: first + u64::from(number), number, slots }).collect()
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_le_bytes)
}

fn add(worker: &mut Worker, key: Key<'_>) -> Result<u64, Stopped> {
    worker.state.update(&mut worker.store, key, |old, new| {
        let sum = number(old) + 1;
        new.extend(sum.to_le_bytes());
        Change::Replace(sum)
    })
}

fn get(worker: &mut Worker, key: Key<'_>) -> u64 {
    worker.read(key, number).unwrap()
}

/// Another worker adds one to every value; or writes something else, so that the next token is not the one that was foretold.
fn somebody_adds(host: &mut FakeProxy) {
    let values: Vec<_> = host.shared.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
    for (key, mut value) in values.into_iter().filter(|(_, value)| value.len() == FRONT + 8) {
        let sum = number(&value[FRONT..]) + 1;
        value[FRONT..].copy_from_slice(&sum.to_le_bytes());
        host.set_shared(&key, &value);
    }
}

fn somebody_writes(host: &mut FakeProxy) {
    host.set_shared(b"something else", b"x");
}

fn size() -> usize {
    host(|host| host.shared.iter().map(|(key, (value, _))| key.len() + value.len()).sum())
}

const K: Key<'_> = Key::Named("k");

#[test]
fn shared_data_holds_to_the_laws_of_a_store() {
    laws::all(|tables| {
        testing::reset();
        [worker(tables), worker(tables)]
    });
}

#[test]
fn workers_that_race_lose_no_update() {
    testing::reset();
    let mut one = worker(&[]);
    assert_eq!(add(&mut one, K), Ok(1));
    let mut expected = 1;
    for round in 0..3_000_u32 {
        let (racers, sums): (&[fn(&mut FakeProxy)], u64) = match round % 7 {
            1 => (&[somebody_adds], 1),
            3 => (&[somebody_adds, somebody_writes], 1),
            4 => (&[somebody_writes], 0),
            5 => (&[somebody_adds, somebody_adds], 2),
            _ => (&[], 0),
        };
        host(|host| host.racers = racers.to_vec());
        // Each write that is lost lets the next racer come.
        expected += sums + 1;
        let sum = add(&mut one, K).unwrap();
        for racer in host(|host| std::mem::take(&mut host.racers)) {
            host(racer);
        }
        assert!(sum <= expected && sum + 2 >= expected, "{round}");
        assert_eq!(get(&mut one, K), expected, "{round}");
    }
}

#[test]
fn a_worker_that_is_alone_writes_without_reading() {
    testing::reset();
    let mut one = worker(&policy(1, 2, 8));
    for key in [K, Key::Slot(policy(1, 2, 8)[0], 0), Key::Slot(policy(1, 2, 8)[1], 7)] {
        add(&mut one, key).unwrap();
    }
    host(|host| host.calls.clear());
    for i in 2..500 {
        for key in [K, Key::Slot(policy(1, 2, 8)[0], 0), Key::Slot(policy(1, 2, 8)[1], 7)] {
            assert_eq!(add(&mut one, key), Ok(i));
        }
    }
    host(|host| assert!(host.calls.iter().all(|call| *call == "proxy_set_shared_data")));
}

#[test]
fn a_value_that_somebody_creates_in_between_is_not_overwritten() {
    testing::reset();
    host(|host| {
        host.racers.push(|host| {
            let (RawKey(key), owner) = worker(&[]).state.named("k");
            let value = [&MARK[..], &owner.to_le_bytes(), &41_u64.to_le_bytes()].concat();
            host.set_shared(&key, &value);
        });
    });
    assert_eq!(add(&mut worker(&[]), K), Ok(42));
}

#[test]
fn guesses_stop_where_they_are_mostly_wrong_and_come_back() {
    testing::reset();
    let mut one = worker(&[]);
    let mut conflicts = |rounds: u32, disturb: bool| {
        host(|host| host.conflicts = 0);
        for _ in 0..rounds {
            add(&mut one, K).unwrap();
            if disturb {
                host(somebody_adds);
            }
        }
        host(|host| host.conflicts)
    };
    assert!(conflicts(1000, true) <= 40);
    assert!(conflicts(1000, false) <= 10);
}

#[test]
fn a_writer_that_never_stops_is_given_up_on() {
    testing::reset();
    let mut one = worker(&[]);
    add(&mut one, K).unwrap();
    host(|host| host.racers = vec![somebody_adds; 3_000]);
    assert_eq!(add(&mut one, K), Err(Stopped::Contended));
}

#[test]
fn a_host_that_fails_is_named() {
    for function in ["proxy_get_shared_data", "proxy_set_shared_data"] {
        testing::reset();
        host(|host| host.broken.push((function, 10)));
        let failed = add(&mut worker(&[]), K).unwrap_err();
        assert!(matches!(failed, Stopped::Host(status) if status.code() == 10), "{failed:?}");
    }
}

#[test]
fn memory_of_a_worker_is_bounded() {
    testing::reset();
    let tables = policy(1, 1, 50_000);
    let mut one = worker(&tables);
    for i in 0..50_000_u32 {
        add(&mut one, Key::Slot(tables[0], i)).unwrap();
    }
    let large = one.update(K, |_, new| {
        new.extend([7; LARGEST + 1]);
        Change::Replace(())
    });
    assert_eq!(large, Ok(()));
    assert_eq!(one.store.places.len(), PLACES);
    assert!(one.store.places.iter().all(|place| place.value.len() <= LARGEST));
    // Nearly every place is in use, on every platform.
    assert!(one.store.places.iter().filter(|place| !place.value.is_empty()).count() > PLACES * 9 / 10);
}

#[test]
fn the_counter_of_tokens_may_wrap() {
    testing::reset();
    host(|host| host.token = u32::MAX - 3);
    let mut one = worker(&[]);
    for i in 1..=20 {
        assert_eq!(add(&mut one, K), Ok(i));
    }
}

#[test]
fn plugins_keep_their_values_apart() {
    testing::reset();
    let tables = policy(1, 1, 8);
    let (mut one, mut other) = (worker_of(b"one", &tables), worker_of(b"other", &tables));
    for key in [K, Key::Slot(tables[0], 3)] {
        assert_eq!((add(&mut one, key), add(&mut one, key), add(&mut other, key)), (Ok(1), Ok(2), Ok(1)));
    }
    host(|host| assert!(host.shared.keys().all(|key| key.starts_with(b"penstock.") && key.len() == 22)));
}

#[test]
fn what_strangers_write_is_not_used_and_counted() {
    let tables = policy(1, 1, 8);
    for foreign in [&b"x"[..], b"p1short", &[0; 100], b"p2........................."] {
        testing::reset();
        let mut one = worker(&tables);
        let slot = Key::Slot(tables[0], 3);
        assert_eq!((add(&mut one, K), add(&mut one, slot)), (Ok(1), Ok(1)));
        host(|host| {
            let keys: Vec<_> = host.shared.keys().cloned().collect();
            keys.iter().for_each(|key| host.set_shared(key, foreign));
        });
        let mut two = worker(&tables);
        assert_eq!((get(&mut two, K), add(&mut two, K), add(&mut two, slot)), (0, Ok(1), Ok(1)));
        assert_eq!((two.store.take_foreign(), two.store.take_foreign()), (4, 0), "{foreign:?}");
        assert_eq!((add(&mut one, K), add(&mut one, slot)), (Ok(2), Ok(2)));
    }
}

#[test]
fn nothing_is_written_before_a_table_is_used() {
    testing::reset();
    let tables = policy(1, 100, 8_192);
    let mut one = worker(&tables);
    for table in &tables {
        assert_eq!(get(&mut one, Key::Slot(*table, 9)), 0);
    }
    one.state.keep(&mut one.store).unwrap();
    host(|host| assert!(host.shared.is_empty()));
    add(&mut one, Key::Slot(tables[50], 9)).unwrap();
    // The directory and one value.
    host(|host| assert_eq!(host.shared.len(), 2));
}

#[test]
fn workers_find_each_others_values_whoever_comes_first() {
    testing::reset();
    let tables = policy(1, 50, 100);
    let mut workers = [worker(&tables), worker(&tables), worker(&tables)];
    for i in 0..300_usize {
        let key = Key::Slot(tables[i % 50], u32::try_from(i % 7).unwrap());
        let sums: Vec<_> = workers.iter_mut().map(|worker| add(worker, key).unwrap()).collect();
        assert_eq!(sums, [sums[0], sums[0] + 1, sums[0] + 2], "{i}");
    }
}

#[test]
fn a_reload_keeps_the_values_of_what_stays_and_gives_the_rest_to_what_comes() {
    testing::reset();
    let stays = Table { identity: 7, number: 0, slots: 100 };
    let mut first_size = 0;
    for round in 0..1_000_u64 {
        let mut tables = vec![stays];
        tables
            .extend(policy(1_000 + round * 50, 50, 8).iter().map(|table| Table { number: table.number + 1, ..*table }));
        // Two workers and requests in all tables.
        let mut workers = [worker(&tables), worker(&tables)];
        for table in &tables[1..] {
            for (i, worker) in (1..).zip(&mut workers) {
                assert_eq!(add(worker, Key::Slot(*table, 5)), Ok(i), "{round}: a new table is empty");
            }
        }
        let [one, other] = &mut workers;
        assert_eq!(add(one, Key::Slot(stays, 99)), Ok(2 * round + 1));
        assert_eq!(add(other, Key::Slot(stays, 99)), Ok(2 * round + 2));
        if round == 0 {
            first_size = size();
        }
    }
    assert!(size() <= 2 * first_size, "{} of {first_size}", size());
}

#[test]
fn a_policy_that_drains_keeps_its_values_while_others_come_and_go() {
    testing::reset();
    let old = policy(1, 3, 8);
    let mut drains = worker(&old);
    for round in 0..50_u64 {
        assert_eq!(add(&mut drains, Key::Slot(old[1], 2)), Ok(round + 1));
        let tables = policy(100 + round * 10, 5, 8);
        let mut comes = worker(&tables);
        for table in &tables {
            assert_eq!((add(&mut comes, Key::Slot(*table, 2)), add(&mut comes, Key::Slot(*table, 2))), (Ok(1), Ok(2)));
        }
        // A second passes.
        drains.state.keep(&mut drains.store).unwrap();
        if round % 2 == 0 {
            drains.store = Store::new();
        }
    }
}

#[test]
fn a_policy_that_was_displaced_never_touches_what_has_taken_its_place() {
    testing::reset();
    let policies: Vec<_> = (0..4).map(|i| policy(i * 10, 5, 8)).collect();
    let mut workers: Vec<_> = policies.iter().map(|tables| worker(tables)).collect();
    // Four reloads within a second: the first two make room.
    for (worker, tables) in workers.iter_mut().zip(&policies) {
        for table in tables {
            assert_eq!(add(worker, Key::Slot(*table, 0)), Ok(1));
        }
    }
    // The last two never notice; the first two begin anew once, behind them.
    for round in 1..10 {
        for ((worker, tables), first) in workers.iter_mut().zip(&policies).zip([0, 0, 1, 1]) {
            for table in tables {
                assert_eq!(add(worker, Key::Slot(*table, 0)), Ok(first + round));
            }
        }
    }
}
