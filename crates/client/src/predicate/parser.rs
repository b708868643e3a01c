//! Parser of conditions: predicates, checked against the table's columns.

use tidewater_common::schema::{Column, ColumnType, TableSchema};
use tidewater_proto::v1::{CompareOp, Predicate};

use super::lexer::{Token, Word, tokens};
use super::{PredicateError, PredicateProblem};
use crate::values::check_value;

/// Parses a condition. An empty text has no predicates.
///
/// # Errors
/// The problem and its position.
pub fn parse(schema: &TableSchema, text: &str) -> Result<Vec<Predicate>, PredicateError> {
    let mut parser = Parser { schema, tokens: tokens(text)?, at: 0, end: text.chars().count() + 1 };
    let mut predicates = Vec::new();
    if parser.tokens.is_empty() {
        return Ok(predicates);
    }
    loop {
        predicates.push(parser.term()?);
        if parser.tokens.len() == parser.at {
            return Ok(predicates);
        }
        if !parser.keyword("and") {
            if parser.keyword("or") {
                parser.at -= 1;
                return Err(parser.error(PredicateProblem::OnlyAnd));
            }
            return Err(parser.expected_error("`and`"));
        }
    }
}

struct Parser<'a> {
    schema: &'a TableSchema,
    tokens: Vec<Token>,
    at: usize,
    /// Position after the last character.
    end: usize,
}

impl Parser<'_> {
    fn term(&mut self) -> Result<Predicate, PredicateError> {
        let column = self.column()?;
        let (op, values) = if self.keyword("is") {
            let op = if self.keyword("not") { CompareOp::IsNotNull } else { CompareOp::IsNull };
            if !self.keyword("null") {
                return Err(self.expected_error("`null` or `not null`"));
            }
            (op, Vec::new())
        } else if self.keyword("in") {
            (CompareOp::In, self.list(&column)?)
        } else {
            let op = self.comparison()?;
            (op, vec![self.value(&column)?])
        };
        Ok(Predicate { column_id: column.id.get(), op: op.into(), values })
    }

    fn column(&mut self) -> Result<Column, PredicateError> {
        let name = match self.peek() {
            Some(Word::Bare(name)) if name.eq_ignore_ascii_case("not") => {
                return Err(self.error(PredicateProblem::OnlyAnd));
            }
            Some(Word::Sign("(")) => return Err(self.error(PredicateProblem::OnlyAnd)),
            Some(Word::Bare(name) | Word::Column(name) | Word::Text(name)) => name.clone(),
            _ => return Err(self.expected_error("a column")),
        };
        let Some(column) = self.schema.column_named(&name) else {
            let columns: Vec<&str> =
                self.schema.columns().iter().map(|column| column.name.as_str()).collect();
            let columns = columns.join(", ");
            return Err(self.error(PredicateProblem::UnknownColumn { column: name, columns }));
        };
        self.at += 1;
        Ok(column.clone())
    }

    fn comparison(&mut self) -> Result<CompareOp, PredicateError> {
        let op = match self.peek() {
            Some(Word::Sign("=")) => CompareOp::Eq,
            Some(Word::Sign("!=")) => CompareOp::Ne,
            Some(Word::Sign("<")) => CompareOp::Lt,
            Some(Word::Sign("<=")) => CompareOp::Le,
            Some(Word::Sign(">")) => CompareOp::Gt,
            Some(Word::Sign(">=")) => CompareOp::Ge,
            _ => return Err(self.expected_error("a comparison, `in` or `is`")),
        };
        self.at += 1;
        Ok(op)
    }

    fn list(&mut self, column: &Column) -> Result<Vec<String>, PredicateError> {
        if !self.sign("(") {
            return Err(self.expected_error("`(`"));
        }
        let mut values = vec![self.value(column)?];
        while self.sign(",") {
            values.push(self.value(column)?);
        }
        if !self.sign(")") {
            return Err(self.expected_error("`,` or `)`"));
        }
        Ok(values)
    }

    fn value(&mut self, column: &Column) -> Result<String, PredicateError> {
        let value = match self.peek() {
            Some(Word::Bare(word)) if word.eq_ignore_ascii_case("null") => {
                return Err(self.error(PredicateProblem::ComparedWithNull));
            }
            Some(Word::Bare(word)) if column.data_type == ColumnType::Utf8 => {
                let found = format!("{word} without quotes");
                let expected = "text in quotes";
                return Err(self.error(PredicateProblem::Expected { expected, found }));
            }
            Some(Word::Bare(value) | Word::Text(value)) => value.clone(),
            _ => return Err(self.expected_error("a value")),
        };
        if let Err(cause) = check_value(&column.data_type, &value) {
            return Err(self.error(PredicateProblem::Value {
                value,
                column: column.name.clone(),
                data_type: column.data_type.to_string(),
                cause,
            }));
        }
        self.at += 1;
        Ok(value)
    }

    fn peek(&self) -> Option<&Word> {
        self.tokens.get(self.at).map(|token| &token.word)
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let matches =
            matches!(self.peek(), Some(Word::Bare(word)) if word.eq_ignore_ascii_case(keyword));
        self.at += usize::from(matches);
        matches
    }

    fn sign(&mut self, sign: &str) -> bool {
        let matches = matches!(self.peek(), Some(Word::Sign(found)) if *found == sign);
        self.at += usize::from(matches);
        matches
    }

    fn expected_error(&self, expected: &'static str) -> PredicateError {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(Word::Bare(word) | Word::Column(word)) => format!("`{word}`"),
            Some(Word::Text(text)) => format!("the text {text:?}"),
            Some(Word::Sign(sign)) => format!("`{sign}`"),
        };
        self.error(PredicateProblem::Expected { expected, found })
    }

    fn error(&self, problem: PredicateProblem) -> PredicateError {
        let position = self.tokens.get(self.at).map_or(self.end, |token| token.position);
        PredicateError { position, problem }
    }
}
