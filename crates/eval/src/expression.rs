//! Arithmetic on exact integers: single operations, and expressions as a model writes them.
//!
//! The parser is the verifier of countdown answers, so it is strict and total: any text gives a value or a reason, in
//! time linear in its length, without recursion and without overflow.

use std::fmt;

/// Longest expression that is read, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 256;
/// Most digits of a number in an expression.
const DIGITS_MAX: usize = 9;

/// An operation of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
}

impl Op {
    /// All four.
    pub const ALL: [Op; 4] = [Op::Add, Op::Sub, Op::Mul, Op::Div];

    /// The value, if it is an integer that fits.
    pub fn apply(self, a: i64, b: i64) -> Option<i64> {
        match self {
            Op::Add => a.checked_add(b),
            Op::Sub => a.checked_sub(b),
            Op::Mul => a.checked_mul(b),
            Op::Div => (b != 0 && a.checked_rem(b)? == 0).then(|| a / b),
        }
    }

    /// `+`, `-`, `*` or `/`.
    pub fn sign(self) -> char {
        match self {
            Op::Add => '+',
            Op::Sub => '-',
            Op::Mul => '*',
            Op::Div => '/',
        }
    }

    fn of_sign(sign: char) -> Option<Op> {
        match sign {
            '+' => Some(Op::Add),
            '-' | '\u{2212}' => Some(Op::Sub),
            '*' | '\u{d7}' => Some(Op::Mul),
            '/' | '\u{f7}' => Some(Op::Div),
            _ => None,
        }
    }

    fn binds(self) -> u8 {
        if matches!(self, Op::Mul | Op::Div) { 2 } else { 1 }
    }
}

/// A true equation `a op b = value`; [`Step::new`] makes no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    a: i64,
    op: Op,
    b: i64,
    value: i64,
}

impl Step {
    /// The step, if its value is an integer.
    pub fn new(a: i64, op: Op, b: i64) -> Option<Step> {
        Some(Step { a, op, b, value: op.apply(a, b)? })
    }

    /// What it gives.
    pub fn value(&self) -> i64 {
        self.value
    }

    /// The operands and the operation.
    pub fn parts(&self) -> (i64, Op, i64) {
        (self.a, self.op, self.b)
    }
}

/// `12+7=19`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}={}", self.a, self.op.sign(), self.b, self.value)
    }
}

/// Why a text is no expression with an integer value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Nothing there.
    #[error("the expression is empty")]
    Empty,
    /// Over [`EXPRESSION_BYTES_MAX`].
    #[error("the expression has {0} bytes, the limit is {EXPRESSION_BYTES_MAX}")]
    TooLong(usize),
    /// A character that no expression has.
    #[error("{0:?} is no digit 0 to 9, operator + - * / or parenthesis")]
    Character(char),
    /// A number that is too long.
    #[error("a number has more than {DIGITS_MAX} digits")]
    Number,
    /// Operands, operators or parentheses that do not fit together.
    #[error("the expression is not well formed")]
    Form,
    /// A division that leaves a remainder, or by zero.
    #[error("a division is by zero or leaves a remainder")]
    Division,
    /// A value beyond 64 bits.
    #[error("a value is too large")]
    Overflow,
}

/// An expression that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Its value.
    pub value: i64,
    /// The numbers in it, in order.
    pub numbers: Vec<u32>,
    /// How many operations it has.
    pub operations: usize,
}

/// Reads an expression of non-negative integers, `+ - * /` (also `×`, `÷`, `−`) and parentheses; spaces are free
/// between the parts. There is no sign before a number. Every division must be exact.
pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(ExpressionError::TooLong(text.len()));
    }
    let mut reader = Reader::default();
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            ' ' => {}
            '0'..='9' => {
                let mut digits = String::from(c);
                while let Some(&next @ '0'..='9') = characters.peek() {
                    digits.push(next);
                    characters.next();
                }
                reader.number(&digits)?;
            }
            '(' => reader.open()?,
            ')' => reader.close()?,
            _ => reader.operator(Op::of_sign(c).ok_or(ExpressionError::Character(c))?)?,
        }
    }
    reader.finish()
}

/// Dijkstra's two stacks.
#[derive(Default)]
struct Reader {
    values: Vec<i64>,
    /// `None` is an open parenthesis.
    operators: Vec<Option<Op>>,
    numbers: Vec<u32>,
    operations: usize,
    /// The last part was a number or a closing parenthesis.
    after_value: bool,
}

