//! Forwards the bytes of one connection under the current rule of its pair.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::rules::{Party, Rule, RuleTable};

const CHUNK: usize = 64 * 1024;

/// The changing rule of one pair.
#[derive(Clone)]
struct PairRule {
    from: Party,
    to: Party,
    table: watch::Receiver<RuleTable>,
}

impl PairRule {
    fn current(&mut self) -> Rule {
        self.table.borrow_and_update().rule(&self.from, &self.to)
    }

    /// Waits until the rule satisfies `condition`. Never returns after the cluster is dropped.
    async fn until(&mut self, condition: impl Fn(Rule) -> bool) -> Rule {
        loop {
            let rule = self.current();
            if condition(rule) {
                return rule;
            }
            if self.table.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

/// Forwards a connection until one end or a rule closes it.
pub(super) async fn forward(
    inbound: TcpStream,
    target: SocketAddr,
    from: Party,
    to: Party,
    table: watch::Receiver<RuleTable>,
) {
    let mut rule = PairRule { from, to, table };
    if rule.until(|rule| rule != Rule::Hold).await == Rule::Cut {
        return;
    }
    let Ok(outbound) = TcpStream::connect(target).await else { return };
    // Small messages must not be delayed more than on a direct connection.
    let _ = inbound.set_nodelay(true);
    let _ = outbound.set_nodelay(true);
    let (in_read, in_write) = inbound.into_split();
    let (out_read, out_write) = outbound.into_split();
    let mut cut = rule.clone();
    tokio::select! {
        _ = pump(in_read, out_write, Direction::Request, rule.clone()) => {}
        _ = pump(out_read, in_write, Direction::Answer, rule) => {}
        _ = cut.until(|rule| rule == Rule::Cut) => {}
    }
}

/// Forwards one direction; returns when the connection must be closed.
async fn pump(
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    direction: Direction,
    mut rule: PairRule,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = read.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        match rule.until(|rule| rule != Rule::Hold).await {
            Rule::Cut => return Ok(()),
            Rule::LoseAnswers if direction == Direction::Answer => {
                return discard(read, chunk, rule).await;
            }
            Rule::Delay(time) => tokio::time::sleep(time).await,
            Rule::Pass | Rule::Hold | Rule::LoseAnswers => {}
        }
        write.write_all(&chunk[..length]).await?;
    }
}

/// Discards answers until the rule ends. A connection with a gap in its bytes is unusable and must be
/// closed then.
async fn discard(
    mut read: OwnedReadHalf,
    mut chunk: Vec<u8>,
    mut rule: PairRule,
) -> std::io::Result<()> {
    loop {
        tokio::select! {
            length = read.read(&mut chunk) => if length? == 0 { return Ok(()) },
            _ = rule.until(|rule| rule != Rule::LoseAnswers) => return Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
