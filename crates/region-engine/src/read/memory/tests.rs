use std::time::Duration;

use super::budget::UNIT;
use super::*;
use crate::EngineError;

const WAIT: Duration = Duration::from_secs(10);
const KIB: u64 = 1_024;

fn budget(units: u64) -> Arc<ByteBudget> {
    let name = BudgetName { scope: BudgetScope::Node, memory_use: MemoryUse::Sources };
    ByteBudget::new(units * UNIT, name)
}

#[tokio::test(start_paused = true)]
async fn lease_is_charged_until_it_is_dropped() {
    let whole = budget(100);
    let nested = NestedBudgets::new([whole.clone()]);
    let lease = nested.lease(10 * UNIT, 10 * UNIT, WAIT).await.unwrap();
    assert_eq!((lease.bytes(), whole.used()), (10 * UNIT, 10 * UNIT));
    drop(lease);
    assert_eq!(whole.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn scan_leaves_a_quarter_of_the_free_bytes() {
    let whole = budget(100);
    let nested = NestedBudgets::new([whole.clone()]);
    let lease = async |least, want| nested.lease(least * UNIT, want * UNIT, WAIT).await.unwrap();
    let first = lease(5, 1_000).await;
    let second = lease(5, 1_000).await;
    // More than that, if it does not suffice otherwise.
    let third = lease(5, 1_000).await;
    let held = [first.bytes(), second.bytes(), third.bytes()].map(|bytes| bytes / UNIT);
    assert_eq!(held, [75, 18, 5]);
    drop(first);
    assert_eq!(lease(5, 7).await.bytes(), 7 * UNIT);
}

#[tokio::test(start_paused = true)]
async fn scan_without_memory_is_refused_after_its_wait() {
    let whole = budget(10);
    let nested = NestedBudgets::new([whole.clone()]);
    let held = nested.lease(10 * UNIT, 10 * UNIT, WAIT).await.unwrap();
    let begun = tokio::time::Instant::now();
    let refused = nested.lease(UNIT, UNIT, WAIT).await.unwrap_err();
    assert!(matches!(refused, EngineError::ScanMemory { needed: UNIT, .. }), "{refused}");
    assert_eq!(begun.elapsed(), WAIT);
    let waiting = {
        let nested = nested.clone();
        tokio::spawn(async move { nested.lease(UNIT, 8 * UNIT, WAIT).await })
    };
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap().bytes(), UNIT);
}

#[tokio::test(start_paused = true)]
async fn caller_cannot_take_the_memory_of_others() {
    let whole = budget(100);
    let [one, other] = [budget(50), budget(50)].map(|own| NestedBudgets::new([own, whole.clone()]));
    let mut held = Vec::new();
    while let Ok(lease) = one.lease(5 * UNIT, 5 * UNIT, Duration::ZERO).await {
        held.push(lease);
    }
    assert_eq!(whole.used(), 50 * UNIT);
    // Requests of the first caller that wait do not delay the second.
    let waiting = tokio::spawn({
        let one = one.clone();
        async move { one.lease(40 * UNIT, 40 * UNIT, WAIT).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let begun = tokio::time::Instant::now();
    assert_eq!(other.lease(5 * UNIT, 5 * UNIT, WAIT).await.unwrap().bytes(), 5 * UNIT);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    drop(held);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn far_too_large_lease_is_refused() {
    let whole = budget(10);
    let nested = NestedBudgets::new([budget(5), whole.clone()]);
    let large = nested.lease(40 * UNIT, 40 * UNIT, WAIT).await.unwrap();
    assert_eq!((large.bytes(), whole.used()), (40 * UNIT, 10 * UNIT));
    assert!(nested.lease(UNIT, UNIT, Duration::ZERO).await.is_err());
    drop(large);
    let refused = nested.lease(41 * UNIT, 41 * UNIT, WAIT).await.unwrap_err();
    assert!(matches!(refused, EngineError::ScanTooLarge { .. }), "{refused}");
    assert_eq!(whole.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn error_names_the_exhausted_budget() {
    use BudgetScope::{Connection, Network, Node};
    let memory = ScanMemory::new(800 * UNIT);
    let budgets = |of: fn(&ScanMemory) -> &Arc<ByteBudget>, own: u64, network: u64| {
        let own = of(&memory).part(own * UNIT, Connection);
        let network = of(&memory).part(network * UNIT, Network);
        NestedBudgets::new([own, network, of(&memory).clone()])
    };
    let full = |memory_use, scope| BudgetName { scope, memory_use };
    let cases = [
        (
            budgets(ScanMemory::sources, 5, 9),
            full(MemoryUse::Sources, Connection),
            5,
            "on this connection",
        ),
        (
            budgets(ScanMemory::sources, 9, 5),
            full(MemoryUse::Sources, Network),
            5,
            "smaller key ranges",
        ),
        (
            budgets(ScanMemory::sources, 500, 500),
            full(MemoryUse::Sources, Node),
            400,
            "on this node",
        ),
        (
            budgets(ScanMemory::arguments, 200, 200),
            full(MemoryUse::Arguments, Node),
            100,
            "shorten the lists",
        ),
        (
            budgets(ScanMemory::messages, 5, 9),
            full(MemoryUse::Messages, Connection),
            5,
            "read or close",
        ),
    ];
    for (budgets, expected, units, part) in cases {
        let _held = budgets.lease(units * UNIT, 0, WAIT).await.unwrap();
        let refused = budgets.lease(UNIT, UNIT, WAIT).await.unwrap_err();
        let EngineError::ScanMemory { limit, budget, .. } = refused else { panic!("{refused}") };
        assert_eq!((budget, limit), (expected, units * UNIT));
        assert!(refused.to_string().contains(part), "{refused}");
    }
}

#[tokio::test]
async fn default_account_is_unlimited() {
    let account = ScanAccount::default();
    assert_eq!(account.sources.limit(), u64::MAX);
    let lease = account.sources.lease(1, 10, Duration::ZERO).await.unwrap();
    assert_eq!(lease.bytes(), u64::MAX);
    let renewed = account.sources.renew(Some(lease), 1, 5, Duration::ZERO).await.unwrap();
    assert_eq!(renewed.bytes(), u64::MAX);
}

#[tokio::test]
async fn granted_memory_is_not_charged_again() {
    let account = NestedBudgets::granted(100 * UNIT);
    assert_eq!(account.limit(), 100 * UNIT);
    // All of it: no later scan needs a part.
    let lease = account.lease(UNIT, 10 * UNIT, Duration::ZERO).await.unwrap();
    assert_eq!(lease.bytes(), 100 * UNIT);
    let lease = account.renew(Some(lease), 90 * UNIT, 300 * UNIT, Duration::ZERO).await.unwrap();
    assert_eq!(lease.bytes(), 100 * UNIT);
    // The least, if that is more.
    let lease = account.renew(Some(lease), 120 * UNIT, 300 * UNIT, Duration::ZERO).await.unwrap();
    assert_eq!(lease.bytes(), 120 * UNIT);
}

#[tokio::test]
async fn arguments_sources_and_messages_have_separate_budgets() {
    let memory = ScanMemory::new(64 * KIB);
    assert_eq!(memory.limit(), 64 * KIB);
    let account = memory.account();
    let _sources = account.sources.lease(32 * KIB, 32 * KIB, Duration::ZERO).await.unwrap();
    let _message = account.messages.lease(24 * KIB, 24 * KIB, Duration::ZERO).await.unwrap();
    let _arguments = account.arguments.lease(8 * KIB, 8 * KIB, Duration::ZERO).await.unwrap();
    assert_eq!(memory.used(), 64 * KIB);
    for budgets in [&account.arguments, &account.sources, &account.messages] {
        assert!(budgets.lease(1, 1, Duration::ZERO).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn renewed_lease_is_kept_while_others_wait() {
    let whole = budget(100);
    let nested = NestedBudgets::new([whole.clone()]);
    let held = nested.lease(60 * UNIT, 60 * UNIT, WAIT).await.unwrap();
    let waiting = tokio::spawn({
        let nested = nested.clone();
        async move { nested.lease(90 * UNIT, 90 * UNIT, WAIT).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let begun = tokio::time::Instant::now();
    let held = nested.renew(Some(held), 50 * UNIT, 80 * UNIT, WAIT).await.unwrap();
    assert_eq!((held.bytes(), begun.elapsed()), (60 * UNIT, Duration::ZERO));
    // Released before the wait: the scan does not wait for its own lease.
    let renewed = nested.renew(Some(held), 70 * UNIT, 70 * UNIT, WAIT).await.unwrap();
    assert_eq!((renewed.bytes(), whole.used()), (70 * UNIT, 70 * UNIT));
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn renewed_lease_follows_the_need() {
    let whole = budget(100);
    let nested = NestedBudgets::new([budget(80), whole.clone()]);
    let held = nested.lease(20 * UNIT, 20 * UNIT, WAIT).await.unwrap();
    let held = nested.renew(Some(held), 4 * UNIT, 6 * UNIT, WAIT).await.unwrap();
    assert_eq!((held.bytes(), whole.used()), (6 * UNIT, 6 * UNIT));
    let held = nested.renew(Some(held), 4 * UNIT, 30 * UNIT, WAIT).await.unwrap();
    assert_eq!((held.bytes(), whole.used()), (30 * UNIT, 30 * UNIT));
    drop(held);
    assert_eq!(whole.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_scan_at_a_time_exceeds_the_budget() {
    let nested = NestedBudgets::new([budget(100)]);
    let _leases = [nested.lease(100 * UNIT, 0, WAIT).await.unwrap()];
    let [one, other] = [(); 2].map(|()| Excess::new(nested.clone()));
    assert!(!one.is_held());
    let first = one.charge(30 * UNIT, WAIT).await.unwrap();
    assert!(one.is_held());
    let second = one.charge(30 * UNIT, WAIT).await.unwrap();
    let begun = tokio::time::Instant::now();
    let refused = other.charge(UNIT, WAIT).await.unwrap_err();
    assert!(matches!(refused, EngineError::ScanMemory { .. }), "{refused}");
    assert_eq!(begun.elapsed(), WAIT);
    let refused = one.charge(341 * UNIT, WAIT).await.unwrap_err();
    assert!(matches!(refused, EngineError::ScanTooLarge { .. }), "{refused}");
    drop(first);
    assert!(other.charge(UNIT, Duration::ZERO).await.is_err(), "a part is held");
    drop(second);
    assert!(!one.is_held());
    let _excess = other.charge(UNIT, WAIT).await.unwrap();
    assert!(one.charge(UNIT, Duration::ZERO).await.is_err(), "the other scan exceeds the budget");
}

#[tokio::test(start_paused = true)]
async fn larger_rows_are_charged_to_the_budget_first() {
    let whole = budget(100);
    let nested = NestedBudgets::new([whole.clone()]);
    let extra = Excess::new(nested.clone()).charge(30 * UNIT, WAIT).await.unwrap();
    assert_eq!(whole.used(), 30 * UNIT);
    drop(extra);
    assert_eq!(whole.used(), 0);
}