impl Reader {
    fn number(&mut self, digits: &str) -> Result<(), ExpressionError> {
        if self.after_value {
            return Err(ExpressionError::Form);
        }
        if digits.len() > DIGITS_MAX {
            return Err(ExpressionError::Number);
        }
        let number: u32 = digits.parse().map_err(|_| ExpressionError::Number)?;
        self.numbers.push(number);
        self.values.push(i64::from(number));
        self.after_value = true;
        Ok(())
    }

    fn open(&mut self) -> Result<(), ExpressionError> {
        if self.after_value {
            return Err(ExpressionError::Form);
        }
        self.operators.push(None);
        Ok(())
    }

    fn close(&mut self) -> Result<(), ExpressionError> {
        if !self.after_value {
            return Err(ExpressionError::Form);
        }
        loop {
            match self.operators.pop() {
                Some(Some(op)) => self.apply(op)?,
                Some(None) => return Ok(()),
                None => return Err(ExpressionError::Form),
            }
        }
    }

    fn operator(&mut self, op: Op) -> Result<(), ExpressionError> {
        if !self.after_value {
            return Err(ExpressionError::Form);
        }
        while let Some(&Some(before)) = self.operators.last() {
            if before.binds() < op.binds() {
                break;
            }
            self.operators.pop();
            self.apply(before)?;
        }
        self.operators.push(Some(op));
        self.after_value = false;
        Ok(())
    }

    fn apply(&mut self, op: Op) -> Result<(), ExpressionError> {
        let (Some(b), Some(a)) = (self.values.pop(), self.values.pop()) else { return Err(ExpressionError::Form) };
        let wrong = if op == Op::Div { ExpressionError::Division } else { ExpressionError::Overflow };
        self.values.push(op.apply(a, b).ok_or(wrong)?);
        self.operations += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Expression, ExpressionError> {
        if self.numbers.is_empty() && self.operators.is_empty() {
            return Err(ExpressionError::Empty);
        }
        if !self.after_value {
            return Err(ExpressionError::Form);
        }
        while let Some(op) = self.operators.pop() {
            self.apply(op.ok_or(ExpressionError::Form)?)?;
        }
        match self.values[..] {
            [value] => Ok(Expression { value, numbers: self.numbers, operations: self.operations }),
            _ => Err(ExpressionError::Form),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Result<i64, ExpressionError> {
        parse(text).map(|expression| expression.value)
    }

    #[test]
    fn values() {
        assert_eq!(value("(12-4)*3"), Ok(24));
        assert_eq!(value(" 2 + 3*4 - 8/2/2 "), Ok(12));
        assert_eq!(value("((((7))))"), Ok(7));
        assert_eq!(value("3×4÷2−1"), Ok(5));
        assert_eq!(value("2-3-4"), Ok(-5));
        assert_eq!(parse("(1+2)*1").unwrap().numbers, [1, 2, 1]);
        assert_eq!(parse("(1+2)*1").unwrap().operations, 2);
    }

    #[test]
    fn what_is_no_expression() {
        use ExpressionError::*;
        let cases = [
            ("", Empty),
            ("  ", Empty),
            ("7/2", Division),
            ("7/(3-3)", Division),
            ("1+", Form),
            ("-1", Form),
            ("1 2", Form),
            ("(1+2", Form),
            ("1+2)", Form),
            ("()", Form),
            ("(1)(2)", Form),
            ("2**3", Form),
            ("٣+٤", Character('٣')),
            ("1=1", Character('=')),
            ("1+2\n", Character('\n')),
            ("9999999999", Number),
            ("999999999*999999999*999999999", Overflow),
        ];
        for (text, error) in cases {
            assert_eq!(value(text), Err(error), "{text:?}");
        }
        assert_eq!(value(&"(".repeat(300)), Err(TooLong(300)));
        assert_eq!(value(&"(".repeat(200)), Err(Form));
    }

    /// Fully parenthesised text of a random tree and its value by direct calculation.
    fn tree() -> impl Strategy<Value = (String, Option<i64>)> {
        let leaf = (0u32..1000).prop_map(|n| (n.to_string(), Some(i64::from(n))));
        leaf.prop_recursive(4, 12, 2, |inner| {
            (inner.clone(), prop::sample::select(Op::ALL.to_vec()), inner).prop_map(|((a, x), op, (b, y))| {
                (format!("({a}{}{b})", op.sign()), x.zip(y).and_then(|(x, y)| op.apply(x, y)))
            })
        })
    }

    proptest! {
        #[test]
        fn trees_have_their_value((text, direct) in tree()) {
            if text.len() <= EXPRESSION_BYTES_MAX {
                prop_assert_eq!(value(&text).ok(), direct);
            }
        }

        #[test]
        fn any_text_gives_a_value_or_a_reason(text in "[0-9+*/() x=٣.-]{0,40}") {
            let _ = parse(&text);
        }
    }
}
