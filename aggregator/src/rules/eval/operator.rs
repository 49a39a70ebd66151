//! The binary operators on two numbers, as Go computes them.

use promql_parser::parser::token::{self, TokenType};

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rules) enum Op {
    /// Gives a number.
    Arithmetic(Arithmetic),
    /// Gives yes or no.
    Compare(Compare),
    /// Works on labels alone.
    Set(Set),
}

/// Operators that give a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rules) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
}

/// Operators that give yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rules) enum Compare {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
}

/// Operators on labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rules) enum Set {
    And,
    Or,
    Unless,
}

/// The operator of a token, if the evaluator knows it.
pub(in crate::rules) fn operator(token: TokenType) -> Option<Op> {
    Some(match token.id() {
        token::T_ADD => Op::Arithmetic(Arithmetic::Add),
        token::T_SUB => Op::Arithmetic(Arithmetic::Sub),
        token::T_MUL => Op::Arithmetic(Arithmetic::Mul),
        token::T_DIV => Op::Arithmetic(Arithmetic::Div),
        token::T_MOD => Op::Arithmetic(Arithmetic::Mod),
        token::T_POW => Op::Arithmetic(Arithmetic::Pow),
        token::T_ATAN2 => Op::Arithmetic(Arithmetic::Atan2),
        token::T_EQLC => Op::Compare(Compare::Equal),
        token::T_NEQ => Op::Compare(Compare::NotEqual),
        token::T_GTR => Op::Compare(Compare::Greater),
        token::T_LSS => Op::Compare(Compare::Less),
        token::T_GTE => Op::Compare(Compare::GreaterOrEqual),
        token::T_LTE => Op::Compare(Compare::LessOrEqual),
        token::T_LAND => Op::Set(Set::And),
        token::T_LOR => Op::Set(Set::Or),
        token::T_LUNLESS => Op::Set(Set::Unless),
        _ => return None,
    })
}

impl Op {
    /// As it is written.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Arithmetic(Arithmetic::Add) => "+",
            Self::Arithmetic(Arithmetic::Sub) => "-",
            Self::Arithmetic(Arithmetic::Mul) => "*",
            Self::Arithmetic(Arithmetic::Div) => "/",
            Self::Arithmetic(Arithmetic::Mod) => "%",
            Self::Arithmetic(Arithmetic::Pow) => "^",
            Self::Arithmetic(Arithmetic::Atan2) => "atan2",
            Self::Compare(Compare::Equal) => "==",
            Self::Compare(Compare::NotEqual) => "!=",
            Self::Compare(Compare::Greater) => ">",
            Self::Compare(Compare::Less) => "<",
            Self::Compare(Compare::GreaterOrEqual) => ">=",
            Self::Compare(Compare::LessOrEqual) => "<=",
            Self::Set(Set::And) => "and",
            Self::Set(Set::Or) => "or",
            Self::Set(Set::Unless) => "unless",
        }
    }
}

impl Arithmetic {
    /// The number.
    pub(super) fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Sub => left - right,
            Self::Mul => left * right,
            Self::Div => left / right,
            Self::Mod => left % right,
            Self::Pow => left.powf(right),
            Self::Atan2 => left.atan2(right),
        }
    }
}

impl Compare {
    /// Yes or no; a NaN is not even equal to itself.
    #[expect(clippy::float_cmp, reason = "PromQL compares floats bit by bit")]
    pub(super) fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => left > right,
            Self::Less => left < right,
            Self::GreaterOrEqual => left >= right,
            Self::LessOrEqual => left <= right,
        }
    }
}
