//! Keys on the command line: values separated by commas, in the order of the primary key.

use super::TextError;

/// Parses the values of one key. A value that contains a comma is enclosed in double quotes.
pub(crate) fn key_values(text: &str) -> Result<Vec<String>, TextError> {
    let mut values = Vec::new();
    let mut value = String::new();
    let mut chars = text.chars().enumerate().peekable();
    let mut quoted_since = None;
    while let Some((at, c)) = chars.next() {
        match (c, quoted_since) {
            ('"', Some(_)) if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                value.push('"');
                chars.next();
            }
            ('"', Some(_)) => {
                quoted_since = None;
                if chars.peek().is_some_and(|(_, next)| *next != ',') {
                    return Err(TextError::new(at + 2, "expected a comma after the closing quote"));
                }
            }
            ('"', None) if value.is_empty() => quoted_since = Some(at + 1),
            (',', None) => values.push(std::mem::take(&mut value)),
            _ => value.push(c),
        }
    }
    if let Some(position) = quoted_since {
        return Err(TextError::new(position, "the quote is not closed"));
    }
    values.push(value);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_values_are_separated_by_commas() {
        assert_eq!(key_values("EWR").unwrap(), ["EWR"]);
        assert_eq!(key_values("2013-01-01T10:00:00Z,UA,1545").unwrap().len(), 3);
        assert_eq!(key_values("a,,b").unwrap(), ["a", "", "b"]);
        assert_eq!(key_values("\"a,b\",c").unwrap(), ["a,b", "c"]);
        assert_eq!(key_values("\"say \"\"hi\"\"\"").unwrap(), ["say \"hi\""]);
    }

    #[test]
    fn unbalanced_quotes_report_their_position() {
        assert_eq!(key_values("x,\"a").unwrap_err().position, 3);
        assert_eq!(key_values("\"a\"b").unwrap_err().position, 4);
    }
}
