//! Addresses of nodes: host:port.

/// Maximum length of an address, in bytes.
const MAX_LENGTH: usize = 512;

/// Error: a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use host:port, for example 10.0.0.1:7400 or meta-1.example.com:7400")]
pub struct AddressError;

/// Returns whether a text has the form host:port. The meta group's replicas decide by it which commands
/// they apply, so it must not become stricter without a feature level.
pub fn is_address(address: &str) -> bool {
    address.len() <= MAX_LENGTH
        && address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}

/// Parses an address given by an operator; space around it is ignored.
///
/// # Errors
/// [`AddressError`]: the text is not host:port, or no host name has such characters.
pub fn parse_address(text: &str) -> Result<String, AddressError> {
    let address = text.trim();
    let is_foreign = |c: char| c.is_whitespace() || c.is_control() || "/@?#\\".contains(c);
    if is_address(address) && !address.contains(is_foreign) && has_plain_parts(address) {
        Ok(address.to_owned())
    } else {
        Err(AddressError)
    }
}

/// Returns whether the port consists of digits, and an IPv6 address as host is in brackets.
fn has_plain_parts(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        port.bytes().all(|byte| byte.is_ascii_digit()) && (bracketed || !host.contains(':'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_address_accepts_host_and_port_only() {
        for address in ["a:1", "127.0.0.1:7400", "[::1]:65535", " meta-1.example.com:7400 "] {
            assert_eq!(parse_address(address).as_deref(), Ok(address.trim()));
        }
        let long = format!("{}:1", "a".repeat(MAX_LENGTH));
        let refused = [
            "",
            "a",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "no address:1",
            "http://a:1",
            "x@a:1",
            "a:+7400",
            "::1:7400",
            &long,
        ];
        for address in refused {
            assert_eq!(parse_address(address), Err(AddressError), "{address}");
        }
    }
}
