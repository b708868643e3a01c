use std::time::Duration;

use super::*;

fn limits(most_open: usize) -> ScanLimits {
    ScanLimits::new(most_open, Arc::new(ScanMemory::new(16 << 20)))
}

fn peer(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

/// Opens scans of a caller until one is refused.
fn fill(limits: &ScanLimits, from: Option<SocketAddr>) -> (Vec<OpenScan>, Refusal) {
    let mut open = Vec::new();
    loop {
        match limits.admit(from) {
            Ok(scan) => open.push(scan),
            Err(refusal) => return (open, refusal),
        }
    }
}

#[test]
fn connection_cannot_open_all_scans() {
    let limits = limits(16);
    let (first, refusal) = fill(&limits, peer("10.0.0.1:5000"));
    assert_eq!(first.len(), 8);
    assert_eq!(refusal.reason, Reason::Overloaded);
    assert!(refusal.message.contains("8 scans are open on this connection"), "{refusal}");
    assert!(refusal.retry_after.is_some());
    let (second, refusal) = fill(&limits, peer("10.0.0.1:5001"));
    assert_eq!(second.len(), 6);
    assert!(refusal.message.contains("14 scans are open from this network"), "{refusal}");
    let (other, refusal) = fill(&limits, peer("10.0.0.2:5000"));
    assert_eq!(other.len(), 2);
    assert!(refusal.message.contains("16 scans are open on this node"), "{refusal}");
    drop(first);
    assert!(limits.admit(peer("10.0.0.1:5000")).is_ok());
}

#[test]
fn shares_end_with_the_scans_of_their_callers() {
    let limits = limits(1_000);
    for port in 1..=500 {
        let _open = limits.admit(peer(&format!("10.0.0.1:{port}"))).unwrap();
    }
    assert!(limits.callers.lock().len() <= 2, "{}", limits.callers.lock().len());
    assert_eq!(limits.open.available_permits(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn connection_cannot_take_all_memory() {
    let limits = limits(16);
    let hold = async |from: &str| {
        let scan = limits.admit(peer(from)).unwrap();
        let mut leases = Vec::new();
        while let Ok(lease) = scan.account.sources.lease(1 << 20, 0, Duration::ZERO).await {
            leases.push(lease);
        }
        (scan, leases)
    };
    let first = hold("10.0.0.1:5000").await;
    let second = hold("10.0.0.1:5001").await;
    let other = hold("10.0.0.2:5000").await;
    assert_eq!([first.1.len(), second.1.len(), other.1.len()], [4, 3, 1]);
}
