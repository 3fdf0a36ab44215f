//! A function's signature as its language writes it, for lists of functions.

use std::fmt::Write as _;

use super::types::{Shape, TypeNo, Types};
use super::{Described, Language};

/// Names of types within types that are written out.
const DEPTH_MAX: u32 = 8;

impl Described {
    /// The signature: `total(id: i32, name: &str) -> bool`, `int total(int id, const char *name)` or
    /// `main.total(id int, name string) (bool, error)`. The name is without namespaces unless `name`
    /// says otherwise.
    pub fn signature(&self, name: Option<&str>) -> String {
        let name = name.unwrap_or(&self.name);
        match self.language {
            Language::Go => self.go(name),
            Language::C | Language::Cpp => self.c(name),
            Language::Rust | Language::Other => self.rust(name),
        }
    }

    fn rust(&self, name: &str) -> String {
        let mut out = format!("{name}(");
        for (number, parameter) in self.parameters.iter().enumerate() {
            if number > 0 {
                out.push_str(", ");
            }
            let ty = short(&spelled(&self.types, parameter.ty, 0));
            // Writing to a string does not fail.
            let _ = write!(out, "{}: {ty}", or_blank(&parameter.name));
        }
        out.push(')');
        if let Some(result) = self.results.first()
            && !matches!(self.types.bare(result.ty).1.shape, Shape::Void)
        {
            let _ = write!(out, " -> {}", short(&spelled(&self.types, result.ty, 0)));
        }
        out
    }

    fn c(&self, name: &str) -> String {
        let result = self.results.first();
        let result = result.map_or_else(|| "void".to_owned(), |r| spelled(&self.types, r.ty, 0));
        let gap = if result.ends_with('*') || result.ends_with('&') { "" } else { " " };
        let mut out = format!("{result}{gap}{name}(");
        let visible = self.parameters.iter().filter(|parameter| &*parameter.name != "this");
        for (number, parameter) in visible.enumerate() {
            if number > 0 {
                out.push_str(", ");
            }
            let ty = spelled(&self.types, parameter.ty, 0);
            let gap = if ty.ends_with('*') || ty.ends_with('&') { "" } else { " " };
            let _ = write!(out, "{ty}{gap}{}", parameter.name);
            if parameter.name.is_empty() {
                out.truncate(out.trim_end().len());
            }
        }
        out.push(')');
        out
    }

    fn go(&self, name: &str) -> String {
        let mut out = format!("{name}(");
        for (number, parameter) in self.parameters.iter().enumerate() {
            if number > 0 {
                out.push_str(", ");
            }
            let ty = spelled(&self.types, parameter.ty, 0);
            let _ = write!(out, "{} {ty}", or_blank(&parameter.name));
        }
        out.push(')');
        let results: Vec<String> =
            self.results.iter().map(|result| spelled(&self.types, result.ty, 0)).collect();
        match results.as_slice() {
            [] => {}
            [only] => {
                let _ = write!(out, " {only}");
            }
            all => {
                let _ = write!(out, " ({})", all.join(", "));
            }
        }
        out
    }
}

fn or_blank(name: &str) -> &str {
    if name.is_empty() { "_" } else { name }
}

/// A type as it is written; types without a name by what they are made of.
fn spelled(types: &Types, ty: TypeNo, depth: u32) -> String {
    if depth > DEPTH_MAX {
        return "…".to_owned();
    }
    let found = types.get(ty);
    match &found.shape {
        Shape::Alias { to, qualifier: true } => {
            let inner = spelled(types, *to, depth + 1);
            // A constant pointer says so behind the star.
            if inner.ends_with('*') {
                format!("{inner}{} ", found.name)
            } else {
                format!("{} {inner}", found.name)
            }
        }
        Shape::Pointer { to, reference } if found.name.is_empty() => {
            let inner = spelled(types, *to, depth + 1);
            let mark = if *reference { '&' } else { '*' };
            let gap = if inner.ends_with(['*', ' ']) { "" } else { " " };
            format!("{inner}{gap}{mark}")
        }
        Shape::Array { of, count } if found.name.is_empty() => {
            let inner = spelled(types, *of, depth + 1);
            let count = count.map(|count| count.to_string()).unwrap_or_default();
            format!("{inner}[{count}]")
        }
        Shape::Void if found.name.is_empty() => "void".to_owned(),
        Shape::Code if found.name.is_empty() => "function".to_owned(),
        _ if found.name.is_empty() => "?".to_owned(),
        _ => found.name.to_string(),
    }
}

/// Rust's types without their allocator and the paths of what they hold.
fn short(name: &str) -> String {
    let name = name.replace(", alloc::alloc::Global", "");
    let mut out = String::new();
    let mut word = String::new();
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ':' && rest.peek() == Some(&':') {
            // What stood before is a module's or crate's name.
            rest.next();
            word.clear();
        } else if c.is_alphanumeric() || c == '_' {
            word.push(c);
        } else {
            out.push_str(&word);
            word.clear();
            out.push(c);
        }
    }
    out.push_str(&word);
    out
}
