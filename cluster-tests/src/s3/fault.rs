//! What the S3 endpoint can be made to do.

/// What happens to a request that a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing special.
    None,
    /// The connection is closed before anything was done.
    Down,
    /// It is carried out; the answer is 500.
    ErrorAfter,
    /// It is carried out; the connection is closed without an answer.
    CloseAfter,
    /// Nothing is done; the answer is 409.
    Conflict,
    /// Nothing is done until another fault replaces this one, or none; then it is carried out.
    Hold,
    /// It is carried out; the answer waits as with [`Hold`](Self::Hold).
    HoldAfter,
    /// Conditional puts overwrite silently.
    Unconditional,
}

/// A fault and the requests that it strikes.
#[derive(Debug, Clone)]
pub struct Fault {
    mode: Mode,
    method: Option<&'static str>,
    contains: Option<&'static str>,
    node: Option<String>,
    times: Option<u32>,
}

impl Fault {
    /// Strikes every request, until another fault replaces it.
    pub fn of(mode: Mode) -> Self {
        Self { mode, method: None, contains: None, node: None, times: None }
    }

    /// Strikes only puts.
    #[must_use]
    pub fn on_puts(mut self) -> Self {
        self.method = Some("PUT");
        self
    }

    /// Strikes only requests whose path and query contain `text` (not escaped: plain letters).
    #[must_use]
    pub fn on_path(mut self, text: &'static str) -> Self {
        self.contains = Some(text);
        self
    }

    /// Strikes only requests of this node.
    #[must_use]
    pub fn of_node(mut self, name: &str) -> Self {
        self.node = Some(name.to_owned());
        self
    }

    /// Strikes so many requests and no more.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// The path and query of the control request.
    pub(super) fn path(&self) -> String {
        let mode = match self.mode {
            Mode::None => "none",
            Mode::Down => "down",
            Mode::ErrorAfter => "error_after",
            Mode::CloseAfter => "close_after",
            Mode::Conflict => "conflict",
            Mode::Hold => "hold",
            Mode::HoldAfter => "hold_after",
            Mode::Unconditional => "unconditional",
        };
        let mut path = format!("/_fault?mode={mode}");
        if let Some(method) = self.method {
            path.push_str(&format!("&method={method}"));
        }
        if let Some(text) = self.contains {
            path.push_str(&format!("&contains={text}"));
        }
        if let Some(node) = &self.node {
            path.push_str(&format!("&key={node}"));
        }
        if let Some(times) = self.times {
            path.push_str(&format!("&times={times}"));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_what_it_strikes() {
        assert_eq!(Fault::of(Mode::Down).path(), "/_fault?mode=down");
        assert_eq!(
            Fault::of(Mode::ErrorAfter).on_puts().on_path("manifest").times(3).path(),
            "/_fault?mode=error_after&method=PUT&contains=manifest&times=3"
        );
        assert_eq!(
            Fault::of(Mode::Hold).of_node("compactor-1").path(),
            "/_fault?mode=hold&key=compactor-1"
        );
    }
}
