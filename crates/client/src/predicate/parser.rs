//! Parser of conditions: turns tokens into predicates, checked against the table's columns.

use tidewater_common::read_arguments::{MAX_PREDICATES, ReadArgumentError, ValueCount};
use tidewater_common::schema::{Column, ColumnType, TableSchema};
use tidewater_proto::v1::{CompareOp, Predicate};

use super::lexer::{Token, Word, tokens};
use super::{PredicateError, PredicateProblem};
use crate::values::check_value;

/// Parses a condition. An empty text yields no predicates.
///
/// # Errors
/// The first problem of the text, with its position.
pub fn parse(schema: &TableSchema, text: &str) -> Result<Vec<Predicate>, PredicateError> {
    let end = text.chars().count() + 1;
    let values = ValueCount::default();
    let mut parser = Parser { schema, tokens: tokens(text)?, at: 0, end, values };
    let mut predicates = Vec::new();
    if parser.tokens.is_empty() {
        return Ok(predicates);
    }
    loop {
        if predicates.len() == MAX_PREDICATES {
            return Err(parser.error(ReadArgumentError::Predicates.into()));
        }
        predicates.push(parser.term()?);
        if parser.tokens.len() == parser.at {
            return Ok(predicates);
        }
        if !parser.take_keyword("and") {
            if parser.take_keyword("or") {
                parser.at -= 1;
                return Err(parser.error(PredicateProblem::OnlyAnd));
            }
            return Err(parser.expected("`and`"));
        }
    }
}

struct Parser<'a> {
    schema: &'a TableSchema,
    tokens: Vec<Token>,
    at: usize,
    /// Position after the last character, from 1.
    end: usize,
    /// Values so far.
    values: ValueCount,
}

impl Parser<'_> {
    fn term(&mut self) -> Result<Predicate, PredicateError> {
        let column = self.column()?;
        let (op, values) = if self.take_keyword("is") {
            let op =
                if self.take_keyword("not") { CompareOp::IsNotNull } else { CompareOp::IsNull };
            if !self.take_keyword("null") {
                return Err(self.expected("`null` or `not null`"));
            }
            (op, Vec::new())
        } else if self.take_keyword("in") {
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
            _ => return Err(self.expected("a column")),
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
            _ => return Err(self.expected("a comparison, `in` or `is`")),
        };
        self.at += 1;
        Ok(op)
    }

    fn list(&mut self, column: &Column) -> Result<Vec<String>, PredicateError> {
        if !self.take_sign("(") {
            return Err(self.expected("`(`"));
        }
        let mut values = vec![self.value(column)?];
        while self.take_sign(",") {
            values.push(self.value(column)?);
        }
        if !self.take_sign(")") {
            return Err(self.expected("`,` or `)`"));
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
            _ => return Err(self.expected("a value")),
        };
        if let Err(why) = check_value(&column.data_type, &value) {
            return Err(self.error(PredicateProblem::Value {
                value,
                column: column.name.clone(),
                data_type: column.data_type.to_string(),
                why,
            }));
        }
        self.values.add(&value).map_err(|error| self.error(error.into()))?;
        self.at += 1;
        Ok(value)
    }

    fn peek(&self) -> Option<&Word> {
        self.tokens.get(self.at).map(|token| &token.word)
    }

    /// Consumes the next word if it is this keyword; returns whether it was.
    fn take_keyword(&mut self, keyword: &str) -> bool {
        let matches =
            matches!(self.peek(), Some(Word::Bare(word)) if word.eq_ignore_ascii_case(keyword));
        self.at += usize::from(matches);
        matches
    }

    /// Consumes the next word if it is this sign; returns whether it was.
    fn take_sign(&mut self, sign: &str) -> bool {
        let matches = matches!(self.peek(), Some(Word::Sign(found)) if *found == sign);
        self.at += usize::from(matches);
        matches
    }

    fn expected(&self, expected: &'static str) -> PredicateError {
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
