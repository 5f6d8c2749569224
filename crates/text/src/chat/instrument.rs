//! Rewrites a template so that everything that looks at characters goes through our functions.
//!
//! The template is parsed, and its syntax tree is printed again as a template in which comparisons, containment,
//! concatenation, look-ups and method calls are calls of functions whose names begin with `__` (see
//! [`super::functions`]). White-space control happens in the parser, so the printed template needs none.

use std::fmt::Write;

use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, Macro, Stmt, UnaryOpKind};
use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Deepest nesting of statements and expressions.
const MAX_DEPTH: usize = 120;

/// The template as one that calls our functions.
pub(crate) fn instrument(source: &str, syntax: SyntaxConfig) -> Result<String, Error> {
    let tree = parse(source, "chat_template", syntax)?;
    let mut printer = Printer { out: String::with_capacity(source.len() * 2), depth: 0 };
    printer.statement(&tree)?;
    Ok(printer.out)
}

struct Printer {
    out: String,
    depth: usize,
}

type Done = Result<(), Error>;

fn refuse(what: &str) -> Error {
    Error::new(ErrorKind::SyntaxError, format!("chat templates cannot use {what}"))
}

impl Printer {
    fn deeper(&mut self, print: impl FnOnce(&mut Self) -> Done) -> Done {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(refuse("more than 120 levels of nesting"));
        }
        let done = print(self);
        self.depth -= 1;
        done
    }

    fn text(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn body(&mut self, body: &[Stmt<'_>]) -> Done {
        body.iter().try_for_each(|statement| self.deeper(|this| this.statement(statement)))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Done {
        match statement {
            Stmt::Template(template) => self.body(&template.children)?,
            Stmt::EmitRaw(raw) => {
                self.text("{{ ");
                self.string(raw.raw);
                self.text(" }}");
            }
            Stmt::EmitExpr(emit) => {
                self.text("{{ ");
                self.expression(&emit.expr)?;
                self.text(" }}");
            }
            Stmt::ForLoop(for_loop) => {
                self.text("{% for ");
                self.target(&for_loop.target)?;
                self.text(" in __charge(");
                self.expression(&for_loop.iter)?;
                self.text(")");
                if let Some(filter) = &for_loop.filter_expr {
                    self.text(" if ");
                    self.expression(filter)?;
                }
                self.text(if for_loop.recursive { " recursive %}" } else { " %}" });
                self.body(&for_loop.body)?;
                if !for_loop.else_body.is_empty() {
                    self.text("{% else %}");
                    self.body(&for_loop.else_body)?;
                }
                self.text("{% endfor %}");
            }
            Stmt::IfCond(condition) => {
                self.text("{% if ");
                self.expression(&condition.expr)?;
                self.text(" %}");
                self.body(&condition.true_body)?;
                if !condition.false_body.is_empty() {
                    self.text("{% else %}");
                    self.body(&condition.false_body)?;
                }
                self.text("{% endif %}");
            }
            Stmt::WithBlock(with) => {
                self.text("{% with ");
                for (index, (target, value)) in with.assignments.iter().enumerate() {
                    self.text(if index > 0 { ", " } else { "" });
                    self.target(target)?;
                    self.text(" = ");
                    self.expression(value)?;
                }
                self.text(" %}");
                self.body(&with.body)?;
                self.text("{% endwith %}");
            }
            _ => self.other_statement(statement)?,
        }
        Ok(())
    }

    fn other_statement(&mut self, statement: &Stmt<'_>) -> Done {
        match statement {
            Stmt::Set(set) => {
                self.text("{% set ");
                self.target(&set.target)?;
                self.text(" = ");
                self.expression(&set.expr)?;
                self.text(" %}");
            }
            Stmt::SetBlock(set) => {
                self.text("{% set ");
                self.target(&set.target)?;
                if let Some(filter) = &set.filter {
                    self.text(" | ");
                    self.filter_chain(filter)?;
                }
                self.text(" %}");
                self.body(&set.body)?;
                self.text("{% endset %}");
            }
            Stmt::FilterBlock(block) => {
                self.text("{% filter ");
                self.filter_chain(&block.filter)?;
                self.text(" %}");
                self.body(&block.body)?;
                self.text("{% endfilter %}");
            }
            Stmt::Macro(declared) => {
                self.text("{% macro ");
                self.name(declared.name)?;
                self.parameters(declared)?;
                self.text(" %}");
                self.body(&declared.body)?;
                self.text("{% endmacro %}");
            }
            Stmt::CallBlock(block) => {
                self.text("{% call");
                self.parameters(&block.macro_decl)?;
                self.text(" ");
                self.plain_call(&block.call.expr, &block.call.args)?;
                self.text(" %}");
                self.body(&block.macro_decl.body)?;
                self.text("{% endcall %}");
            }
            Stmt::Do(call) => {
                self.text("{% do ");
                self.plain_call(&call.call.expr, &call.call.args)?;
                self.text(" %}");
            }
            Stmt::Continue(_) => self.text("{% continue %}"),
            Stmt::Break(_) => self.text("{% break %}"),
            _ => return Err(refuse("blocks, includes, imports or autoescape")),
        }
        Ok(())
    }

    fn parameters(&mut self, declared: &Macro<'_>) -> Done {
        self.text("(");
        let without_default = declared.args.len().saturating_sub(declared.defaults.len());
        for (index, argument) in declared.args.iter().enumerate() {
            self.text(if index > 0 { ", " } else { "" });
            self.target(argument)?;
            if let Some(default) = index.checked_sub(without_default).and_then(|index| declared.defaults.get(index)) {
                self.text("=");
                self.expression(default)?;
            }
        }
        self.text(")");
        Ok(())
    }

    /// What is assigned to: a name, an attribute of a namespace, or several of them.
    fn target(&mut self, target: &Expr<'_>) -> Done {
        let items = match target {
            Expr::Var(var) => return self.name(var.id),
            Expr::GetAttr(attribute) => {
                self.target(&attribute.expr)?;
                self.text(".");
                return self.name(attribute.name);
            }
            Expr::Tuple(tuple) => &tuple.items,
            Expr::List(list) => &list.items,
            _ => return Err(refuse("this target of an assignment")),
        };
        self.text("(");
        for item in items {
            self.deeper(|this| this.target(item))?;
            self.text(", ");
        }
        self.text(")");
        Ok(())
    }

    fn name(&mut self, name: &str) -> Done {
        if name.starts_with("__") {
            return Err(refuse("names that begin with two underscores"));
        }
        self.text(name);
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            if matches!(character, '"' | '\\') {
                self.out.push('\\');
            }
            self.out.push(character);
        }
        self.out.push('"');
    }

    fn expression(&mut self, expression: &Expr<'_>) -> Done {
        self.deeper(|this| this.any_expression(expression))
    }

    /// `name(first, second, ...)`.
    fn call(&mut self, name: &str, arguments: &[&Expr<'_>]) -> Done {
        self.text(name);
        self.text("(");
        for (index, argument) in arguments.iter().enumerate() {
            self.text(if index > 0 { ", " } else { "" });
            self.expression(argument)?;
        }
        self.text(")");
        Ok(())
    }

    fn any_expression(&mut self, expression: &Expr<'_>) -> Done {
        match expression {
            Expr::Var(var) => self.name(var.id)?,
            Expr::Const(constant) => self.constant(&constant.value)?,
            Expr::UnaryOp(unary) => {
                self.text(match unary.op {
                    UnaryOpKind::Not => "(not ",
                    UnaryOpKind::Neg => "(-",
                });
                self.expression(&unary.expr)?;
                self.text(")");
            }
            Expr::BinOp(binary) => self.binary(binary.op, &binary.left, &binary.right)?,
            Expr::Compare(compare) => {
                let mut left = &compare.expr;
                self.text("(");
                for (index, step) in compare.ops.iter().enumerate() {
                    self.text(if index > 0 { " and " } else { "" });
                    self.comparison(comparison_name(step.op), left, &step.expr)?;
                    left = &step.expr;
                }
                self.text(")");
            }
            Expr::IfExpr(choice) => {
                self.text("(");
                self.expression(&choice.true_expr)?;
                self.text(" if ");
                self.expression(&choice.test_expr)?;
                if let Some(otherwise) = &choice.false_expr {
                    self.text(" else ");
                    self.expression(otherwise)?;
                }
                self.text(")");
            }
            Expr::Filter(filter) => {
                let inner = filter.expr.as_ref().ok_or_else(|| refuse("a filter without a value"))?;
                self.text("(__charge(");
                self.expression(inner)?;
                self.text(")|");
                self.text(filter.name);
                self.arguments(&filter.args)?;
                self.text(")");
            }
            Expr::Test(test) => {
                self.text("(");
                self.expression(&test.expr)?;
                self.text(" is ");
                // Names such as `==` are only written by the parser itself for filters like `select`.
                self.text(test.name);
                if !test.args.is_empty() {
                    self.arguments(&test.args)?;
                }
                self.text(")");
            }
            _ => self.other_expression(expression)?,
        }
        Ok(())
    }

    fn other_expression(&mut self, expression: &Expr<'_>) -> Done {
        match expression {
            Expr::GetAttr(attribute) => {
                self.text("(");
                self.expression(&attribute.expr)?;
                self.text(").");
                self.name(attribute.name)?;
            }
            Expr::GetItem(item) => {
                self.call("__charge", &[&item.expr])?;
                self.text("[");
                self.call("__plain", &[&item.subscript_expr])?;
                self.text("]");
            }
            Expr::Slice(slice) => {
                self.text("__slice(");
                self.expression(&slice.expr)?;
                for bound in [&slice.start, &slice.stop, &slice.step] {
                    self.text(", ");
                    match bound {
                        Some(bound) => self.expression(bound)?,
                        None => self.text("none"),
                    }
                }
                self.text(")");
            }
            Expr::Call(call) => match &call.expr {
                Expr::GetAttr(method) => {
                    self.text("__method(");
                    self.expression(&method.expr)?;
                    self.text(", ");
                    self.string(method.name);
                    for argument in &call.args {
                        self.text(", ");
                        self.argument(argument)?;
                    }
                    self.text(")");
                }
                _ => self.plain_call(&call.expr, &call.args)?,
            },
            Expr::List(list) => {
                self.text("[");
                self.items(&list.items)?;
                self.text("]");
            }
            Expr::Tuple(tuple) => {
                self.text("(");
                self.items(&tuple.items)?;
                self.text(")");
            }
            Expr::Map(map) => {
                self.text("{");
                for (key, value) in map.keys.iter().zip(&map.values) {
                    self.call("__plain", &[key])?;
                    self.text(": ");
                    self.expression(value)?;
                    self.text(", ");
                }
                self.text("}");
            }
            _ => return Err(refuse("this expression")),
        }
        Ok(())
    }

    fn items(&mut self, items: &[Expr<'_>]) -> Done {
        for item in items {
            self.expression(item)?;
            self.text(", ");
        }
        Ok(())
    }

    fn binary(&mut self, op: BinOpKind, left: &Expr<'_>, right: &Expr<'_>) -> Done {
        let infix = match op {
            BinOpKind::Eq => return self.comparison("==", left, right),
            BinOpKind::Ne => return self.comparison("!=", left, right),
            BinOpKind::Lt => return self.comparison("<", left, right),
            BinOpKind::Lte => return self.comparison("<=", left, right),
            BinOpKind::Gt => return self.comparison(">", left, right),
            BinOpKind::Gte => return self.comparison(">=", left, right),
            BinOpKind::In => return self.comparison("in", left, right),
            BinOpKind::Add | BinOpKind::Concat => return self.chain(op, left, right),
            BinOpKind::Mul => return self.call("__multiply", &[left, right]),
            BinOpKind::ScAnd => " and ",
            BinOpKind::ScOr => " or ",
            BinOpKind::Sub => " - ",
            BinOpKind::Div => " / ",
            BinOpKind::FloorDiv => " // ",
            BinOpKind::Rem => " % ",
            BinOpKind::Pow => " ** ",
        };
        self.text("(");
        self.expression(left)?;
        self.text(infix);
        self.expression(right)?;
        self.text(")");
        Ok(())
    }

    fn comparison(&mut self, name: &str, left: &Expr<'_>, right: &Expr<'_>) -> Done {
        self.text("__compare(");
        self.string(name);
        self.text(", ");
        self.expression(left)?;
        self.text(", ");
        self.expression(right)?;
        self.text(")");
        Ok(())
    }

    /// `a + b + c` is printed flat, because long ones are common.
    fn chain(&mut self, op: BinOpKind, left: &Expr<'_>, right: &Expr<'_>) -> Done {
        let add = matches!(op, BinOpKind::Add);
        let mut terms = Vec::from([right]);
        let mut rest = left;
        while let Expr::BinOp(inner) = rest {
            if matches!(inner.op, BinOpKind::Add) != add || !matches!(inner.op, BinOpKind::Add | BinOpKind::Concat) {
                break;
            }
            terms.push(&inner.right);
            rest = &inner.left;
        }
        terms.push(rest);
        terms.reverse();
        self.call(if add { "__add" } else { "__concat" }, &terms)
    }

    fn plain_call(&mut self, callee: &Expr<'_>, arguments: &[CallArg<'_>]) -> Done {
        self.expression(callee)?;
        self.arguments(arguments)
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) -> Done {
        self.text("(");
        for (index, argument) in arguments.iter().enumerate() {
            self.text(if index > 0 { ", " } else { "" });
            self.argument(argument)?;
        }
        self.text(")");
        Ok(())
    }

    fn argument(&mut self, argument: &CallArg<'_>) -> Done {
        match argument {
            CallArg::Pos(value) => self.expression(value),
            CallArg::Kwarg(name, value) => {
                self.name(name)?;
                self.text("=");
                self.expression(value)
            }
            CallArg::PosSplat(_) | CallArg::KwargSplat(_) => Err(refuse("* or ** in a call")),
        }
    }

    /// The filters of a block, which have no value of their own.
    fn filter_chain(&mut self, filter: &Expr<'_>) -> Done {
        let Expr::Filter(filter) = filter else { return Err(refuse("this filter")) };
        if let Some(inner) = &filter.expr {
            self.deeper(|this| this.filter_chain(inner))?;
            self.text("|");
        }
        self.text(filter.name);
        self.arguments(&filter.args)
    }

    fn constant(&mut self, value: &Value) -> Done {
        match value.kind() {
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::None => self.text("none"),
            ValueKind::Bool => self.text(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => {
                let written = write!(self.out, "({value})");
                debug_assert!(written.is_ok(), "writing to a String cannot fail");
            }
            ValueKind::Seq => {
                self.text(if value.is_tuple() { "(" } else { "[" });
                for item in value.try_iter()? {
                    self.constant(&item)?;
                    self.text(", ");
                }
                self.text(if value.is_tuple() { ")" } else { "]" });
            }
            _ => return Err(refuse("this constant")),
        }
        Ok(())
    }
}

fn comparison_name(op: CompareOpKind) -> &'static str {
    match op {
        CompareOpKind::Eq => "==",
        CompareOpKind::Ne => "!=",
        CompareOpKind::Lt => "<",
        CompareOpKind::Lte => "<=",
        CompareOpKind::Gt => ">",
        CompareOpKind::Gte => ">=",
        CompareOpKind::In => "in",
        CompareOpKind::NotIn => "not in",
    }
}
